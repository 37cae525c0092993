"""From a scene to its pixels on one tile.

A band that lies on the tile's grid is copied, window by window, and keeps its numbers exactly; any
other is resampled onto it once, and only what the tile needs of it is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.grid import AREA_TOLERANCE, Tile, crs_name
from geossl.imagery.access import Access
from geossl.imagery.blocks import keep_blocks
from geossl.imagery.clouds import FILL, FLAGS, Quality
from geossl.imagery.gcps import by_points
from geossl.imagery.radiometry import RAW_RADAR, check_numbers, is_decibel, source_nodata, to_stored
from geossl.imagery.raster import footprint, geobox, open_raster, reading
from geossl.imagery.resample import OpenBand, Scratch, copy, lost_in, warp
from geossl.imagery.retry import again
from geossl.imagery.scene import Scene

RESAMPLING = ("nearest", "bilinear", "cubic", "average")
"""Ways to resample a band that is not on the grid."""

_TOGETHER = 4
"""Bands that are warped at once: more gain little, and each takes memory."""


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
    scratch: Scratch = field(default_factory=Scratch, repr=False)
    """What reading the next tile need not allocate."""


@again
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
        with open_raster(asset.href, what, scene.access) as dataset:
            boxes.append(geobox(dataset, what))
    return _finest(boxes)


def _finest(boxes: Iterable[GeoBox]) -> GeoBox:
    return min(boxes, key=lambda box: abs(box.affine.determinant))


@again
def check_scene(scene: Scene, sensor: Sensor) -> GeoBox:
    """Open every file's header and see whether the scene can be read correctly.

    Returns
    -------
    CRS, transform and shape of its finest band, as :func:`scene_geobox` gives them.

    Raises
    ------
    SceneError
        Names the file, the band and the reason: a band or file is missing or is no raster, its end is
        missing, it does not say where it is, its numbers do not suit the sensor, or it disagrees with
        the scene's first band on where it is.
    """
    first: OpenBand | None = None
    with Files() as files:
        for name in (*sensor.band_names, *scene.masks):
            band = _open_band(files, scene, sensor, name)
            _check_complete(band)
            if first is None:
                first = band
                footprint(band.box, band.what)
            _check_same_place(band, first)
        return _finest(files.bands[name].box for name in sensor.band_names)


@again
def read_tile(
    scene: Scene,
    sensor: Sensor,
    tile: Tile,
    *,
    resampling: str = "bilinear",
    out: TilePixels | None = None,
    files: Files | None = None,
) -> TilePixels | None:
    """The scene's pixels on one tile.

    A pixel is flagged NODATA where *any* band has none; the other bands keep their numbers there.

    Parameters
    ----------
    resampling:
        One of :data:`RESAMPLING`, for bands that are not on the tile's grid. Masks are always nearest.
    out:
        Pixels of an earlier tile of the same sensor and size, to be overwritten and returned.
    files:
        The scene's files, kept open from tile to tile by whoever reads several.

    Returns
    -------
    The pixels, or None where the scene has nothing but no-data on this tile.

    Raises
    ------
    SceneError
        A file is missing or damaged, or its numbers do not suit the sensor; names the file and the band.
        Or the tile lies where its grid's pixels are of another size than they seem.
    """
    if resampling not in RESAMPLING:
        raise SettingsError(f"resampling {resampling!r} is not known", f"choose one of {', '.join(RESAMPLING)}")
    if out is None:
        image = np.empty((len(sensor.bands), *tile.shape), sensor.radiometry.dtype)
        out = TilePixels(image, np.empty(tile.shape, np.uint8))
    out.quality[:] = 0
    out.aligned, out.saturated = True, 0
    with contextlib.nullcontext(files) if files is not None else Files() as files, files.opened_anew_after_errors():
        bands = [_open_band(files, scene, sensor, name) for name in sensor.band_names]
        masks = {kind: _open_band(files, scene, sensor, kind) for kind in scene.masks}
        keep_blocks([*bands, *masks.values()], tile, Resampling[resampling])
        done = 0
        for group, aligned in _groups(bands, tile):
            targets = out.image[done : done + len(group)]
            done += len(group)
            out.aligned &= aligned
            if not _store(group, aligned, scene, sensor, tile, Resampling[resampling], targets, out):
                return None
        if abs(tile.areal_scale - 1) > AREA_TOLERANCE:
            raise _out_of_place(scene, tile)
        for kind, band in masks.items():
            codes = out.scratch.take("values", (1, *tile.shape), band.dtype)
            _read([band], tile.is_aligned(band.box), tile, Resampling.nearest, codes, out.scratch)
            out.quality |= FLAGS[kind](codes[0])
    return None if (out.quality & np.uint8(Quality.NODATA)).all() else out


def _store(
    group: list[OpenBand],
    aligned: bool,
    scene: Scene,
    sensor: Sensor,
    tile: Tile,
    resampling: Resampling,
    targets: NDArray[Any],
    out: TilePixels,
) -> bool:
    """Read some bands into their part of the image; False where one of them has nothing."""
    to_linear = is_decibel(sensor) and scene.physical and not aligned and resampling != Resampling.nearest
    power = is_decibel(sensor) and (to_linear or not scene.physical)
    values = targets
    if group[0].dtype != targets.dtype:
        values = out.scratch.take("values", targets.shape, group[0].dtype)
    outside = _read(group, aligned, tile, resampling, values, out.scratch, decibel=to_linear)
    plain = values is targets and targets.dtype.kind != "f" and not scene.shift
    lost = out.scratch.take("lost", tile.shape, bool)
    for band, numbers, target in zip(group, values, targets, strict=True):
        lost_in(numbers, band.nodata, lost)
        if outside is not None:
            lost |= outside
        as_is = plain and band.nodata == sensor.radiometry.nodata
        clipped = None if as_is else to_stored(numbers, lost, scene, sensor, target, power=power)
        if lost.all():
            return False
        out.quality |= lost.view(np.uint8)  # as a number, True is the flag NODATA
        if clipped is not None:
            out.saturated += int(clipped.sum())
            out.quality[clipped] |= np.uint8(Quality.SATURATED)
    return True


def _read(
    group: list[OpenBand],
    aligned: bool,
    tile: Tile,
    resampling: Resampling,
    values: NDArray[Any],
    scratch: Scratch,
    *,
    decibel: bool = False,
) -> NDArray[np.bool_] | None:
    """Numbers as the files have them (of dB: linear power), into (n, H, W); returns where there is no raster."""
    with reading(group[0].dataset.name, group[0].what):
        if aligned:
            return copy(group, tile, values)
        return warp(group, tile, resampling, values, scratch, decibel=decibel)


def _groups(bands: list[OpenBand], tile: Tile) -> Iterator[tuple[list[OpenBand], bool]]:
    """Neighbouring bands that are read together, and whether they lie on the grid: there, those of one file;
    elsewhere, a few of equal place, dtype and no-data."""
    for _, alike in itertools.groupby(bands, key=lambda band: (id(band.box), band.dtype, repr(band.nodata))):
        found = list(alike)
        if tile.is_aligned(found[0].box):
            for _, of_file in itertools.groupby(found, key=lambda band: id(band.dataset)):
                yield list(of_file), True
        else:
            for few in itertools.batched(found, _TOGETHER):
                yield list(few), False


def _out_of_place(scene: Scene, tile: Tile) -> SceneError:
    return SceneError(
        f"scene {scene.id}: tile {tile.id} lies so far from where {tile.grid.crs} is true that areas on it would be"
        f" wrong by {abs(tile.areal_scale - 1):.0%}",
        f"choose another CRS for the grid: {crs_name(CRS.utm(tile.extent))}, the UTM zone there, or an equal-area one"
        " for a region of several zones (EPSG:6933 for most of the world)",
    )


class Files(ExitStack):
    """A scene's files, which stay open from band to band and from tile to tile: one decoded block often holds
    several bands, or touches several tiles."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, tuple[DatasetReader, GeoBox]] = {}
        self.bands: dict[str, OpenBand] = {}
        """What is known of bands and masks by now, by name."""

    @contextlib.contextmanager
    def opened_anew_after_errors(self) -> Iterator[None]:
        """Close everything when reading fails, so that a second try does not meet the same broken handles."""
        try:
            yield
        except SceneError:
            self.close()
            self._open.clear()
            self.bands.clear()
            raise

    def open(self, href: str, what: str, access: Access | None) -> tuple[DatasetReader, GeoBox]:
        """The file, and where it is: the same object for files of the same place."""
        if href not in self._open:
            dataset = self.enter_context(open_raster(href, what, access))
            found = (box for other, box in self._open.values() if _place_of(other) == _place_of(dataset))
            alike = None if by_points(dataset) else next(found, None)
            self._open[href] = dataset, alike or geobox(dataset, what)
        return self._open[href]


