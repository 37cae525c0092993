"""Clearing between two named periods, within the forest, without a label: by the stages themselves."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
from scipy import ndimage

from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import stage

PROJECT = """\
name: clearing
sensor: {{ name: sentinel-2-l2a, bands: [B03, B04, B08, B11] }}
sources: [{{ kind: folder, path: "{imagery}/scenes" }}]
cluster: {{ workers: 1 }}
composite: null
map: {{ minimum_ha: 0.5 }}
tasks:
  loss:
    kind: change
    before: 2021-07/2021-10
    after: 2022-07/2022-10
    settings: {{ method: irmad }}
    forest: {forest}
"""
INDEX = "{ kind: index, ndvi: 0.6, ndmi: 0.1 }"


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    days = ("2021-08-07", "2021-09-26", "2022-07-18", "2022-09-01", "2022-10-21")
    folder = tmp_path_factory.mktemp("imagery")
    write_landscape(folder, LandscapeSettings(size=512, dates=tuple(map(dt.date.fromisoformat, days))))
    return folder


def _project(folder: Path, imagery: Path, forest: str = INDEX, old: str = "", new: str = "") -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "geossl.yaml").write_text(PROJECT.format(imagery=imagery, forest=forest).replace(old, new))
    return Project.load(folder)


@pytest.fixture(scope="module")
def mapped(imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A published map; no encoder was ever trained."""
    project = _project(tmp_path_factory.mktemp("project") / "clearing", imagery)
    for verb in ("ingest", "stats", "finetune", "map"):
        stage(verb)(project, silent)
    return project


@pytest.mark.slow
def test_the_first_map_costs_neither_labels_nor_training(mapped: Project, imagery: Path) -> None:
    release = mapped.maps / "loss" / "latest"
    with rasterio.open(release / "loss.tif") as raster:
        found, crs, transform = raster.read(1) == 1, raster.crs, raster.transform
    true = pyogrio.read_dataframe(imagery / "labels" / "clearings.gpkg").to_crs(crs)
    # felled between the periods, hence seen in one and not in the other
    sure = true[(true["date"] > "2021-09-26") & (true["date"] <= "2022-07-18")]
    ever = true[(true["date"] > "2021-06-30") & (true["date"] <= "2022-10-31")]
    sure, ever = (
        rasterio.features.rasterize(each.geometry, found.shape, transform=transform).astype(bool)
        for each in (sure, ever)
    )
    assert found[sure].mean() > 0.7
    assert ever[found].mean() > 0.7
    lineage = json.loads((release / "loss-lineage.json").read_text())
    assert lineage["forest"]["settings"]["kind"] == "index"
    assert lineage["smallest_pixels"] == 50
    assert [source["scene"] for source in lineage["tiles"][0]["sources"]] == ["2021-07-01/P4M", "2022-07-01/P4M"]


@pytest.mark.slow
def test_change_lies_in_the_forest_in_patches_large_enough(mapped: Project) -> None:
    release = mapped.maps / "loss" / "latest"
    with rasterio.open(release / "loss.tif") as raster:
        found = raster.read(1) == 1
    data = mapped.task_data("loss")
    (tile_id,) = data.require_dates()
    assert data.forest is not None
    forest = data.forest(tile_id)[: found.shape[0], : found.shape[1]]
    assert 0.2 < forest.mean() < 0.8
    assert not (found & ~forest).any()
    polygons = pyogrio.read_dataframe(release / "loss-polygons.gpkg")
    assert polygons["area_ha"].min() >= 0.499
    assert {str(day)[:10] for day in polygons["date_from"]} == {"2021-07-01"}
    assert {str(day)[:10] for day in polygons["date_to"]} == {"2022-10-31"}
    patches, count = ndimage.label(found)
    assert np.bincount(patches.ravel())[1:].min() >= 50
    assert count == len(polygons)


