"""Small painted cubes with labels that show in the imagery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.bands import Band, Radiometry, Sensor
from geossl.chips.split import Split, SplitSettings
from geossl.cube import layout
from geossl.cube.repository import Cube
from geossl.downstream.data import TaskData
from geossl.downstream.settings import FinetuneSettings
from geossl.grid import Grid
from geossl.legend import LandClass, Legend

SENSOR = Sensor(
    "two-band", tuple(Band(n, w, 10, n) for n, w in (("red", 0.66), ("nir", 0.86))), Radiometry("int16", nodata=-1)
)
LEGEND = Legend(tuple(LandClass(c, n, "#00ff00") for c, n in ((10, "water"), (20, "grass"), (30, "forest"))))
GRID = Grid("EPSG:32622", 10, 256)
SPLIT = Split(SplitSettings(block=32, buffer=4, seed=1))
QUICK = FinetuneSettings(steps=40, window=64, batch_size=4, learning_rate=5e-3)

Paint = Callable[[int, int], tuple[list[NDArray[Any]], NDArray[np.uint8]]]
"""From a tile's ix and a seed to its images (C, H, W), one a date, and its label codes (H, W)."""


def patches(rng: np.random.Generator, values: int, side: int = 16) -> NDArray[np.int64]:
    """(256, 256) squares of random values."""
    return np.kron(rng.integers(0, values, (256 // side, 256 // side)), np.ones((side, side), np.int64))


def landcover(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """Each class has its own mean; the second tile lacks its last columns."""
    rng = np.random.default_rng((seed, ix))
    classes = patches(rng, 3)
    image = np.array([[300, 600, 800], [900, 400, 700]])[:, classes] + rng.normal(scale=60, size=(2, 256, 256))
    image = image.astype(np.int16)
    if ix:
        image[..., 200:] = -1
    return [image], np.array(LEGEND.codes, np.uint8)[classes]


def clearings(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """Some squares change between the dates, while a haze brightens all of the second."""
    rng = np.random.default_rng((seed, ix))
    cleared = patches(rng, 6) == 0
    before = rng.normal(500, 110, (2, 256, 256))
    after = before + rng.normal(80, 110, (2, 256, 256)) + cleared * np.array([250, -250])[:, None, None]
    return [before.astype(np.int16), after.astype(np.int16)], cleared.astype(np.uint8)


def make_data(folder: Path, paint: Paint, legend: Legend = LEGEND, *, split: Split = SPLIT, tiles: int = 2) -> TaskData:
    """A cube of tiles side by side with labels over all of it."""
    cube = Cube.create(str(folder / "cube"))
    change = len(paint(0, 0)[0]) == 2
    dates = {"before": "2020-06-15", "after": "2022-06-15"} if change else {}

    def fill(session: Any) -> str:
        root = zarr.open_group(session.store, mode="r+")
        collection = layout.create_collection(root, "scenes", SENSOR, GRID)
        labels = layout.create_labels(root, "truth", GRID, legend, task="change" if change else "landcover", **dates)
        for ix in range(tiles):
            tile = GRID[ix, 0]
            group = layout.create_tile(collection, tile, SENSOR)
            images, codes = paint(ix, 0)
            for year, image in zip((2020, 2022), images, strict=False):
                quality = (image == -1).any(axis=0).astype(np.uint8)
                step = layout.Step(f"s{year}", np.datetime64(f"{year}-06-15"), "", layout.chunk_fractions(quality == 0))
                layout.append_step(group, step, image, quality)
            layout.create_label_tile(labels, tile, codes)
        return "painted"

    cube.transact(fill)
    view = cube.view()
    return TaskData(view.collection("scenes"), view.labels("truth"), split)