def _place_of(dataset: DatasetReader) -> tuple[Any, ...]:
    return dataset.transform, dataset.shape, dataset.crs


def _open_band(files: Files, scene: Scene, sensor: Sensor, name: str) -> OpenBand:
    if name not in files.bands:
        files.bands[name] = _look_at_band(files, scene, sensor, name)
    return files.bands[name]


def _look_at_band(files: Files, scene: Scene, sensor: Sensor, name: str) -> OpenBand:
    what = f"scene {scene.id}, band {name}"
    kind = next((kind for kind in scene.masks if kind == name), None)
    asset = scene.bands.get(name) if kind is None else scene.masks[kind]
    if asset is None:
        raise SceneError(f"{what}: there is no such band", f"the scene has {', '.join(scene.bands)}")
    dataset, box = files.open(asset.href, what, scene.access)
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
        if is_decibel(sensor) and by_points(dataset):
            raise SceneError(f"{what}: {asset.href} is located by ground control points, as raw radar is", RAW_RADAR)
        if scene.source_nodata is None and MaskFlags.per_dataset in dataset.mask_flag_enums[asset.index - 1]:
            raise SceneError(
                f"{what}: {asset.href} marks no-data by a mask or alpha band, which is not read",
                "say which number means no-data (`nodata:`)",
            )
        nodata = source_nodata(scene, sensor, np.dtype(dtype), tagged, f"{what}: {asset.href}")
    return OpenBand(what, dataset, asset.index, np.dtype(dtype), box, nodata)


def _check_complete(band: OpenBand) -> None:
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


def _check_same_place(band: OpenBand, first: OpenBand) -> None:
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
