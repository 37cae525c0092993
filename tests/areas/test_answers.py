"""Answers are taken from the sample's own points alone, and what is missing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely

from geossl.areas.answers import Answers, read_answers
from geossl.areas.assess import assess
from geossl.areas.estimators import StratifiedSample, estimate
from geossl.areas.sample import Sample, write_points
from geossl.errors import LabelError
from geossl.legend import NO_LABEL


def interpreted(folder: Path, sample: Sample, answers: list[str | None]) -> Path:
    """The sample's points as QGIS would leave them."""
    path = write_points(folder, sample)
    frame = pyogrio.read_dataframe(path)
    frame["reference"] = pd.array(answers, "string")
    path.unlink()
    pyogrio.write_dataframe(frame, path, layer="points")
    return path


def as_mapped(sample: Sample) -> list[str | None]:
    names = dict(zip(sample.legend.codes, sample.legend.names, strict=True))
    return [names[point.mapped] for point in sample.points]


def test_answers_come_back_from_geopackage_and_csv(sample: Sample, tmp_path: Path) -> None:
    answers = as_mapped(sample)
    answers[3] = None
    path = interpreted(tmp_path, sample, answers)
    found = read_answers(path, sample)
    wanted = [NO_LABEL if a is None else sample.legend.names.index(a) for a in answers]
    assert found.reference.tolist() == wanted
    # Collect Earth Online's table has its own columns, in its own order, and not every plot
    table = pd.DataFrame(
        {
            "plotid": [p.plot + 9000 for p in sample.points],
            "pl_plotid": [p.plot for p in sample.points],
            "lon": [p.lon for p in sample.points],
            "lat": [p.lat for p in sample.points],
            "What is it?": [None if a is None else f" {a.upper()} " for a in answers],
        }
    ).sample(frac=1, random_state=0)
    table[table["pl_plotid"] != 7].to_csv(tmp_path / "ceo.csv", index=False)
    wanted[6] = NO_LABEL
    assert read_answers(tmp_path / "ceo.csv", sample, "What is it?").reference.tolist() == wanted


def test_what_is_no_reference_is_refused_with_the_reason(sample: Sample, tmp_path: Path) -> None:
    path = interpreted(tmp_path, sample, as_mapped(sample))
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", dtype="uint8", count=1, height=1, width=1, crs="EPSG:32722",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ):  # fmt: skip
        pass
    with pytest.raises(LabelError, match=r"is a raster, which is no reference.*counted pixels repeat the map's errors"):
        read_answers(tmp_path / "map.tif", sample)
    labels = geopandas.GeoDataFrame({"class": ["cleared"]}, geometry=[shapely.box(0, 0, 9, 9)], crs="EPSG:32722")
    labels.to_file(tmp_path / "labels.gpkg")
    with pytest.raises(LabelError, match=r"holds no answers.*training labels were chosen and taught the model"):
        read_answers(tmp_path / "labels.gpkg", sample)
    with pytest.raises(LabelError, match="there is no file"):
        read_answers(tmp_path / "nowhere.csv", sample)
    (tmp_path / "broken.gpkg").write_bytes(b"nonsense")
    with pytest.raises(LabelError, match="cannot be read"):
        read_answers(tmp_path / "broken.gpkg", sample)
    with pytest.raises(LabelError, match="no column 'class'"):
        read_answers(path, sample, "class")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.assign(reference="wood"), "the legend has no class 'wood'"),
        (lambda f: f.assign(plot=f["plot"] + 1), "has plots that the sample demo has not: 71"),
        (lambda f: pd.concat([f, f.iloc[[4]]]), "answers a plot twice: 5"),
        (lambda f: f.set_geometry(f.geometry.translate(0, 6)), r"70 point\(s\) do not lie where they were drawn"),
        (lambda f: f.set_geometry(f.geometry.buffer(5)), "other shapes than points"),
    ],
)
def test_answers_that_are_not_of_these_points_are_refused(
    sample: Sample, tmp_path: Path, change: Callable[..., geopandas.GeoDataFrame], says: str
) -> None:
    path = interpreted(tmp_path, sample, as_mapped(sample))
    frame = change(pyogrio.read_dataframe(path))
    pyogrio.write_dataframe(frame, tmp_path / "changed.gpkg", layer="points")
    with pytest.raises(LabelError, match=says):
        read_answers(tmp_path / "changed.gpkg", sample)


