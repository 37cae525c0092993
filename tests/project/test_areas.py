"""`geossl sample`, `area` and `release` as a person meets them, on a copy of the small project and its maps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from PIL import Image

from geossl.areas.sample import Sample
from geossl.cli.app import app
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.maps.published import find_map
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import area, release, sample
from geossl.project.stages.release import freeze, verify
from geossl.project.stages.remap import compare
from geossl.project.stages.run import run_all, stage
from geossl.project.stages.sample import Design

DESIGN = Design(size=48, minimum=12, dates=2)


@pytest.fixture(scope="module")
def mapped(small_project: Path) -> Path:
    run_all(Project.load(small_project), silent)
    return small_project


@pytest.fixture(scope="module")
def project(mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy, so that what others share stays as it is."""
    root = tmp_path_factory.mktemp("areas") / "small"
    shutil.copytree(mapped, root, symlinks=True)
    return Project.load(root)


@pytest.fixture(scope="module")
def drawn(project: Project) -> sample.Drawn:
    return sample.draw(project, "clearing", DESIGN, silent)


def answer(project: Project, drawn: sample.Drawn, wrong: int = 0, open_: int = 0) -> Path:
    """Interpret every point as its map has it, but for the first few."""
    path = drawn.folder / "interpret" / "points.gpkg"
    frame = pyogrio.read_dataframe(path)
    names = dict(zip(drawn.sample.legend.codes, drawn.sample.legend.names, strict=True))
    said = [names[point.mapped] for point in drawn.sample.points]
    for i in range(wrong):
        said[i] = next(name for name in names.values() if name != said[i])
    said[wrong : wrong + open_] = [None] * open_  # type: ignore[list-item]  # as a person leaves them
    frame["reference"] = pd.array(said, "string")
    path.unlink()
    pyogrio.write_dataframe(frame, path, layer="points")
    return path


def test_a_sample_pins_what_it_was_drawn_from(project: Project, drawn: sample.Drawn) -> None:
    found = drawn.sample
    published = find_map(project.maps, "clearing")
    assert (found.map, found.release) == ("clearing", published.id)
    assert found == Sample.load(drawn.folder)
    assert project.cube().tags()[f"sample-{found.id}"] == project.cube().tags()[published.tag] == found.snapshot
    with rasterio.open(published.classes) as raster:
        codes = raster.read(1)
        places = [raster.index(point.x, point.y) for point in found.points]
    assert [codes[place] for place in places] == [point.mapped for point in found.points]
    assert sum(row.units for row in found.strata) == (codes != 255).sum() == codes.size - found.unmapped
    assert sum(row.points for row in found.strata) == len(found.points) == 48
    # UTM near its middle: 0.08 % more ground than map
    assert found.area_ha == pytest.approx((codes != 255).sum() / 100, rel=2e-3)


def test_the_same_design_draws_the_same_points_and_never_writes_over_answers(
    project: Project, drawn: sample.Drawn
) -> None:
    again = sample.draw(project, "clearing", DESIGN, silent)
    assert not again.fresh
    assert again.sample == drawn.sample
    aside = drawn.folder.rename(drawn.folder.with_name("aside"))
    redrawn = sample.draw(project, "clearing", DESIGN, silent)
    assert redrawn.fresh
    assert dataclasses.replace(redrawn.sample, created="") == dataclasses.replace(drawn.sample, created="")
    shutil.rmtree(redrawn.folder)
    aside.rename(drawn.folder)
    other = sample.draw(project, "clearing", dataclasses.replace(DESIGN, seed=1), silent)
    assert {p.lon for p in other.sample.points} != {p.lon for p in drawn.sample.points}
    shutil.rmtree(other.folder)


