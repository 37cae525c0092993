"""From a scene to its pixels on one tile.

A band that lies on the tile's grid is copied, window by window, and keeps its numbers exactly; any
other is resampled onto it by GDAL, straight from the file, so that only what the tile needs is read.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.grid import Tile
from geossl.imagery.clouds import FILL, FLAGS, Quality
from geossl.imagery.radiometry import check_numbers, source_nodata, to_stored
from geossl.imagery.raster import footprint, geobox, open_raster, reading
from geossl.imagery.scene import Scene

RESAMPLING = ("nearest", "bilinear", "cubic", "average")
"""Ways to resample a band that is not on the grid."""


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


def scene_geobox(scene: Scene) -> GeoBox:
    """CRS, transform and shape of the scene's finest band.

    Raises
    ------
    SceneError
        A band cannot be opened or does not say where it is.
    """
    boxes = []
    for name, asset in scene.bands.items():
        what = f"scene {scene.id}, band {name}"
        with open_raster(asset.href, what) as dataset:
            boxes.append(geobox(dataset, what))
    return min(boxes, key=lambda box: abs(box.affine.determinant))


def check_scene(scene: Scene, sensor: Sensor) -> None:
    """Open every file's header and see whether the scene can be read correctly.

    Raises
    ------
    SceneError
        Names the file, the band and the reason: a band or file is missing or is no raster, its end is
        missing, it does not say where it is, its numbers do not suit the sensor, or it disagrees with
        the scene's first band on where it is.
    """
    first: _Band | None = None
    with _Files() as files:
        for name in (*sensor.band_names, *scene.masks):
            band = _open_band(files, scene, sensor, name)
            _check_complete(band)
            if first is None:
                first = band
                footprint(band.box, band.what)
            _check_same_place(band, first)


def read_tile(
    scene: Scene, sensor: Sensor, tile: Tile, *, resampling: str = "bilinear", out: TilePixels | None = None
) -> TilePixels | None:
    """The scene's pixels on one tile.

    A pixel is flagged NODATA where *any* band has none; the other bands keep their numbers there.

    Parameters
    ----------
    resampling:
        One of :data:`RESAMPLING`, for bands that are not on the tile's grid. Masks are always nearest.
    out:
        Pixels of an earlier tile of the same sensor and size, to be overwritten and returned.

    Returns
    -------
    The pixels, or None where the scene has nothing but no-data on this tile.

    Raises
    ------
    SceneError
        A file is missing or damaged, or its numbers do not suit the sensor; names the file and the band.
    """
    if resampling not in RESAMPLING:
        raise SettingsError(f"resampling {resampling!r} is not known", f"choose one of {', '.join(RESAMPLING)}")
    if out is None:
        image = np.empty((len(sensor.bands), *tile.shape), sensor.radiometry.dtype)
        out = TilePixels(image, np.empty(tile.shape, np.uint8))
    out.quality[:] = 0
    out.aligned, out.saturated = True, 0
    with _Files() as files:
        for target, name in zip(out.image, sensor.band_names, strict=True):
            band = _open_band(files, scene, sensor, name)
            values, measured = _read(band, tile, Resampling[resampling])
            clipped = to_stored(values, measured, scene, sensor, target)
            if not measured.any():
                return None
            out.aligned &= tile.grid.is_aligned(band.box)
            out.saturated += int(clipped.sum())
            out.quality[~measured] |= np.uint8(Quality.NODATA)
            out.quality[clipped] |= np.uint8(Quality.SATURATED)
        for kind in scene.masks:
            codes, _ = _read(_open_band(files, scene, sensor, kind), tile, Resampling.nearest)
            out.quality |= FLAGS[kind](codes)
    return None if (out.quality & np.uint8(Quality.NODATA)).all() else out


class _Files(ExitStack):
    """Files that stay open from band to band, since one decoded block often holds several bands."""

    def __init__(self) -> None:
        super().__init__()
        self._datasets: dict[str, DatasetReader] = {}

    def open(self, href: str, what: str) -> DatasetReader:
        if href not in self._datasets:
            self._datasets[href] = self.enter_context(open_raster(href, what))
        return self._datasets[href]


@dataclass(frozen=True, slots=True)
class _Band:
    """One band of one open file."""

    what: str
    """"scene …, band …", for messages."""
    dataset: DatasetReader
    index: int
    box: GeoBox
    nodata: float | None
    """The file's number for no-data; None: every pixel was measured."""


def _open_band(files: _Files, scene: Scene, sensor: Sensor, name: str) -> _Band:
    what = f"scene {scene.id}, band {name}"
    kind = next((kind for kind in scene.masks if kind == name), None)
    asset = scene.bands.get(name) if kind is None else scene.masks[kind]
    if asset is None:
        raise SceneError(f"{what}: there is no such band", f"the scene has {', '.join(scene.bands)}")
    dataset = files.open(asset.href, what)
    if asset.index > dataset.count:
        raise SceneError(f"{what}: {asset.href} has {dataset.count} band(s), not {asset.index}")
    dtype, tagged = dataset.dtypes[asset.index - 1], dataset.nodatavals[asset.index - 1]
    nodata: float | None
    if kind is not None:
        if np.dtype(dtype).kind not in "ui":
            raise SceneError(f"{what}: {asset.href} holds {dtype}, a quality mask holds integers")
        nodata = FILL[kind]
    else:
        check_numbers(scene, sensor, dtype, f"{what}: {asset.href}")
        if scene.source_nodata is None and MaskFlags.per_dataset in dataset.mask_flag_enums[asset.index - 1]:
            raise SceneError(
                f"{what}: {asset.href} marks no-data by a mask or alpha band, which is not read",
                "say which number means no-data (`nodata:`)",
            )
        nodata = source_nodata(scene, sensor, np.dtype(dtype), tagged, f"{what}: {asset.href}")
    return _Band(what, dataset, asset.index, geobox(dataset, what), nodata)


