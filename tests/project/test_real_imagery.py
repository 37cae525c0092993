"""The same verbs on real satellite imagery, read in place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio

from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER
from geossl.imagery.clouds import Quality
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import run_all, stage
from tests.benchmarks.pucallpa import SENSOR
from tests.benchmarks.recipes.sets import ZION

SMALL = """\
pretrain: { encoder: { name: unet-tiny }, epochs: 1, chip: 64, batch_size: 32 }
evaluate: { labels: [100], draws: 1, every: 4, floors: false }
"""

PUCALLPA = (
    f"name: pucallpa\n{SENSOR}"
    + """\
grid: { resolution: 90 }
sources:
  - { kind: folder, path: landing, pattern: "{date:%Y}.tif", bands: [swir1, nir, red, green], scene: pucallpa }
composite: null
tasks:
  clearing: { kind: change, before: 2010-01-01, after: 2020-01-01 }
map: { minimum_ha: 5 }
"""
)

SAFE = """\
name: safe
sensor: { name: sentinel-2-l2a, bands: [B02, B03, B04, B8A, B11] }
sources:
  - { kind: folder, path: "%s" }
"""


def _project(folder: Path, text: str) -> Project:
    (folder / "geossl.yaml").write_text(text)
    return Project.load(folder)


@pytest.mark.slow
def test_zion_landcover_from_one_landsat_scene(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "zion-landsat8-nlcd"
    project = _project(tmp_path, ZION.format(source=source) + "    settings: { labels: 500, mode: few }\n" + SMALL)
    results = {result.stage: result for result in run_all(project, silent)}
    assert results["ingest"].set_aside == 0
    scenes = project.scenes()
    assert {scene for tile in scenes.tile_ids for scene in scenes.scene_ids(tile)} == {"LC80380342015230LGN00"}
    fitted = {row["metric"]: row["mean"] for row in project.scores() if row["model"] in (PRETRAINED, WITHOUT_ENCODER)}
    assert fitted["macro_f1"] > 0.15  # eight classes: above chance; the majority class alone gives 0.09
    with (
        rasterio.open(source / "landsat_b2.tif") as band,
        rasterio.open(project.maps / "landcover/latest/landcover.tif") as map_,
    ):
        assert map_.shape == band.shape  # cropped to the data, on the scene's own grid
        assert map_.transform == band.transform
        assert np.array_equal(map_.read(1) == 255, band.read(1) == 65535)
    assert project.report_file.exists()


@pytest.mark.slow
def test_pucallpa_a_new_year_arrives_and_the_change_is_mapped(shared_data: Path, tmp_path: Path) -> None:
    years = {path.stem[-4:]: path for path in (shared_data / "pucallpa-landsat-series").glob("*.tif")}
    assert sorted(years) == [str(year) for year in range(1985, 2021, 5)]
    landing = tmp_path / "landing"
    landing.mkdir()
    for year in sorted(years)[:-1]:
        shutil.copyfile(years[year], landing / f"{year}.tif")
    project = _project(tmp_path, PUCALLPA + SMALL)
    for verb in ("ingest", "stats", "pretrain"):
        stage(verb)(project, silent)
    before = project.cube().snapshot()
    shutil.copyfile(years["2020"], landing / "2020.tif")
    assert stage("ingest")(project, silent).lines[0].startswith("1 scenes ingested")
    for verb in ("stats", "finetune", "map"):
        stage(verb)(project, silent)
    old = project.cube().view(before).collection(project.sensor.name)
    assert max(len(old.scene_ids(tile)) for tile in old.tile_ids) == 7  # the past still reads as it was
    polygons = pyogrio.read_dataframe(project.maps / "clearing/latest/clearing-polygons.gpkg")
    assert len(polygons) > 10
    assert set(polygons["class_name"]) == {"clearing"}
    assert polygons["area_ha"].min() >= 5


def test_safe_is_harmonised_and_keeps_its_clouds(shared_data: Path, tmp_path: Path) -> None:
    project = _project(tmp_path, SAFE % (shared_data / "s2-safe-t29unu"))
    stage("ingest")(project, silent)
    scenes = project.scenes()
    assert scenes.grid.resolution == 60
    product = next((shared_data / "s2-safe-t29unu").glob("*.SAFE"))
    with rasterio.open(next(product.glob("GRANULE/*/IMG_DATA/R60m/*_B04_60m.jp2"))) as band:
        raw = band.read(1)
    with rasterio.open(next(product.glob("GRANULE/*/IMG_DATA/R60m/*_SCL_60m.jp2"))) as band:
        scl = band.read(1)
    size = scenes.grid.tile_size
    red = list(scenes.sensor.band_names).index("B04")
    for tile_id in scenes.tile_ids:
        row, col = scenes.tile(tile_id).pixel_origin
        theirs = raw[row : row + size, col : col + size].astype(np.int32)
        here = np.s_[: theirs.shape[0], : theirs.shape[1]]
        ours = np.asarray(scenes.image(tile_id)[0])[red][here]
        quality = np.asarray(scenes.quality(tile_id)[0])[here]
        seen = (quality & Quality.NODATA) == 0
        assert np.array_equal(ours[seen], theirs[seen] - 1000)  # DN 1500 is stored as 500: a reflectance of 0.05
        assert not seen[theirs == 0].any()
        clouds = np.isin(scl[row : row + size, col : col + size], (8, 9))
        assert np.array_equal((quality & Quality.CLOUD) != 0, clouds & seen | ((quality & Quality.CLOUD) != 0) & ~seen)