def test_interpreters_get_pictures_by_date_and_no_hint(project: Project, drawn: sample.Drawn) -> None:
    folder = drawn.folder / "interpret"
    frame = pyogrio.read_dataframe(folder / "points.gpkg")
    assert all((folder / path).is_file() for path in frame["picture"])
    page = (folder / "index.html").read_text()
    assert page.count("<figure") == len(frame) == 48
    with Image.open(folder / frame["picture"][0]) as picture:
        # at least before and after, in two kinds of colours
        assert picture.width >= 2 * 256
        assert picture.height >= 2 * 256
        assert np.asarray(picture).std() > 10
    assert not {"mapped", "stratum", "size"} & set(frame.columns)
    assert "sample.json" not in {path.name for path in folder.rglob("*")}


def test_answers_become_areas_with_intervals(
    project: Project, drawn: sample.Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(project, drawn, wrong=6, open_=2)
    assert app(["area", drawn.sample.id, "-p", str(project.root)], result_action="return_value") == 0
    shown = capsys.readouterr().out
    assert "46 of 48 points answered" in shown
    figures = json.loads((drawn.folder / "area.json").read_text())
    assert [entry["class"] for entry in figures["classes"]] == list(drawn.sample.legend.names)
    total = sum(entry["area_ha"]["value"] for entry in figures["classes"])
    assert total == pytest.approx(drawn.sample.area_ha, rel=1e-3)
    for entry in figures["classes"]:
        assert entry["area_ha"]["low"] <= entry["area_ha"]["value"] <= entry["area_ha"]["high"]
    table = pd.read_csv(drawn.folder / "area.csv")
    assert table["area_ha"][:2].tolist() == pytest.approx([e["area_ha"]["value"] for e in figures["classes"]])
    assert figures["points_on_training_labels"] > 0
    assert any("labels that taught the model" in note for note in figures["notes"])


def test_an_older_sample_judges_a_newer_map(project: Project, drawn: sample.Drawn) -> None:
    answer(project, drawn)
    own = area.run(project, drawn.sample.id).figures
    assert own["overall"]["value"] == 1
    newest = Project.load(project.root, ["map.minimum_ha=3"])
    stage("map")(newest, silent)
    later = area.run(newest, drawn.sample.id, assessed="clearing")
    assert later.json != drawn.folder / "area.json"
    assert later.figures["assessed"] != drawn.sample.release
    assert 0.5 < later.figures["overall"]["value"] < 1  # a larger mapping unit leaves small clearings out
    assert later.figures["classes"][0]["mapped_ha"] is None
    with pytest.raises(LabelError, match="classes that the sample's legend has not"):
        area.run(newest, drawn.sample.id, assessed="landcover")


def test_the_map_of_a_sample_outlives_others(project: Project, drawn: sample.Drawn) -> None:
    folder = project.maps / "clearing" / "releases"
    for hectares in (0.31, 0.32):
        stage("map")(Project.load(project.root, [f"map.minimum_ha={hectares}", "map.keep=1"]), silent)
    left = {path.name for path in folder.iterdir()}
    assert drawn.sample.release in left
    assert len(left) == 2


@pytest.mark.parametrize("reference", ["clearing", "imagery/labels/clearings.gpkg"])
def test_labels_and_maps_are_refused_as_reference(project: Project, drawn: sample.Drawn, reference: str) -> None:
    path = project.root / reference if "/" in reference else Path(reference)
    with pytest.raises(LabelError, match=r"holds the labels of the task 'clearing'.*taught the model"):
        area.run(project, drawn.sample.id, reference=path)
    with pytest.raises(LabelError, match="is of a map"):
        area.run(project, drawn.sample.id, reference=find_map(project.maps, "clearing").classes)


def test_what_cannot_be_drawn_is_said_with_a_remedy(project: Project) -> None:
    for design, says in (
        (Design(size=10), "10 points are too few for 3 strata"),
        (Design(minimum=1), "at least two points"),
        (Design(error=2.0), "no standard error"),
        (Design(buffer="20 yards"), "no width"),
        (Design(around=("wood",)), "no class 'wood'"),
        (Design(users={"wood": 0.5}), "no stratum 'wood'"),
        (Design(users={"clearing": 80}), "is no accuracy"),
    ):
        with pytest.raises(SettingsError, match=says):
            sample.draw(project, "clearing", design, silent)
    with pytest.raises(StoreError, match=r"no published map 'roads'\n.*there are: clearing/"):
        sample.draw(project, "roads", DESIGN, silent)
    with pytest.raises(StoreError, match="there is no sample 'roads'"):
        area.run(project, "roads")


def test_a_released_year_stays_as_it_is(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match=r"outside of the reporting year 2025 \(2025-01-01 to 2025-12-31\)"):
        freeze(project, 2025)
    with pytest.raises(SettingsError, match="'landcover' is no change task"):
        freeze(project, 2022, task="landcover")
    with pytest.raises(StoreError, match="nothing to revise"):
        freeze(project, 2022, why="because")
    done = freeze(project, 2022)
    assert done.fresh
    content = done.release.content
    assert project.cube().tags()["release-clearing-2022"] == content["snapshot"]
    with rasterio.open(done.release.folder / "cleared.tif") as raster:
        hectares = (raster.read(1) == 1).sum() / 100
    assert content["areas"]["cleared_ha"] == pytest.approx(hectares, rel=2e-3)
    assert content["areas"]["mapped_ha"] > 0
    before = {path: path.stat().st_mtime_ns for path in done.release.folder.rglob("*")}
    assert not freeze(project, 2022).fresh
    other = Project.load(project.root, ["release.minimum_ha=0.05"])
    with pytest.raises(
        StoreError, match=r"2022 was released on .* with another minimum_ha \(0.5, now 0.05\)\n.*stays as it is"
    ):
        freeze(other, 2022)
    revised = freeze(other, 2022, why="the law counts smaller patches")
    assert revised.release.id == "2022-r2"
    assert revised.release.content["why"] == "the law counts smaller patches"
    assert revised.release.content["areas"]["cleared_ha"] >= content["areas"]["cleared_ha"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert verify(project, None) == {"2022": [], "2022-r2": []}
    arguments = ["release", "2022", "--verify", "-p", str(project.root)]
    assert app(arguments, result_action="return_value") == 0
    altered = done.release.folder / "map" / "clearing.qml"
    altered.chmod(0o644)
    altered.write_text("another legend")
    assert app(arguments, result_action="return_value") == 4
    assert "2022: map/clearing.qml was changed" in capsys.readouterr().out
    assert app(["release", "-p", str(project.root)], result_action="return_value") == 0
    assert "2022" in capsys.readouterr().out


@pytest.mark.slow
def test_the_report_shows_areas(project: Project, drawn: sample.Drawn) -> None:
    answer(project, drawn)
    area.run(project, drawn.sample.id)
    stage("report")(project, silent)
    page = project.report_file.read_text()
    assert "Areas from interpreted points" in page
    assert "48 of 48 points answered" in page


@pytest.mark.slow
def test_a_new_model_is_told_from_new_imagery(project: Project) -> None:
    """Another threshold is another model: the imagery is the same, so all of the difference is the model's."""
    if not (project.releases / "clearing").is_dir():
        freeze(project, 2022)
    same, (row,) = compare(project, silent)
    assert row.released == pytest.approx(row.new_model) == pytest.approx(row.now)
    old = project.registry.find("clearing", "champion")
    assert old is not None
    assert same == Path(old.folder).name
    folder = project.store / old.folder
    other = folder.with_name(f"{folder.name}-eager")
    shutil.copytree(folder, other)
    card = json.loads((other / "card.json").read_text())
    (other / "card.json").write_text(json.dumps(card | {"id": other.name, "threshold": card["threshold"] - 1.5}))
    version = project.registry.register("clearing", other)
    project.registry.promote("clearing", version.number, why="a test")
    model, (row,) = compare(project, silent)
    assert model == other.name
    assert row.model > 0
    assert row.imagery == 0
    released = release.table(project)[0]
    assert released["cleared_ha"] == row.released
