"""A whole area in one small picture: tiles thinned out and put side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.cube.collection import Collection
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


def overview(collection: Collection, steps: Mapping[str, int], *, side: int = 640) -> Overview:
    """Thin out one step of each tile so that the whole is about ``side`` pixels wide or high.

    Parameters
    ----------
    steps:
        Tile id → position along that tile's time axis.
    """
    tiles = [collection.tile(tile_id) for tile_id in steps]
    size = collection.grid.tile_size
    iy0, ix0 = min(t.iy for t in tiles), min(t.ix for t in tiles)
    rows, cols = max(t.iy for t in tiles) - iy0 + 1, max(t.ix for t in tiles) - ix0 + 1
    # a divisor of the tile size, so that tiles meet without a seam
    every = next(n for n in range(max(1, max(rows, cols) * size // side), size + 1) if size % n == 0)
    small = size // every
    radiometry = collection.sensor.radiometry
    image = np.full(
        (len(collection.sensor.bands), rows * small, cols * small), radiometry.nodata or 0, radiometry.dtype
    )
    quality = np.full(image.shape[1:], Quality.NODATA, np.uint8)
    for tile in tiles:
        y, x = (tile.iy - iy0) * small, (tile.ix - ix0) * small
        here = slice(y, y + small), slice(x, x + small)
        image[:, *here] = np.asarray(collection.image(tile.id)[steps[tile.id]])[:, ::every, ::every]
        quality[here] = np.asarray(collection.quality(tile.id)[steps[tile.id]])[::every, ::every]
    seen = (quality & Quality.NODATA) == 0
    origin = iy0 * size, ix0 * size
    if not seen.any():
        return Overview(image, quality, origin, every)
    r, c = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    crop = slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1)
    return Overview(
        image[:, *crop], quality[crop], (origin[0] + int(r[0]) * every, origin[1] + int(c[0]) * every), every
    )


def scene_steps(collection: Collection) -> dict[str, dict[str, int]]:
    """Scene id → tile id → step, scenes in order of time."""
    times: dict[str, Any] = {}
    found: dict[str, dict[str, int]] = {}
    for tile_id in collection.tile_ids:
        for step, (scene, time) in enumerate(
            zip(collection.scene_ids(tile_id), collection.times(tile_id), strict=True)
        ):
            found.setdefault(scene, {})[tile_id] = step
            times.setdefault(scene, time)
    return {scene: found[scene] for scene in sorted(found, key=lambda scene: (times[scene], scene))}
