"""What was cleared in one year: ground that no earlier year had cleared, in patches that are large enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from geossl.areas.strata import Ground
from geossl.errors import StoreError
from geossl.files import aside
from geossl.legend import NO_LABEL

STRIP = 512
"""Rows that are looked at at once."""

NEVER_SEEN = 65535
"""In a cumulative mask: no release has looked there."""

_CORNERS = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class YearArea:
    """Hectares on the ground by counted pixels."""

    mapped: float
    """What the map calls cleared."""
    before: float
    """Of it, cleared in an earlier year already."""
    small: float
    """Of the rest, in patches below the minimum area."""
    cleared: float
    """What remains: cleared in this year."""


def clear_year(
    classes: Path,
    codes: Sequence[int],
    year: int,
    earlier: Path | None,
    *,
    cleared: Path,
    mask: Path,
    minimum_ha: float,
) -> YearArea:
    """Write a year's clearings and the cumulative mask of all years so far; memory grows with a map's width only.

    Parameters
    ----------
    classes:
        The year's class raster.
    codes:
        Its codes that mean cleared.
    earlier:
        Cumulative mask of the years before; None: there are none.
    cleared:
        Written: 1 where ground was cleared in this year, else 0, :data:`~geossl.legend.NO_LABEL` where the map has
        no class.
    mask:
        Written: the year in which ground was first cleared, else 0, :data:`NEVER_SEEN` where no map looked.

    Raises
    ------
    StoreError
        The earlier mask lies on another grid than the map.
    """
    with TemporaryDirectory(dir=cleared.parent, prefix=f".{cleared.stem}-") as work, rasterio.open(classes) as seen:
        extent = _Extent.of(seen) if earlier is None else _Extent.of(seen) | _of_mask(earlier, seen)
        fresh, whole = Path(work) / "fresh.tif", Path(work) / "cleared.tif"
        totals = np.zeros(4)
        with rasterio.open(fresh, "w", **extent.profile(seen, "uint8", NO_LABEL)) as raster:
            ground = Ground(raster)
            for window in _strips(raster):
                found = extent.read(seen, window, NO_LABEL)
                known, is_cleared = found != NO_LABEL, np.isin(found, codes)
                before = np.zeros(found.shape, bool)
                if earlier is not None:
                    with rasterio.open(earlier) as old:
                        before = np.isin(extent.read(old, window, NEVER_SEEN), (0, NEVER_SEEN), invert=True)
                raster.write(np.where(known, is_cleared & ~before, NO_LABEL).astype(np.uint8), 1, window=window)
                hectare = ground.pixel(window) / 1e4
                totals[0] += is_cleared.sum() * hectare
                totals[1] += (is_cleared & before).sum() * hectare
        with (
            rasterio.open(fresh) as raster,
            rasterio.open(whole, "w", **extent.profile(seen, "uint8", NO_LABEL)) as out,
        ):
            small = _keep_large(raster, out, minimum_ha)
            out.write_colormap(1, {0: (217, 217, 217, 255), 1: (215, 25, 28, 255), NO_LABEL: (0, 0, 0, 0)})
        totals[2], totals[3] = small, totals[0] - totals[1] - small
        years = Path(work) / "mask.tif"
        with (
            rasterio.open(whole) as raster,
            rasterio.open(years, "w", **extent.profile(seen, "uint16", NEVER_SEEN)) as out,
        ):
            for window in _strips(raster):
                now = raster.read(1, window=window)
                first = np.where(now == 1, year, np.where(now == NO_LABEL, NEVER_SEEN, 0)).astype(np.uint16)
                if earlier is not None:
                    with rasterio.open(earlier) as old:
                        then = extent.read(old, window, NEVER_SEEN)
                    first = np.where((then != NEVER_SEEN) & ((then != 0) | (first == NEVER_SEEN)), then, first)
                out.write(first, 1, window=window)
        for source, target in ((whole, cleared), (years, mask)):
            with aside(target) as partial:
                rasterio.shutil.copy(source, partial, driver="COG", compress="deflate", overview_resampling="nearest")
    return YearArea(*(float(value) for value in totals))


def _keep_large(raster: DatasetReader, out: DatasetWriter, minimum_ha: float) -> float:
    """Copy a raster of 1 and 0 without its patches of ones below an area; returns their hectares.

    Strips are labelled one by one; patches that touch across a border, corners included, are one.
    """
    ground = Ground(raster)
    areas: list[NDArray[np.float64]] = []
    pairs: list[NDArray[np.int64]] = []
    count, above = 0, None
    for window in _strips(raster):
        labels, n = _labels(raster, window)
        pixels = np.bincount(labels.ravel(), minlength=n + 1)[1:].astype(np.float64)
        areas.append(pixels * (ground.pixel(window) / 1e4))
        if above is not None:
            pairs.append(_touching(above, np.where(labels[0] > 0, labels[0] + count, 0)))
        above = np.where(labels[-1] > 0, labels[-1] + count, 0)
        count += n
    area = np.concatenate(areas)
    joined = np.concatenate(pairs, axis=1) - 1 if pairs else np.zeros((2, 0), np.int64)
    graph = sparse.coo_array((np.ones(joined.shape[1]), (joined[0], joined[1])), shape=(count, count))
    _, patch = csgraph.connected_components(graph, directed=False)
    of_patch = np.bincount(patch, weights=area)[patch] if count else area
    # a hair, so that a patch of just that many pixels counts whatever the projection rounds
    large = np.concatenate([[False], of_patch >= minimum_ha * (1 - 1e-3)])
    first = 0
    for window in _strips(raster):
        labels, n = _labels(raster, window)
        values = raster.read(1, window=window)
        keep = large[np.where(labels > 0, labels + first, 0)]
        out.write(np.where(values == 1, keep, values).astype(np.uint8), 1, window=window)
        first += n
    return float(area[~large[1:]].sum())


def _labels(raster: DatasetReader, window: Window) -> tuple[NDArray[np.int64], int]:
    labels, n = ndimage.label(raster.read(1, window=window) == 1, _CORNERS)
    return labels.astype(np.int64), int(n)


def _touching(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """(2, n) labels of two neighbouring rows that share a side or a corner."""
    found = []
    for shift in (-1, 0, 1):
        a = above[max(0, -shift) : len(above) - max(0, shift)]
        b = below[max(0, shift) : len(below) - max(0, -shift)]
        both = (a > 0) & (b > 0)
        found.append(np.stack([a[both], b[both]]))
    return np.unique(np.concatenate(found, axis=1), axis=1)


@dataclass(frozen=True, slots=True)
class _Extent:
    """A rectangle on a lattice of pixels; rows and columns count from the lattice's origin."""

    crs: str
    size: float
    origin: tuple[float, float]
    """Where on a pixel's side the lattice begins: x and y modulo the size."""
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, raster: DatasetReader) -> _Extent:
        size, x, y = raster.transform.a, raster.transform.c, raster.transform.f
        left, top = round(x / size - 1e-6), round(-y / size - 1e-6)
        origin = round(x - left * size, 6), round(y + top * size, 6)
        return cls(str(raster.crs), size, origin, top, left, top + raster.height, left + raster.width)

    def __or__(self, other: _Extent) -> _Extent:
        ends = (
            (min(self.top, other.top), min(self.left, other.left)),
            (
                max(self.bottom, other.bottom),
                max(self.right, other.right),
            ),
        )
        return _Extent(self.crs, self.size, self.origin, *ends[0], *ends[1])

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def profile(self, like: DatasetReader, dtype: str, nodata: int) -> dict[str, Any]:
        x, y = self.origin[0] + self.left * self.size, self.origin[1] - self.top * self.size
        return {
            "driver": "GTiff",
            "dtype": dtype,
            "count": 1,
            "height": self.shape[0],
            "width": self.shape[1],
            "crs": like.crs,
            "transform": Affine(self.size, 0, x, 0, -self.size, y),
            "nodata": nodata,
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
            "compress": "deflate",
            "zlevel": 1,
            "bigtiff": "if_safer",
        }

    def read(self, raster: DatasetReader, window: Window, fill: int) -> NDArray[Any]:
        """What a raster on the same lattice holds in a window of this extent; ``fill`` beyond its edges."""
        its = _Extent.of(raster)
        row, col = window.row_off + self.top - its.top, window.col_off + self.left - its.left
        out = np.full((window.height, window.width), fill, raster.dtypes[0])
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + window.height, raster.height), min(col + window.width, raster.width)
        if top < bottom and left < right:
            part = raster.read(1, window=Window(left, top, right - left, bottom - top))
            out[top - row : bottom - row, left - col : right - col] = part
        return out


def _of_mask(earlier: Path, seen: DatasetReader) -> _Extent:
    with rasterio.open(earlier) as old:
        ours, theirs = _Extent.of(seen), _Extent.of(old)
    if (ours.crs, ours.size) != (theirs.crs, theirs.size) or not np.allclose(
        ours.origin, theirs.origin, atol=ours.size / 1000
    ):
        raise StoreError(
            f"the map {seen.name} lies on another grid than the mask of earlier releases {earlier}",
            "release maps of one grid only",
        )
    return theirs


def _strips(raster: DatasetReader | DatasetWriter) -> Iterator[Window]:
    for row in range(0, raster.height, STRIP):
        yield Window(0, row, raster.width, min(STRIP, raster.height - row))
