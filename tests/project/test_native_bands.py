"""Bands of 20 m that are kept so: whatever reads the cube sees what it would see of one resolution."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from geossl import bands
from geossl.chips.split import Split, SplitSettings
from geossl.cube import statistics
from geossl.cube.collection import Collection
from geossl.cube.composite import composite
from geossl.cube.ingest import ingest
from geossl.cube.labels import add_labels
from geossl.cube.repository import Cube, View
from geossl.cube.settings import CompositeSettings, IngestSettings, LabelSettings
from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.downstream.data import TaskData
from geossl.downstream.images import DatedImages
from geossl.errors import SettingsError
from geossl.imagery.folder import FolderSettings
from geossl.imagery.scene import Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import scene_geobox
from geossl.maps.canvas import Canvas
from geossl.project.grid import choose_grid
from geossl.project.overview import overview, scene_steps
from geossl.project.project import Project
from geossl.project.settings import GridSettings

SENSOR = bands.sensor("sentinel-2-l2a").subset(["B04", "B11", "B03", "B05", "B08"])
PROJECT = """\
name: small
grid: {{ tile: 256, bands: {} }}
sensor: {{ name: sentinel-2-l2a, bands: [B04, B11, B03, B05, B08] }}
sources: [{{ kind: folder, path: imagery/scenes }}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landscape")
    dates = dt.date(2022, 7, 18), dt.date(2022, 9, 1)
    write_landscape(folder / "imagery", LandscapeSettings(size=384, dates=dates))
    return folder


@pytest.fixture(scope="module")
def views(folder: Path) -> dict[str, View]:
    """The same scenes, their composites and labels: bands at native resolutions, and at one."""
    found = list(open_source(FolderSettings(path="imagery/scenes"), folder).scenes(SENSOR))  # type: ignore[call-arg]
    scenes = [scene for scene in found if isinstance(scene, Scene)]
    labels = LabelSettings(path=Path("imagery/labels/landcover.gpkg"), column="class")  # type: ignore[call-arg]
    made = {}
    for kept in ("native", "one"):
        grid = choose_grid(GridSettings(tile=256, bands=kept), scene_geobox(scenes[0]))  # type: ignore[arg-type]
        cube = Cube.create(str(folder / kept / "cube"))
        ingest(cube, scenes, SENSOR, grid, SENSOR.name, IngestSettings(resampling="nearest"))
        composite(cube, SENSOR.name, CompositeSettings())
        add_labels(cube, "landcover", labels, SENSOR.name, folder)
        made[kept] = cube.view()
    return made


@pytest.fixture(scope="module")
def scenes(views: dict[str, View]) -> list[Collection]:
    return [view.collection(SENSOR.name) for view in views.values()]


def test_the_cube_reads_as_one_of_one_resolution(scenes: list[Collection]) -> None:
    """To the bit: by the nearest pixel, a band of 20 m on 10 m is the same band repeated."""
    native, one = scenes
    assert [group.name("image") for group in native.groups] == ["image", "image_20m"]
    assert [group.name("image") for group in one.groups] == ["image"]
    assert native.tile_ids == one.tile_ids
    for tile in native.tile_ids:
        np.testing.assert_array_equal(native.image(tile)[:], one.image(tile)[:])
        np.testing.assert_array_equal(native.quality(tile)[:], one.quality(tile)[:])
        np.testing.assert_array_equal(native.chunk_clear(tile), one.chunk_clear(tile))
    assert statistics.count(native).statistics() == statistics.count(one).statistics()


def test_what_makes_maps_and_pictures_reads_the_same(scenes: list[Collection]) -> None:
    seen = []
    for collection in scenes:
        steps = next(reversed(scene_steps(collection).values()))
        canvas = Canvas(collection, {tile: (step,) for tile, step in steps.items()}, 1)
        row, column = collection.tile(next(iter(steps))).pixel_origin
        image, valid = canvas.read(range(row + 131, row + 300), range(column + 101, column + 421))
        shown = overview(collection, steps, side=100)
        dated = DatedImages(collection, [None]).images(collection.tile_ids[0])
        seen.append([image, valid, shown.image, shown.quality, *dated])
    for ours, theirs in zip(*seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert seen[0][1].any()


def test_labels_fit_to_scenes_and_to_composites(views: dict[str, View]) -> None:
    split = Split(SplitSettings(block=32, buffer=4))
    native, one = (
        TaskData(view.collection(f"{SENSOR.name}-P12M"), view.labels("landcover"), split) for view in views.values()
    )
    assert native.collection.grid == one.collection.grid == views["native"].collection(SENSOR.name).grid.plain
    assert len(native.tile_ids) > 1
    for tile in native.tile_ids:
        for ours, theirs in zip(native.images(tile), one.images(tile), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    on_scenes = TaskData(views["native"].collection(SENSOR.name), native.labels, split)
    assert on_scenes.tile_ids == native.tile_ids


@pytest.mark.parametrize(("kept", "other"), [("native", "one"), ("one", "native")])
def test_a_cube_keeps_what_it_began_with(folder: Path, views: dict[str, View], kept: str, other: str) -> None:
    assert kept in views
    for wanted in (kept, other):
        (folder / "geossl.yaml").write_text(PROJECT.format(wanted) + f"store: {kept}\n")
        project = Project.load(folder)
        if wanted == kept:
            assert project.grid().bands == kept
        else:
            with pytest.raises(SettingsError, match=f"grid.bands is {other} in the project file but {kept}"):
                project.grid()