def test_a_table_whose_plots_lie_elsewhere_is_refused(sample: Sample, tmp_path: Path) -> None:
    rows = {"plot": [p.plot for p in sample.points], "lon": [p.lon for p in sample.points][::-1]}
    pd.DataFrame(rows | {"lat": -5.4, "reference": "stable"}).to_csv(tmp_path / "mixed.csv", index=False)
    with pytest.raises(LabelError, match="do not lie where they were drawn"):
        read_answers(tmp_path / "mixed.csv", sample)


def answer(sample: Sample, open_: set[int] = frozenset(), wrong: set[int] = frozenset()) -> Answers:  # type: ignore[assignment]
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    plots = np.array([p.plot for p in sample.points])
    reference = np.where(np.isin(plots, list(wrong)), 1 - mapped, mapped)
    return Answers(np.where(np.isin(plots, list(open_)), NO_LABEL, reference).astype(np.uint8), [None] * len(plots))


def plots_of(sample: Sample, stratum: int) -> list[int]:
    return [p.plot for p in sample.points if p.stratum == stratum]


def test_open_points_are_counted_and_bound_what_they_could_change(sample: Sample) -> None:
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    near, cleared = plots_of(sample, 2), plots_of(sample, 1)
    answers = answer(sample, open_=set(near[:5]), wrong={near[7], cleared[0]})
    found = assess(sample, answers, mapped, same_map=True)
    assert (found["answered"], found["points"]) == (65, 70)
    assert [row["answered"] for row in found["strata"]] == [30, 20, 15]
    entry = found["classes"][1]
    # 19 of 20 of 100 ha, and 1 of 15 of 300 ha
    assert entry["area_ha"]["value"] == pytest.approx(95 + 20)
    assert entry["area_ha_whatever_the_open_points_are"] == pytest.approx([95 + 15, 95 + 90])
    assert entry["mapped_ha"] == 100
    assert found["classes"][0]["mapped_ha"] == 9300
    assert any("5 of 70 points have no answer" in note for note in found["notes"])
    assert entry["area_ha"]["low"] <= 115 <= entry["area_ha"]["high"]
    given = answers.given
    stratum = np.array([p.stratum for p in sample.points])[given]
    own = estimate(
        StratifiedSample(stratum, [9000, 100, 300], units=[900_000, 10_000, 30_000]),
        mapped[given], answers.reference[given], 2,
    )  # fmt: skip
    assert entry["users"]["error"] == pytest.approx(own.users.error[1])
    assert entry["producers"]["value"] == pytest.approx(95 / 115)


def test_a_stratum_without_two_answers_is_refused(sample: Sample) -> None:
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    answers = answer(sample, open_=set(plots_of(sample, 1)[1:]))
    with pytest.raises(LabelError, match=r"stratum 'cleared' has 1 answer\(s\) to 20 points"):
        assess(sample, answers, mapped, same_map=True)


def test_agreement_without_exception_still_has_an_interval(sample: Sample) -> None:
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    found = assess(sample, answer(sample), mapped, same_map=True)
    users = found["classes"][1]["users"]
    assert (users["value"], users["error"], users["high"]) == (1, 0, 1)
    # Wilson's lower end for 20 of 20
    assert users["low"] == pytest.approx(20 / (20 + 1.96**2))
    assert any("7 pixels" in note for note in found["notes"])


def test_a_sample_without_an_answer_says_what_to_do(sample: Sample) -> None:
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    with pytest.raises(LabelError, match="no point was answered yet"):
        assess(sample, answer(sample, open_={p.plot for p in sample.points}), mapped, same_map=True)


def test_answers_of_low_confidence_count_and_are_said(sample: Sample, tmp_path: Path) -> None:
    path = interpreted(tmp_path, sample, as_mapped(sample))
    frame = pyogrio.read_dataframe(path)
    frame.loc[0, "confidence"] = "low"
    pyogrio.write_dataframe(frame, tmp_path / "unsure.gpkg", layer="points")
    found = read_answers(tmp_path / "unsure.gpkg", sample)
    assert found.confidence[0] == "low"
    mapped = sample.legend.to_index(np.array([p.mapped for p in sample.points], np.uint8))
    assert any(
        "1 answer(s) were given with low" in note for note in assess(sample, found, mapped, same_map=True)["notes"]
    )
