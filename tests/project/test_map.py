"""The stage `map` beside the rest of the loop."""

from __future__ import annotations

import contextlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import torch

from geossl.bands import Statistics
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.task import TaskCard, TrainedTask, save_task
from geossl.legend import LandClass, Legend
from geossl.maps.published import find_map
from geossl.mirror import Mirror
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import ingest
from geossl.project.stages import map as stage

PROJECT = """\
name: few
grid: { tile: 256 }
ingest: { reserve: 0 }
sensor: { name: sentinel-2-l2a, bands: [B04, B08] }
composite: null
sources: [{ kind: folder, path: imagery, pattern: "{date}.tif", scene: s }]
tasks: { cover: { kind: landcover, labels: { path: labels.tif } } }
"""


def write(path: Path, image: np.ndarray, nodata: int) -> None:
    profile = {"driver": "GTiff", "crs": "EPSG:32622", "dtype": image.dtype, "nodata": nodata, "count": len(image)}
    place = rasterio.transform.from_origin(599_040, 9_000_960, 10, 10)
    with rasterio.open(path, "w", width=image.shape[2], height=image.shape[1], transform=place, **profile) as out:
        out.write(image)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """2 × 2 tiles of imagery, labels on one of them, and a model of random weights."""
    monkeypatch.setattr(ingest, "dask_client", lambda _: contextlib.nullcontext(None))
    monkeypatch.setattr(Mirror, "update", lambda *_: None)
    (tmp_path / "geossl.yaml").write_text(PROJECT)
    (tmp_path / "imagery").mkdir()
    rng = np.random.default_rng(0)
    write(tmp_path / "imagery" / "20240101.tif", rng.integers(0, 5000, (2, 512, 512), np.int16), -32768)
    labels = np.zeros((1, 512, 512), np.uint8)
    labels[0, :100, :100], labels[0, :100, 100:200] = 1, 2
    write(tmp_path / "labels.tif", labels, 0)
    project = Project.load(tmp_path)
    ingest.run(project, silent)
    torch.manual_seed(0)
    legend = Legend((LandClass(1, "one", "#000000"), LandClass(2, "two", "#ffffff")))
    settings, two = EncoderSettings(name="unet-tiny"), (1.0, 1.0)
    network = LandcoverNetwork(build_encoder(settings, project.sensor.bands), len(legend))
    statistics = Statistics((1, 1), (2500.0, 2500.0), (1500.0, 1500.0), two, two, two, two)
    card = TaskCard("landcover", legend, project.sensor, statistics, settings, "dense", "encoder", "", {}, "", {}, None)
    task = TrainedTask.create(card, network)
    save_task(project.tasks / "cover" / task.id, task)
    project.registry.register("cover", project.tasks / "cover" / task.id)
    return project


def test_a_map_covers_the_imagery_wherever_its_few_labels_are(project: Project) -> None:
    assert len(project.cube().view().labels("cover").tile_ids) == 1
    assert not stage.run(project, silent).skipped
    published = find_map(project.maps, "cover")
    assert sorted(record.tile for record in published.records) == sorted(project.scenes().tile_ids)
    with rasterio.open(published.classes) as raster:
        assert raster.shape == (512, 512)
        assert np.isin(raster.read(1), (1, 2)).all()
    # the classes of a random model are noise, and its first tiles have no polygon of half a hectare
    polygons = published.classes.with_name("cover-polygons.parquet")
    assert len(gpd.read_parquet(polygons)) == pyogrio.read_info(polygons.with_suffix(".gpkg"))["features"] > 0
    assert stage.run(project, silent).skipped
