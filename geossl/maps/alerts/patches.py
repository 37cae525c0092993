"""Patches of alerts: neighbouring pixels whose alerts are not far apart in time.

A patch is named by its seed, the earliest of its pixels (of equals the northernmost, then westernmost). So
the name follows from the alerts alone, and stays while the patch grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import features
from scipy import sparse
from scipy.sparse import csgraph

from geossl.grid import Grid
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NEVER
from geossl.maps.alerts.tiles import BANDS, REVIEWED, AlertTiles

APART = 180
"""Neighbours whose first days are further apart belong to two patches: next year's clearing is another."""


@dataclass(frozen=True)
class AlertPixels:
    """All pixels with an alert; every array is (N,)."""

    row: NDArray[np.int64]
    """In the grid's global pixels."""
    col: NDArray[np.int64]
    bands: dict[str, NDArray[np.int16]]
    """By :data:`~geossl.maps.alerts.tiles.BANDS`."""
    patch: NDArray[np.int64]
    """Which patch they belong to, 0 … P−1 in order of their seeds' days."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> AlertPixels:
        """Some pixels; patches are numbered anew."""
        bands = {name: values[chosen] for name, values in self.bands.items()}
        patch = np.unique(self.patch[chosen], return_inverse=True)[1].astype(np.int64)
        return AlertPixels(self.row[chosen], self.col[chosen], bands, patch)


def find_patches(store: AlertTiles, grid: Grid, tiles: Sequence[str]) -> AlertPixels:
    """The alerts of all tiles. What is kept in memory grows with the alerts, not with the area."""
    rows, cols = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    bands: dict[str, list[NDArray[np.int16]]] = {name: [np.empty(0, np.int16)] for name in BANDS}
    for tile_id in tiles:
        values = store.read(tile_id)
        row, col = np.nonzero(np.isin(values["status"], (DETECTED, CONFIRMED, REVIEWED)))
        top, left = grid.tile(tile_id).pixel_origin
        rows.append(row + top)
        cols.append(col + left)
        for name in BANDS:
            bands[name].append(values[name][row, col])
    row, col = np.concatenate(rows), np.concatenate(cols)
    found = {name: np.concatenate(parts) for name, parts in bands.items()}
    return AlertPixels(row, col, found, group(row, col, found["first"]))


def group(row: NDArray[np.int64], col: NDArray[np.int64], first: NDArray[np.int16]) -> NDArray[np.int64]:
    """Which pixels are one patch: (N,) numbers 0 … P−1, in order of the seeds.

    Pixels that share a side, and whose days are at most :data:`APART` apart, are of one patch.
    """
    if not len(row):
        return np.empty(0, np.int64)
    # one column more than there are, so that the end of a row does not touch the next row's beginning
    width = int(np.ptp(col)) + 2
    place = (row - row.min()) * width + (col - col.min())
    order = np.argsort(place)
    ordered = place[order]
    pairs = []
    for step in (1, width):
        at = np.searchsorted(ordered, ordered + step).clip(max=len(ordered) - 1)
        touching = ordered[at] == ordered + step
        a, b = order[touching], order[at[touching]]
        near = np.abs(first[a].astype(np.int32) - first[b]) <= APART
        pairs.append((a[near], b[near]))
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(row), len(row)))
    labels = csgraph.connected_components(graph, directed=False)[1]
    by_seed = np.lexsort((col, row, first))
    _, seeds = np.unique(labels[by_seed], return_index=True)
    rank = np.empty(len(seeds), np.int64)
    rank[np.argsort(seeds)] = np.arange(len(seeds))
    return rank[labels]


@dataclass(frozen=True)
class AlertPatches:
    """What is told of each patch; every array is (P,)."""

    id: list[str]
    status: NDArray[np.uint8]
    """What at least half of its pixels are, the highest such status."""
    pixels: NDArray[np.int64]
    percent: NDArray[np.float64]
    """Mean probability of clearing."""
    first: NDArray[np.int16]
    """The earliest first day of its pixels."""
    last: NDArray[np.int16]
    """The latest."""
    standing: NDArray[np.int16]
    """When forest was last seen at its seed, NEVER where no look did."""
    confirmed: NDArray[np.int16]
    """The earliest confirmation of its pixels; NEVER while its status is not confirmed."""

    @classmethod
    def of(cls, pixels: AlertPixels, grid: Grid) -> AlertPatches:
        patch, bands = pixels.patch, pixels.bands
        n = int(patch.max(initial=-1)) + 1
        size = np.bincount(patch, minlength=n)
        half = [
            np.bincount(patch, bands["status"] >= level, minlength=n) * 2 >= size for level in (CONFIRMED, REVIEWED)
        ]
        seed = _firsts(patch, np.lexsort((pixels.col, pixels.row, bands["first"])), n)
        known = bands["confirmed"] != NEVER
        confirmed = _least(patch[known], bands["confirmed"][known], n)
        return cls(
            [_name(grid, int(pixels.row[at]), int(pixels.col[at])) for at in seed],
            np.where(half[1], REVIEWED, np.where(half[0], CONFIRMED, DETECTED)).astype(np.uint8),
            size,
            np.bincount(patch, bands["percent"], minlength=n) / np.maximum(size, 1),
            bands["first"][seed],
            -_least(patch, -bands["first"], n),
            bands["standing"][seed],
            np.where(half[0] | half[1], confirmed, np.int16(NEVER)),
        )

    def __len__(self) -> int:
        return len(self.id)


def _firsts(patch: NDArray[np.int64], order: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """(P,) position of each patch's first pixel in an order."""
    found, at = np.unique(patch[order], return_index=True)
    assert len(found) == n
    return order[at]


