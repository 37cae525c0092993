"""The imagery of the benchmarks: a seeded 13-band landscape, as an array and as a cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geossl.bands import sensor
from geossl.cube import layout
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.grid import Grid, Tile

SENSOR = sensor("sentinel-2-l1c")
GRID = Grid("EPSG:32622", 10, 1024)
TILES = 2
"""Tiles each way."""


def landscape(side: int, seed: int = 0) -> NDArray[np.int16]:
    """(13, side, side) smooth ground, bands that resemble one another, and noise as sensors have it."""
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(rng.standard_normal((side, side), np.float32), 6, truncate=2) * 6000 + 2000
    image = np.empty((len(SENSOR.bands), side, side), np.int16)
    for number, band in enumerate(image):
        noisy = ground * (1 + 0.05 * number) + 60 * rng.standard_normal((side, side), np.float32)
        band[:] = noisy.clip(1, 10000)
    return image


def tile(x: int, y: int) -> Tile:
    """One of the tiles, numbered eastwards and southwards from the north-west."""
    return GRID[48 + x, -900 + y]


def write_cube(folder: Path, image: NDArray[np.int16]) -> Collection:
    """A cube with one clear scene of :data:`TILES` × :data:`TILES` tiles."""
    cube = Cube.create(str(folder / "cube"))
    size = GRID.tile_size
    quality = np.zeros((size, size), np.uint8)
    step = layout.Step("scene", np.datetime64("2024-06-01"), "0", layout.chunk_fractions(quality == 0))

    def fill(session: Any) -> str:
        collection = layout.create_collection(zarr.open_group(session.store, mode="r+"), SENSOR.name, SENSOR, GRID)
        for y in range(TILES):
            for x in range(TILES):
                group = layout.create_tile(collection, tile(x, y), SENSOR)
                window = image[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
                layout.append_step(group, step, window, quality)
        return "benchmark"

    cube.transact(fill)
    return cube.view().collection(SENSOR.name)
