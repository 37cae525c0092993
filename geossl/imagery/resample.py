"""Pixels of open files on one tile: copied where they lie on the grid, else warped once by GDAL.

How GDAL warps depends on more than the two rasters: it guesses the size of its kernel from the windows at
hand, which blurs whatever is turned against the grid and makes the same ground differ from tile to tile,
and it is three times slower while it minds no-data that is not there. So the kernel's size is said here,
and no-data is looked for first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window, intersect

from geossl.errors import SceneError
from geossl.grid import Tile
from geossl.imagery.gcps import ORDER, by_points

TOLERANCE = 0.001
"""How far, in pixels of the source, a place may be from where it is exactly. By default GDAL takes an eighth of a
pixel, which is some per cent of a number at edges; a thousandth costs hardly more, none at all three times as much."""

_RADIUS = {Resampling.cubic: 2}
"""Pixels that a kernel reaches to each side; 1 for all others."""

_STEPS = 16
"""A tile's place in a raster is worked out at so many steps along each side."""

_MAX_WINDOW = 2**24
"""Pixels of a band that are read into memory for one tile; beyond, GDAL warps from the file, part by part."""


@dataclass(frozen=True, slots=True)
class OpenBand:
    """One band of one open file."""

    what: str
    """"scene …, band …", for messages."""
    dataset: DatasetReader
    index: int
    dtype: np.dtype[Any]
    box: GeoBox
    """Where its pixels are; roughly, where ground control points say it."""
    nodata: float | None
    """The file's number for no-data; None: every pixel was measured. NaN and ±∞ never are."""


@dataclass(slots=True)
class Scratch:
    """Memory that is used again and again: fresh megabytes cost about as much as reading them."""

    _buffers: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of any content, valid until the same name is taken again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].view(dtype).reshape(shape)