def _least(patch: NDArray[np.int64], days: NDArray[np.int16], n: int) -> NDArray[np.int16]:
    """(P,) the least day of each patch; NEVER where it has none."""
    least = np.full(n, np.iinfo(np.int16).max, np.int16)
    np.minimum.at(least, patch, days)
    return np.where(np.bincount(patch, minlength=n) > 0, least, np.int16(NEVER))


def _name(grid: Grid, row: int, col: int) -> str:
    """The id of a patch with that seed, such as ``x3y-2-0512-0040``: its tile, row and column."""
    size = grid.tile_size
    return f"{grid[col // size, row // size].id}-{row % size:04d}-{col % size:04d}"


def outlines(pixels: AlertPixels, grid: Grid) -> NDArray[np.object_]:
    """(P,) the polygon of each patch in the grid's coordinates, tile by tile and joined without gaps."""
    n = int(pixels.patch.max(initial=-1)) + 1
    parts: list[list[Any]] = [[] for _ in range(n)]
    size = grid.tile_size
    tile = np.stack([pixels.row // size, pixels.col // size])
    for iy, ix in np.unique(tile, axis=1).T.tolist():
        here = np.flatnonzero((tile[0] == iy) & (tile[1] == ix))
        labels = np.zeros((size, size), np.int32)
        labels[pixels.row[here] - iy * size, pixels.col[here] - ix * size] = pixels.patch[here] + 1
        # in global pixels, so that parts of neighbouring tiles meet exactly
        for shape, label in features.shapes(
            labels, mask=labels > 0, transform=Affine.translation(ix * size, iy * size)
        ):
            outer, *holes = (np.array(ring) for ring in shape["coordinates"])
            parts[int(label) - 1].append(shapely.Polygon(outer, holes))
    whole = [some[0] if len(some) == 1 else shapely.simplify(shapely.union_all(some), 0) for some in parts]
    scale, (x, y) = grid.resolution, grid.origin
    return shapely.transform(np.array(whole, dtype=object), lambda at: at * (scale, -scale) + (x, y))