@pytest.mark.slow
def test_what_a_river_took_is_a_class_of_its_own(mapped: Project, imagery: Path, tmp_path: Path) -> None:
    """Mud that leads to a new reach of open water is its bed; the same mud by itself was cleared."""
    data = mapped.task_data("loss")
    assert data.forest is not None
    forest = data.forest(data.require_dates()[0])[:512, :512]
    dense = ndimage.uniform_filter(forest.astype(float), (40, 60))[:, 30:480]
    dense[:240] = 0
    y, x = np.unravel_index(np.argmax(dense), dense.shape)
    mud = {"B03": 1700, "B04": 1800, "B08": 900, "B11": 2500}
    water = {"B03": 900, "B04": 700, "B08": 300, "B11": 100}
    bed, reach, alone = np.s_[80:120, :], np.s_[96:104, :], np.s_[y // 2 * 2 : y + 20, (x + 20) // 2 * 2 : x + 50]
    flooded = tmp_path / "flooded"
    shutil.copytree(imagery / "scenes", flooded / "scenes")
    for scene in flooded.glob("scenes/*_2022*"):
        for name in mud:
            with rasterio.open(scene / f"{name}.tif") as file:
                pixels, profile = file.read(), file.profile
            size = 512 // pixels.shape[1]  # of a pixel, in those of the grid
            for place, value in ((bed, mud), (alone, mud), (reach, water)):
                part = tuple(slice(s.start and s.start // size, s.stop and s.stop // size) for s in place)
                pixels[0][part] = 1000 + value[name]  # from baseline 04.00 on
            with rasterio.open(scene / f"{name}.tif", "w", **profile) as file:
                file.write(pixels)
    project = _project(tmp_path / "river", flooded, f"{INDEX}\n    river: {{}}", "irmad", "cva")
    for verb in ("ingest", "stats", "finetune", "map"):
        stage(verb)(project, silent)
    record = project.state.get("map.loss")
    assert record is not None
    code = {each["name"]: each["code"] for each in record.result["legend"]["classes"]}
    with rasterio.open(project.maps / "loss" / "latest" / "loss.tif") as raster:
        found = raster.read(1)
    muddy = np.zeros_like(forest)
    muddy[bed] = True
    muddy[95:105] = False  # the reach, and the row on either side, where short-wave infrared is of both
    assert (found[muddy & forest] == code["river"]).mean() > 0.9
    assert (found[alone][forest[alone]] == code["clearing"]).mean() > 0.9
    assert not (found[200:] == code["river"]).any()


@pytest.mark.slow
def test_nothing_is_done_twice_and_another_forest_maps_again(mapped: Project, imagery: Path) -> None:
    for verb in ("stats", "finetune", "map"):
        assert stage(verb)(mapped, silent).skipped
    other = _project(mapped.root, imagery, "{ kind: index, ndvi: 0.8 }")
    for verb in ("finetune", "map"):
        assert not stage(verb)(other, silent).skipped
    _project(mapped.root, imagery)


@pytest.mark.slow
def test_a_period_without_images_is_named(mapped: Project, imagery: Path) -> None:
    project = _project(mapped.root, imagery, old="2022-07/2022-10", new="2023")
    stage("stats")(project, silent)
    with pytest.raises(LabelError, match="the period 2023-01-01/P12M has no clear image"):
        stage("finetune")(project, silent)
    _project(mapped.root, imagery)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2021-07/2021-10", "2021-07-01", "both days or both periods"),
        ("2021-07/2021-10", "2023", "is not before after"),
        ("2021-07/2021-10", "in spring", "a day such as 2020-10-01, or a period"),
        (INDEX, "{ kind: index }", "needs ndvi, ndmi or both"),
        (INDEX, "{ kind: landcover, task: cover }", None),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    if said is not None:
        with pytest.raises(SettingsError, match=said):
            _project(tmp_path, tmp_path, old=old, new=new)
        return
    project = _project(tmp_path, tmp_path, old=old, new=new)
    with pytest.raises(SettingsError, match="no land-cover task 'cover'"):
        project.forest_key("loss")


def test_a_forest_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    project = _project(tmp_path, tmp_path, "{ kind: raster, path: forest.tif }")
    with pytest.raises(LabelError, match=r"forest cannot be read from .*forest\.tif"):
        project.forest_key("loss")


def test_a_land_cover_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    cover = """\
  cover: { kind: landcover, labels: { path: labels.gpkg, column: class } }
"""
    project = _project(tmp_path, tmp_path, "{ kind: landcover, task: cover }\n" + cover)
    with pytest.raises(StoreError, match="'cover' has no model yet"):
        project.forest_key("loss")
