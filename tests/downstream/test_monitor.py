"""What one scene says of forest: other light and season are no clearing, and a clearing is one in any light."""

from __future__ import annotations

from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from geossl import bands
from geossl.cube import layout
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.downstream.monitor import FOREST, evergreen, fit_look
from geossl.errors import LabelError
from geossl.grid import Grid
from geossl.legend import NO_LABEL, LandClass, Legend

SIZE, TILE = 256, "x0y0"
CLEARED, CLOUD = np.s_[40:70, 40:70], np.s_[0:20, 0:40]
OTHER, PASTURE = np.s_[160:, :], np.s_[160:, :128]
# stored reflectance of red, near infrared and short-wave infrared, in the wet and in the dry season
WOOD = (300, 3200, 1400), (420, 2500, 1700)
GRASS = (600, 3400, 2000), (1500, 2300, 3300)
SOIL = (1500, 2300, 3300), (1600, 2500, 3600)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A wet scene, a dry scene, and a dry scene with a clearing, of which a cloud hides a corner."""
    sensor = bands.sensor("sentinel-2-l2a").subset(("B04", "B08", "B11"))
    rng = np.random.default_rng(0)
    painted = []
    for season, cleared in ((0, False), (1, False), (1, True)):
        image = np.empty((3, SIZE, SIZE))
        image[:] = np.array(WOOD[season])[:, None, None]
        image[:, *OTHER] = np.array(SOIL[season])[:, None, None]
        image[:, *PASTURE] = np.array(GRASS[season])[:, None, None]
        if cleared:
            image[:, *CLEARED] = np.array(SOIL[season])[:, None, None]
        painted.append((image + rng.normal(scale=80, size=image.shape)).astype(np.int16))

    def fill(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        grid = Grid("EPSG:32622", 10, SIZE)
        group = layout.create_tile(layout.create_collection(root, sensor.name, sensor, grid), grid.tile(TILE), sensor)
        for month, image in enumerate(painted, 1):
            quality = np.zeros((SIZE, SIZE), np.uint8)
            if month == 3:
                quality[CLOUD] = 2
            time, clear = np.datetime64(f"2022-0{month}-01"), layout.chunk_fractions(quality == 0)
            layout.append_step(group, layout.Step(f"s{month}", time, str(month), clear), image, quality)
        return "three dates"

    cube = Cube.create(str(tmp_path_factory.mktemp("monitor") / "cube"))
    cube.transact(fill)
    return cube.view().collection(sensor.name)


STATISTICS = bands.Statistics(
    (1,) * 3, (1500.0,) * 3, (1000.0,) * 3, (0.0,) * 3, (4000.0,) * 3, (0.0,) * 3, (4000.0,) * 3
)


def _cover(_: str) -> NDArray[np.uint8]:
    cover = np.zeros((SIZE, SIZE), np.uint8)
    cover[OTHER] = 1
    return cover


def _no_forest(scenes: Collection, step: int, cover: NDArray[np.uint8], legend: Legend) -> NDArray[np.float32]:
    """(H, W) probability of no forest in a scene."""
    task = fit_look(scenes, {TILE: step}, lambda _: cover, legend, ["forest"], STATISTICS)
    assert task is not None
    image, quality = np.asarray(scenes.image(TILE)[step]), np.asarray(scenes.quality(TILE)[step])
    return task.predict(image[None], quality[None] == 0)[0, 1]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_clearing_is_told_from_forest_in_its_own_scene(scenes: Collection, step: int) -> None:
    found = _no_forest(scenes, step, _cover(TILE), FOREST)
    forest = np.ones((SIZE, SIZE), bool)
    forest[OTHER] = forest[CLOUD] = False
    forest[30:80, 30:80] = False
    assert (found[45:65, 45:65] > 0.85).mean() == (1.0 if step == 2 else 0.0)
    assert (found[:140][forest[:140]] < 0.15).mean() > 0.97
    if step == 2:
        assert (found[CLOUD] == 0).all()


def test_several_classes_that_are_no_forest_weigh_as_one(scenes: Collection) -> None:
    legend = Legend(
        (LandClass(4, "grass", "#00ff00"), LandClass(5, "forest", "#005500"), LandClass(6, "soil", "#aa5500"))
    )
    cover = np.full((SIZE, SIZE), 5, np.uint8)
    cover[OTHER], cover[PASTURE] = 6, 4
    found = _no_forest(scenes, 2, cover, legend)
    assert (found[45:65, 45:65] > 0.85).all()
    assert (found[80:140] < 0.15).mean() > 0.97


def test_a_scene_with_nothing_but_forest_cannot_tell(scenes: Collection) -> None:
    cover = np.zeros((SIZE, SIZE), np.uint8)
    cover[:, :200] = NO_LABEL
    assert fit_look(scenes, {TILE: 0}, lambda _: cover, FOREST, ["forest"], STATISTICS) is None


def test_forest_without_labels_is_what_stays_green(scenes: Collection) -> None:
    ((_, cover),) = evergreen(scenes, {TILE: [0, 1]})
    assert (cover[:150] == 0).mean() > 0.99
    assert (cover[170:] == 1).mean() > 0.99
    # in the wet season alone, pasture is as green
    ((_, cover),) = evergreen(scenes, {TILE: [0]})
    assert (cover[170:, :120] == 1).mean() < 0.5


def test_without_short_wave_infrared_forest_needs_labels(tmp_path: Path) -> None:
    sensor = bands.sensor("sentinel-2-l2a").subset(("B04", "B08"))

    def fill(session: icechunk.Session) -> str:
        layout.create_collection(zarr.open_group(session.store, mode="r+"), "two", sensor, Grid("EPSG:32622", 10, 256))
        return "two bands"

    cube = Cube.create(str(tmp_path / "cube"))
    cube.transact(fill)
    with pytest.raises(LabelError, match="short-wave infrared") as refused:
        next(evergreen(cube.view().collection("two"), {}))
    assert "`forest: {task: …" in refused.value.remedy
