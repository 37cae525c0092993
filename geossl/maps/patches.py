"""Patches of a class raster (pixels of one class that share sides), a strip of rows at a time.

Each strip is sieved to the minimum mapping unit, with enough of its surroundings to see small
patches whole; its patches are labelled and polygonised; and those that reach the strip's last row
wait for what continues them in the next one. So memory does not grow with the raster, only with
the largest patches.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio.io import DatasetReader
from rasterio.windows import Window
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from geossl.legend import NO_LABEL
from geossl.maps.cog import Extent
from geossl.maps.outlines import outlines
from geossl.maps.tiles import TileRecord
from geossl.progress import Progress, silent

_HALO = 512
"""At most so many rows around a strip take part in sieving it."""

_EPOCH = dt.date(1970, 1, 1)
_STRIP_PIXELS = 1 << 24
"""At most so many pixels are in a strip: bounds memory to some hundred megabytes."""

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Patches:
    """Some patches; every array is (n,)."""

    code: NDArray[np.int64]
    pixels: NDArray[np.int64]
    percent: NDArray[np.float64]
    """Sum of confidence in percent over the pixels."""
    first: NDArray[np.int64]
    """Earliest acquisition, days since 1970."""
    last: NDArray[np.int64]
    parts: list[list[Any]]
    """Polygons in pixel coordinates (column, row) of the raster; together they are the patch."""

    @classmethod
    def none(cls) -> Self:
        no = np.empty(0, np.int64)
        return cls(no, no, np.empty(0), no, no, [])

    def __len__(self) -> int:
        return len(self.parts)

    def __add__(self, other: Patches) -> Patches:
        return Patches(
            np.concatenate([self.code, other.code]),
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.percent, other.percent]),
            np.concatenate([self.first, other.first]),
            np.concatenate([self.last, other.last]),
            self.parts + other.parts,
        )

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Patches:
        return Patches(
            self.code[chosen],
            self.pixels[chosen],
            self.percent[chosen],
            self.first[chosen],
            self.last[chosen],
            [parts for parts, keep in zip(self.parts, chosen, strict=True) if keep],
        )

    def merged(self, group: NDArray[np.int32]) -> Patches:
        """One patch for each group 0 … g−1."""
        n = int(group.max(initial=-1)) + 1
        code, pixels, percent = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
        first, last = np.full(n, _NEVER), np.full(n, -_NEVER)
        code[group] = self.code
        np.add.at(pixels, group, self.pixels)
        np.add.at(percent, group, self.percent)
        np.minimum.at(first, group, self.first)
        np.maximum.at(last, group, self.last)
        parts: list[list[Any]] = [[] for _ in range(n)]
        for number, some in zip(group, self.parts, strict=True):
            parts[number].extend(some)
        return Patches(code, pixels, percent, first, last, parts)

    def polygons(self) -> NDArray[np.object_]:
        """One polygon a patch, in pixel coordinates."""
        # parts meet along the strips' borders point by point, hence what they share can be cancelled out
        return np.array(
            [parts[0] if len(parts) == 1 else shapely.coverage_union_all(parts) for parts in self.parts], dtype=object
        )


def stream_patches(
    classes: Path,
    confidence: Path,
    records: Sequence[TileRecord],
    extent: Extent,
    codes: Sequence[int],
    smallest: int,
    *,
    tolerance: float = 0.0,
    progress: Progress = silent,
) -> Iterator[Patches]:
    """All patches of some classes, strip by strip from the north.

    Parameters
    ----------
    classes, confidence:
        Rasters over ``extent``.
    smallest:
        Patches of fewer pixels first join their largest neighbour; some that have none remain.
    tolerance:
        Of their outlines; see :func:`geossl.maps.outlines.outlines`.
    """
    days = {record.tile: tuple((day - _EPOCH).days for day in record.dates) for record in records}
    strips = _strips(extent)
    waiting, frontier = Patches.none(), np.zeros(len(extent.cols), np.int64)
    with rasterio.open(classes) as class_raster, rasterio.open(confidence) as confidence_raster:
        for done, strip in enumerate(strips):
            progress("polygons", done, len(strips))
            top = strip.start - extent.rows.start
            percent = confidence_raster.read(1, window=Window(0, top, len(extent.cols), len(strip)))
            labels, found = _label(_sieved(class_raster, top, top + len(strip), smallest), percent, codes)
            more = len(strips) - done > 1
            for label, part in zip(
                *outlines(labels, top, tolerance=tolerance, above=done > 0, below=more), strict=True
            ):
                found.parts[label - 1].append(part)
            _date(found, labels, extent, strip.start // extent.grid.tile_size, days)
            both = waiting + found
            # along the strip's first and last row: positions in `both`, plus one; 0 is no patch
            first, last = (np.where(row > 0, row.astype(np.int64) + len(waiting), 0) for row in labels[[0, -1]])
            group = _connect(both.code, frontier, first)
            merged = both.merged(group)
            unfinished = np.zeros(len(merged), np.bool_)
            unfinished[group[last[last > 0] - 1]] = True
            yield merged[~unfinished]
            waiting = merged[unfinished]
            position = np.cumsum(unfinished)
            frontier = np.zeros_like(frontier)
            frontier[last > 0] = position[group[last[last > 0] - 1]]
    yield waiting
    progress("polygons", len(strips), len(strips))


def _strips(extent: Extent) -> list[range]:
    """Global rows of the strips; each lies within one row of tiles."""
    size = extent.grid.tile_size
    height = max(1, min(size, _STRIP_PIXELS // len(extent.cols)))
    starts = {extent.rows.start}
    for top in range(extent.rows.start // size * size, extent.rows.stop, size):
        starts.update(row for row in range(top, top + size, height) if row in extent.rows)
    ordered = [*sorted(starts), extent.rows.stop]
    return [range(*pair) for pair in itertools.pairwise(ordered)]


def _sieved(raster: DatasetReader, top: int, bottom: int, smallest: int) -> NDArray[np.uint8]:
    """Rows of a class raster in which patches under ``smallest`` pixels have joined their largest neighbour."""
    halo = min(smallest, _HALO)
    first, stop = max(0, top - halo), min(raster.height, bottom + halo)
    codes = raster.read(1, window=Window(0, first, raster.width, stop - first))
    known = codes != NO_LABEL
    sieved = features.sieve(codes, min(smallest, codes.size), mask=known)
    return np.where(known, sieved, NO_LABEL)[top - first : bottom - first]


def _label(
    classes: NDArray[np.uint8], percent: NDArray[np.uint8], codes: Sequence[int]
) -> tuple[NDArray[np.int32], Patches]:
    """Label the patches of a strip 1 … n (0: none), and describe them in that order, but for dates and outlines."""
    labels = np.zeros(classes.shape, np.int32)
    of_patch: list[int] = []
    for code in codes:
        of_class, count = ndimage.label(classes == code)
        labels += np.where(of_class > 0, of_class + len(of_patch), 0).astype(np.int32)
        of_patch += [code] * count
    n = len(of_patch)
    flat = labels.ravel()
    return labels, Patches(
        code=np.array(of_patch, np.int64),
        pixels=np.bincount(flat, minlength=n + 1)[1:],
        percent=np.bincount(flat, weights=percent.ravel(), minlength=n + 1)[1:],
        first=np.full(n, _NEVER),
        last=np.full(n, -_NEVER),
        parts=[[] for _ in of_patch],
    )


def _date(found: Patches, labels: NDArray[np.int32], extent: Extent, iy: int, days: dict[str, tuple[int, ...]]) -> None:
    """Fill in when the patches of tile row ``iy`` were seen: the span over the tiles that they touch."""
    size, start = extent.grid.tile_size, extent.cols.start
    for ix in range(start // size, (extent.cols.stop - 1) // size + 1):
        if (span := days.get(extent.grid[ix, iy].id)) is not None:
            here = np.unique(labels[:, max(ix * size - start, 0) : (ix + 1) * size - start])
            here = here[here > 0] - 1
            found.first[here] = np.minimum(found.first[here], span[0])
            found.last[here] = np.maximum(found.last[here], span[1])


def _connect(code: NDArray[np.int64], above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int32]:
    """Which patches are one across a border: group numbers 0 … g−1, given positions plus one on both sides."""
    touching = (above > 0) & (below > 0)
    a, b = above[touching] - 1, below[touching] - 1
    same = code[a] == code[b]
    graph = sparse.coo_array((np.ones(int(same.sum())), (a[same], b[same])), shape=(len(code), len(code)))
    return csgraph.connected_components(graph, directed=False)[1]
