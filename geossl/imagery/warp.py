"""From a scene to its pixels on one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geossl.bands import Sensor
from geossl.grid import Tile
from geossl.imagery.scene import Scene


@dataclass(slots=True)
class TilePixels:
    """One scene's pixels on one tile; the arrays may be reused for the next."""

    image: NDArray[Any]
    """(C, H, W), the sensor's dtype; its no-data where a band has none."""
    quality: NDArray[np.uint8]
    """(H, W), flags of :class:`geossl.imagery.clouds.Quality`."""
    aligned: bool = True
    """Whether every band was copied without resampling."""
    saturated: int = 0
    """How many numbers did not fit the sensor's dtype and were clipped."""


def scene_geobox(scene: Scene) -> GeoBox: ...


def check_scene(scene: Scene, sensor: Sensor) -> None: ...


def read_tile(
    scene: Scene, sensor: Sensor, tile: Tile, *, resampling: str = "bilinear", out: TilePixels | None = None
) -> TilePixels | None: ...
