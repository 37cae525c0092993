"""An area in one small picture: tiles thinned out and put side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.grid import Tile
from geossl.imagery.clouds import Quality


@dataclass(frozen=True)
class Overview:
    """Stored numbers of an area at one date, every so-many-th pixel, cropped to where there is data."""

    image: NDArray[Any]
    """(C, H, W) stored numbers; no-data outside the tiles."""
    quality: NDArray[np.uint8]
    """(H, W) quality flags."""
    origin: tuple[int, int]
    """(row, column) of the first pixel in the grid's pixel lattice."""
    every: int
    """Grid pixels per overview pixel."""


@dataclass(frozen=True, slots=True)
class Thin:
    """Every so-many-th pixel of one tile."""

    image: NDArray[Any]
    """(C, h, w)"""
    quality: NDArray[np.uint8]
    """(h, w)"""


def thinning(tiles: Collection[Tile], side: int) -> int:
    """Every how-many-th pixel makes the tiles together about ``side`` pixels wide or high.

    A divisor of the tile size, so that tiles meet without a seam.
    """
    size = next(iter(tiles)).grid.tile_size
    spans = [max(index) - min(index) + 1 for index in zip(*((tile.ix, tile.iy) for tile in tiles), strict=True)]
    least = min(max(1, max(spans) * size // side), size)
    return next(every for every in range(least, size + 1) if size % every == 0)


def assemble(parts: Mapping[Tile, Thin], sensor: Sensor, every: int) -> Overview:
    """Put thinned-out tiles of one grid in their places."""
    iy0, ix0 = min(tile.iy for tile in parts), min(tile.ix for tile in parts)
    rows, columns = max(tile.iy for tile in parts) - iy0 + 1, max(tile.ix for tile in parts) - ix0 + 1
    first, thin = next(iter(parts.items()))
    size = first.grid.tile_size
    small = size // every
    image = np.full(
        (len(thin.image), rows * small, columns * small), sensor.radiometry.nodata or 0, sensor.radiometry.dtype
    )
    quality = np.full(image.shape[1:], Quality.NODATA, np.uint8)
    for tile, part in parts.items():
        y, x = (tile.iy - iy0) * small, (tile.ix - ix0) * small
        here = slice(y, y + small), slice(x, x + small)
        image[:, *here], quality[here] = part.image, part.quality
    seen = (quality & Quality.NODATA) == 0
    origin = iy0 * size, ix0 * size
    if not seen.any():
        return Overview(image, quality, origin, every)
    r, c = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    crop = slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1)
    return Overview(
        image[:, *crop], quality[crop], (origin[0] + int(r[0]) * every, origin[1] + int(c[0]) * every), every
    )
