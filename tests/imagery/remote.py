"""What tests of files on other machines share: numbers, a tile, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geossl.bands import Sensor
from geossl.grid import Grid
from geossl.imagery.scene import Scene
from geossl.imagery.warp import read_tile

NUMBERS = np.random.default_rng(5).integers(1, 9_999, (2, 300, 280)).astype(np.int16)
GRID = Grid("EPSG:32622", 10, 256)
TILE = GRID[0, 7]


def local_pixels(path: Path) -> Any:
    with rasterio.open(path) as dataset:
        return dataset.read(1)[:256, :256]


def pixels(scene: Scene, sensor: Sensor) -> Any:
    read = read_tile(scene, sensor, TILE)
    assert read is not None
    return read.image[:, :, :256]