def _read(band: _Band, tile: Tile, resampling: Resampling) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(H, W) numbers as the file has them, and (H, W) where they are measurements."""
    values = np.full(tile.shape, 0 if band.nodata is None else band.nodata, band.dataset.dtypes[band.index - 1])
    with reading(band.dataset.name, band.what):
        if not _touches(band, tile):
            return values, np.zeros(tile.shape, bool)
        if tile.grid.is_aligned(band.box):
            inside = _copy(band, tile, values)
        else:
            _warp(band, tile, resampling, values)
            # with a no-data number, values hold it wherever there is no source
            inside = _covered(band, tile) if band.nodata is None else np.ones(tile.shape, bool)
    if band.nodata is not None and not math.isnan(band.nodata):
        inside &= values != np.asarray(band.nodata).astype(values.dtype)
    if values.dtype.kind == "f":
        inside &= np.isfinite(values)
    return values, inside


def _touches(band: _Band, tile: Tile) -> bool:
    """Whether tile and raster may have a pixel in common; True in doubt."""
    left, bottom, right, top = transform_bounds(tile.grid.crs, band.dataset.crs, *tile.bounds)
    if left > right:  # the tile crosses the antimeridian of a geographic raster
        return True
    there = band.box.boundingbox
    return bool(left < there.right and right > there.left and bottom < there.top and top > there.bottom)


def _copy(band: _Band, tile: Tile, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Copy the part of an aligned raster that lies on the tile; returns where that is."""
    x, y = ~band.box.affine @ (tile.bounds.left, tile.bounds.top)
    column, row = round(x), round(y)
    rows = slice(max(0, -row), min(tile.shape[0], band.dataset.height - row))
    columns = slice(max(0, -column), min(tile.shape[1], band.dataset.width - column))
    window = Window.from_slices((row + rows.start, row + rows.stop), (column + columns.start, column + columns.stop))
    values[rows, columns] = band.dataset.read(band.index, window=window)
    inside = np.zeros(tile.shape, bool)
    inside[rows, columns] = True
    return inside


def _warp(band: _Band, tile: Tile, resampling: Resampling, values: NDArray[Any]) -> None:
    """Resample one band onto the tile; where there is no source, values hold no-data (0 without one).

    Bands are warped one by one: rasterio tells GDAL to take a pixel for no-data only where *all* bands
    warped together have none, and would blend the no-data number of one band into its neighbours.
    """
    reproject(
        rasterio.band(band.dataset, band.index),
        values,
        src_nodata=band.nodata,
        dst_nodata=band.nodata,
        dst_transform=tile.transform,
        dst_crs=tile.grid.crs,
        resampling=resampling,
    )


def _covered(band: _Band, tile: Tile) -> NDArray[np.bool_]:
    """(H, W), where a pixel's centre lies within the raster: one pixel as large as the raster, warped."""
    inside = np.zeros(tile.shape, np.uint8)
    rows, columns = band.box.shape
    reproject(
        np.ones((1, 1), np.uint8),
        inside,
        src_transform=band.box.affine @ Affine.scale(columns, rows),
        src_crs=band.dataset.crs,
        dst_transform=tile.transform,
        dst_crs=tile.grid.crs,
        tolerance=0,  # which GDAL measures in pixels of the source
    )
    return inside == 1


def _check_complete(band: _Band) -> None:
    """Whether the last block of a GeoTIFF lies within the file: a broken download ends before it."""
    dataset = band.dataset
    if dataset.driver != "GTiff" or not Path(dataset.name).is_file():
        return
    rows, columns = dataset.block_shapes[band.index - 1]
    last = f"{(dataset.width - 1) // columns}_{(dataset.height - 1) // rows}"
    # absent for a block that was never written, which GDAL reads as no-data
    start, size = (dataset.get_tag_item(f"BLOCK_{key}_{last}", "TIFF", bidx=band.index) for key in ("OFFSET", "SIZE"))
    if start and size and int(start) + int(size) > Path(dataset.name).stat().st_size:
        raise SceneError(f"{band.what}: the end of {dataset.name} is missing", "the file is truncated; fetch it again")


def _check_same_place(band: _Band, first: _Band) -> None:
    """Whether two bands share their CRS and, to a pixel of the coarser, their extent."""
    if band.box.crs != first.box.crs:
        raise SceneError(f"{band.what}: {band.dataset.name} has another coordinate system than {first.what}")
    ours, theirs = band.box.boundingbox, first.box.boundingbox
    pixel = max(abs(box.resolution.x) for box in (band.box, first.box))
    apart = max(abs(a - b) for a, b in zip(ours.bbox, theirs.bbox, strict=True))
    if apart > 1.01 * pixel:
        raise SceneError(
            f"{band.what}: {band.dataset.name} covers another extent than {first.what}"
            f" (by {apart / pixel:.1f} of its pixels)"
        )