def lost_in(values: NDArray[Any], nodata: float | None, out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where numbers of a file (any shape) are no measurements, into ``out``."""
    if values.dtype.kind == "f":
        np.logical_not(np.isfinite(values, out=out), out=out)
        if nodata is not None and not math.isnan(nodata):
            out |= values == np.asarray(nodata).astype(values.dtype)
    elif nodata is None:
        out[:] = False
    else:
        np.equal(values, np.asarray(nodata).astype(values.dtype), out=out)
    return out


def source_window(band: OpenBand, tile: Tile, resampling: Resampling) -> Window | None:
    """The pixels of a raster that a tile is made from; None: none, or they are not read at once."""
    if not tile.grid.is_aligned(band.box):
        return _place(band, tile, resampling).window
    x, y = ~band.box.affine @ (tile.bounds.left, tile.bounds.top)
    here, there = Window(round(x), round(y), *tile.shape[::-1]), Window(0, 0, *band.box.shape[::-1])
    return here.intersection(there) if intersect(here, there) else None


def copy(bands: Sequence[OpenBand], tile: Tile, values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Bands of one raster on the tile's grid: the part of them that lies on the tile.

    Parameters
    ----------
    values:
        (n, H, W); holds no-data (0 without one) outside of the raster.

    Returns
    -------
    (H, W), where the tile lies outside of the raster; None: nowhere.
    """
    box = bands[0].box
    x, y = ~box.affine @ (tile.bounds.left, tile.bounds.top)
    column, row = round(x), round(y)
    rows = slice(max(0, -row), min(tile.shape[0], box.shape[0] - row))
    columns = slice(max(0, -column), min(tile.shape[1], box.shape[1] - column))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        rows = columns = slice(0, 0)
    partly = (rows.stop - rows.start, columns.stop - columns.start) != tile.shape
    if partly:
        values[:] = bands[0].nodata or 0
    if rows.stop:
        window = Window(column + columns.start, row + rows.start, columns.stop - columns.start, rows.stop - rows.start)
        _decode(bands, window, values[:, rows, columns])
    if not partly:
        return None
    outside = np.ones(tile.shape, bool)
    outside[rows, columns] = False
    return outside


def warp(
    bands: Sequence[OpenBand],
    tile: Tile,
    resampling: Resampling,
    values: NDArray[Any],
    scratch: Scratch,
    *,
    decibel: bool = False,
) -> NDArray[np.bool_] | None:
    """Bands of equal place, dtype and no-data, resampled onto the tile.

    Parameters
    ----------
    values:
        (n, H, W), of the files' dtype; holds no-data (NaN in floating point, 0 without one) where there is
        no source.
    decibel:
        The files hold dB: linear power is what is resampled, and what ``values`` then hold.

    Returns
    -------
    (H, W), where the tile lies outside of the raster; None: nowhere, or known by no-data.
    """
    first = bands[0]
    place = _place(first, tile, resampling)
    if place.window is None:
        if decibel:
            raise SceneError(
                f"{first.what}: {first.dataset.name} holds dB and lies too oddly on the grid to be resampled",
                "convert it to linear power first",
            )
        if not _touches(first, tile):
            values[:] = first.nodata or 0
            return np.ones(tile.shape, bool)
        for band, target in zip(bands, values, strict=True):
            _reproject(rasterio.band(band.dataset, band.index), target, tile, resampling, band.nodata, place.options)
        return _outside(first, tile) if first.nodata is None else None
    if not (place.window.width > 0 and place.window.height > 0):
        values[:] = first.nodata or 0
        return np.ones(tile.shape, bool)
    shape = int(place.window.height), int(place.window.width)
    source = scratch.take("source", (len(bands), *shape), first.dtype)
    _decode(bands, place.window, source)
    floating = first.dtype.kind == "f"
    nodata = math.nan if floating else first.nodata
    lost = scratch.take("lost in source", shape, bool)
    complete, empty = True, True
    for band in source:
        if lost_in(band, first.nodata, lost).any():
            complete = False
            if floating:
                band[lost] = math.nan
        empty &= bool(lost.all())
        if decibel:
            with np.errstate(over="ignore"):  # what is no decibel becomes infinite, which is no measurement
                np.power(10, np.divide(band, 10, out=band), out=band)
    if empty and nodata is not None:
        values[:] = nodata
        return None
    options = place.options | {
        "src_transform": first.dataset.window_transform(place.window),
        "src_crs": first.dataset.crs,
    }
    risky = complete and _may_become(source, nodata, resampling)
    if quick := complete and (place.inside or not risky):
        _reproject(source, values, tile, resampling, None, options | {"INIT_DEST": nodata or 0})
        quick = not (risky and (values == nodata).any())
    if not quick:
        for band, target in zip(source, values, strict=True):
            _reproject(band, target, tile, resampling, nodata, options)
    return _outside(first, tile) if first.nodata is None and not place.inside else None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tile lies in a raster."""

    window: Window | None
    """The pixels that the tile is made from; None: cannot be told, or too many."""
    inside: bool
    """Whether all that the kernel reaches lies within the raster."""
    options: dict[str, Any]
    """For GDAL: how large its kernel is."""


def _place(band: OpenBand, tile: Tile, resampling: Resampling) -> _Place:
    box = band.box
    steps = np.linspace(0, tile.shape[0], _STEPS + 1)
    x, y = _apply(tile.transform, *np.meshgrid(steps, steps))
    here = CRS(tile.grid.crs)
    assert box.crs is not None  # geobox() has seen to it
    if box.crs != here:
        x, y = here.transformer_to_crs(box.crs)(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or _breaks(box, x):
        return _Place(None, False, {})
    column, row = _apply(~box.affine, x, y)
    # pixels of the raster for one of the tile, along the raster's columns and rows
    middle, pixel = _STEPS // 2, tile.shape[0] / _STEPS * 2
    spans = [
        math.hypot(at[middle, middle + 1] - at[middle, middle - 1], at[middle + 1, middle] - at[middle - 1, middle])
        / pixel
        for at in (column, row)
    ]
    options = {"XSCALE": 1 / max(1.0, spans[0]), "YSCALE": 1 / max(1.0, spans[1])}
    if by_points(band.dataset):
        return _Place(None, False, options | {"MAX_GCP_ORDER": ORDER})
    bounds = []
    for at, span in ((column, spans[0]), (row, spans[1])):
        reach = 3 + math.ceil(_RADIUS.get(resampling, 1) * max(1.0, span))
        bounds.append((math.floor(at.min()) - reach, math.ceil(at.max()) + reach))
    (left, right), (top, bottom) = bounds
    height, width = box.shape
    inside = left >= 0 and top >= 0 and right <= width and bottom <= height
    left, top = max(left, 0), max(top, 0)
    columns, rows = max(0, min(right, width) - left), max(0, min(bottom, height) - top)
    return _Place(Window(left, top, columns, rows) if columns * rows <= _MAX_WINDOW else None, inside, options)


def _apply(
    affine: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _breaks(box: GeoBox, longitude: NDArray[np.float64]) -> bool:
    """Whether longitudes jump by 360° on the way, or are counted beyond 180° in the raster."""
    if box.crs is None or not box.crs.geographic:
        return False
    there = box.boundingbox
    return bool(np.ptp(longitude) > 180 or there.left < -180 or there.right > 180)


def _touches(band: OpenBand, tile: Tile) -> bool:
    """Whether tile and raster may have a pixel in common; True in doubt."""
    left, bottom, right, top = transform_bounds(tile.grid.crs, str(band.box.crs), *tile.bounds)
    if left > right:  # the tile crosses the antimeridian of a geographic raster
        return True
    there = band.box.boundingbox
    turns = (-360, 0, 360) if band.box.crs is not None and band.box.crs.geographic else (0,)
    beside = any(left + turn < there.right and right + turn > there.left for turn in turns)
    return bool(beside and bottom < there.top and top > there.bottom)


def _may_become(source: NDArray[Any], nodata: float | None, resampling: Resampling) -> bool:
    """Whether measurements, when they are mixed, may give the number for no-data."""
    if nodata is None or math.isnan(nodata):
        return False
    if resampling == Resampling.cubic:  # which overshoots
        return True
    return bool(source.min() <= nodata <= source.max())


def _decode(bands: Sequence[OpenBand], window: Window, out: NDArray[Any]) -> None:
    """Read the same window of several bands; those of one file at once, since one block may hold them all."""
    at = 0
    for dataset, several in itertools.groupby(bands, key=lambda band: band.dataset):
        indexes = [band.index for band in several]
        dataset.read(indexes, window=window, out=out[at : at + len(indexes)])
        at += len(indexes)


def _reproject(
    source: Any, values: NDArray[Any], tile: Tile, resampling: Resampling, nodata: float | None, options: dict[str, Any]
) -> None:
    """As rasterio does it. With no-data, band by band: GDAL would else take a pixel for no-data only where *all*
    bands have none, and blend one band's number for it into its neighbours."""
    reproject(
        source,
        values,
        src_nodata=nodata,
        dst_nodata=nodata,
        dst_transform=tile.transform,
        dst_crs=tile.grid.crs,
        resampling=resampling,
        tolerance=TOLERANCE,
        # a tile is warped at one go: to GDAL's pieces of 64 MB its approximations are not the same
        warp_mem_limit=1024,
        init_dest_nodata="INIT_DEST" not in options,
        **options,
    )


def _outside(band: OpenBand, tile: Tile) -> NDArray[np.bool_]:
    """(H, W), where a pixel's centre lies outside of the raster: one pixel as large as the raster, warped."""
    inside = np.zeros(tile.shape, np.uint8)
    rows, columns = band.dataset.shape
    points, crs = band.dataset.gcps
    place: dict[str, Any]
    if by_points(band.dataset):
        whole = [GroundControlPoint(p.row / rows, p.col / columns, p.x, p.y) for p in points]
        place = {"src_crs": crs, "gcps": whole, "MAX_GCP_ORDER": ORDER}
    else:
        place = {
            "src_crs": band.dataset.crs,
            "src_transform": band.dataset.transform @ Affine.scale(columns, rows),
        }
    reproject(
        np.ones((1, 1), np.uint8),
        inside,
        dst_transform=tile.transform,
        dst_crs=tile.grid.crs,
        tolerance=0,  # which GDAL measures in pixels of the source
        **place,
    )
    outside: NDArray[np.bool_] = inside != 1
    return outside
