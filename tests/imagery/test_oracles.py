"""Every shared set of real imagery, through our sources and readers, against rasterio alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geossl.bands import Band, Radiometry, Sensor, sensor
from geossl.grid import Grid, Tile
from geossl.imagery.folder import FolderSettings
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Asset, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import check_scene, read_tile, scene_geobox

# odc-geo 0.5 still calls shapely.ops.transform
pytestmark = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")


def plain(count: int, dtype: str, nodata: float) -> Sensor:
    """A sensor without a physical scale."""
    return Sensor(
        "plain", tuple(Band(f"b{i}", None, 30) for i in range(1, count + 1)), Radiometry(dtype, nodata=nodata)
    )


@dataclass(frozen=True)
class Case:
    """One set, and what rasterio should make of it."""

    source: dict[str, Any]
    sensor: Sensor
    nodata: float
    """The files' own number for it; NaN never counts either."""
    grids: tuple[tuple[str, float] | None, ...] = (None,)
    """CRS and pixel size to read it on; None: the files' own, so that nothing is resampled."""
    shift: int = 0
    scenes: int = 1
    date: datetime | None = field(default=datetime(2020, 1, 1, tzinfo=UTC))

    def found(self, shared_data: Path) -> list[Scene]:
        settings = FolderSettings(**({"date": self.date} | self.source))
        scenes = list(open_source(settings, shared_data).scenes(self.sensor))
        assert len(scenes) == self.scenes, scenes
        assert all(isinstance(scene, Scene) for scene in scenes), scenes
        return [scene for scene in (scenes[0], scenes[-1])[: self.scenes] if isinstance(scene, Scene)]


AWKWARD = {
    "mapchete_gcps.tif": (plain(1, "uint16", 0), 0, [("EPSG:32734", 1000)]),
    "mapchete_s2_band.jp2": (plain(1, "uint16", 0), 0, [None, ("EPSG:32632", 10)]),
    "opengeos_landsat7_3857.tif": (plain(3, "uint8", 0), 0, [("EPSG:32610", 20)]),
    "rasterio_RGB.byte.tif": (plain(3, "uint8", 0), 0, [("EPSG:32617", 300), ("EPSG:32618", 300)]),
    "riotiler_cog_dateline.tif": (plain(1, "uint16", 0), 0, [("EPSG:32601", 100), ("EPSG:32660", 100)]),
    "riotiler_cog_nodata_nan.tif": (plain(1, "float32", -9999), 0, [None, ("EPSG:32610", 150)]),
    "stars_L7_ETMs.tif": (plain(6, "uint8", 0), 0, [("EPSG:32725", 28.5)]),
    "terratorch_hls_10band.tif": (plain(10, "float32", -9999), -9999, [None, ("EPSG:32613", 30)]),
    "sits_modis_sinop/PRODES_LANDSAT_AMZ_2000-08-01_2020-07-31_class_v20220606.tif": (
        plain(1, "uint8", 255), 255, [("EPSG:32720", 28)]),
    "sits_modis_sinop/SENTINEL2_MSI_20LNR_2020-06-04_2021-08-26_class_v1.tif": (plain(1, "uint8", 255), 255, [None]),
}  # fmt: skip

_S2_60M = [band.name for band in sensor("sentinel-2-l2a").bands if band.name != "B08"]
_PHYSICAL = [band.name for band in sensor("sentinel-2-l2a").bands]

CASES = {
    "s2-safe": Case(
        {"path": "s2-safe-t29unu", "date": None},
        sensor("sentinel-2-l2a").subset(_S2_60M), 0, (None,), shift=-1000),
    "s2-safe, next zone": Case(
        {"path": "s2-safe-t29unu", "date": None},
        sensor("sentinel-2-l2a").subset(["B02", "B8A"]), 0, (("EPSG:32630", 60),), shift=-1000),
    "zion": Case(
        {"path": "zion-landsat8-nlcd", "pattern": "landsat_b{band}.tif",
         "bands": {"B2": "2", "B3": "3", "B4": "4", "B5": "5"}},
        sensor("landsat-8-l1").subset(["B2", "B3", "B4", "B5"]), 65535, (None, ("EPSG:32611", 30))),
    "oscd, norcia": Case(
        {"path": "oscd/images/norcia", "pattern": "imgs_2/{scene}_{date:%Y%m%dT%H%M%S}_{band}.tif", "date": None},
        sensor("sentinel-2-l1c"), 0, (("EPSG:32633", 7),)),
    "oscd, hongkong before": Case(
        {"path": "oscd/images/hongkong", "pattern": "imgs_1/*_{date:%Y%m%dT%H%M%S}_*_{band}.tif", "date": None},
        sensor("sentinel-2-l1c"), 0, (("EPSG:32650", 10),)),
    "oscd, hongkong after": Case(
        {"path": "oscd/images/hongkong", "pattern": "imgs_2/*_{date:%Y%m%dT%H%M%S}_{band}.tif", "date": None},
        sensor("sentinel-2-l1c"), 0, (("EPSG:32650", 10),)),
    "pucallpa": Case(
        {"path": "pucallpa-landsat-series", "pattern": "{date:%Y}.tif", "date": None},
        plain(4, "uint8", 0), 0, (("EPSG:32718", 85),), scenes=8),
    "chiapas": Case(
        {"path": "chiapas-landsat7-pair", "pattern": "LE7022049{date:%Y%j}EDC*_stack.gtif", "date": None,
         "bands": ["b1", "b2", "b3", "b4", "b5", "b6", "thermal", "fmask_unread"]},
        plain(6, "int16", -9999), -9999, (None, ("EPSG:32616", 30)), scenes=2),
    "rstoolbox, negative northings": Case(
        {"path": "rstoolbox-amazon", "pattern": "lsat.tif"}, plain(7, "uint8", 0), 0, (None, ("EPSG:32722", 25))),
    "rstoolbox, a file a band": Case(
        {"path": "rstoolbox-amazon/landsat5-raw", "pattern": "LT52240631988227CUB02_{band}.TIF",
         "bands": {f"b{i}": f"B{i}" for i in range(1, 8)}}, plain(7, "uint8", 255), 255, (None,)),
    "rstoolbox, floats in degrees": Case(
        {"path": "rstoolbox-amazon", "pattern": "sen2.tif", "bands": _PHYSICAL, "physical": True},
        sensor("sentinel-2-l2a"), np.nan, (("EPSG:32721", 10),)),
    "bigearthnet, five zones": Case(
        {"path": "bigearthnet-v2-patches/s2", "pattern": "{scene}.tif", "bands": ["B02", "B03", "B04", "B08"]},
        sensor("sentinel-2-l2a").subset(["B02", "B03", "B04", "B08"]), 0, (None,), scenes=60),
    "bigearthnet, radar": Case(
        {"path": "bigearthnet-v2-patches/s1", "pattern": "{scene}.tif", "bands": ["VV", "VH"], "physical": True},
        sensor("sentinel-1-rtc"), np.nan, (None, ("EPSG:3035", 9)), scenes=60),
    "modis": Case(
        {"path": "awkward/sits_modis_sinop", "pattern": "TERRA_MODIS_{scene}_NDVI_{date:%Y-%m-%d}.jp2", "date": None},
        plain(1, "int16", -3000), -3000, (("EPSG:32721", 200),), scenes=12),
} | {
    name: Case({"path": "awkward", "pattern": name}, sensor, nodata, tuple(grids))
    for name, (sensor, nodata, grids) in AWKWARD.items()
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_rasterios(shared_data: Path, name: str) -> None:
    case = CASES[name]
    for scene in case.found(shared_data):
        check_scene(scene, case.sensor)
        box = scene_geobox(scene)
        for where in case.grids:
            if where is None:
                grid = Grid(str(box.crs), box.resolution.x, 256, (box.affine.c, box.affine.f))
            else:
                grid = Grid(*where, 256)
            seen = 0.0
            for tile in middle_and_corner(grid, box):
                pixels = read_tile(scene, case.sensor, tile)
                for band, expected in enumerate(oracle(case, scene, tile)):
                    if pixels is None:
                        assert (expected == case.sensor.radiometry.nodata).any()
                    else:
                        assert pixels.aligned == (where is None)
                        assert_same(pixels.image[band], expected, exact=pixels.aligned)
                seen = max(seen, 0 if pixels is None else (pixels.quality & 1 == 0).mean())
            assert seen > 0.1


def assert_same(ours: NDArray[Any], theirs: NDArray[Any], *, exact: bool) -> None:
    """Equal; when warped but for what lies just between two integers, which the last bit of a coordinate decides."""
    if exact or ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 1e-5)
    else:
        different = ours != theirs
        assert different.mean() < 1e-2
        assert np.abs(ours[different].astype(int) - theirs[different]).max(initial=0) <= 1


def middle_and_corner(grid: Grid, box: GeoBox) -> Iterator[Tile]:
    outline = box.extent.to_crs(grid.crs, resolution="auto", check_and_fix=True)
    middle = next(iter(grid.tiles(box.extent.centroid.to_crs(grid.crs))))
    corner = next(grid.tiles(outline))
    yield middle
    if corner != middle:
        yield corner


def oracle(case: Case, scene: Scene, tile: Tile) -> Iterator[NDArray[Any]]:
    """The stored numbers of each band, from the files by rasterio and NumPy alone."""
    ours = case.sensor.radiometry
    for asset in scene.bands.values():
        values = on_tile(case, asset, tile)
        lost = np.isnan(values) if values.dtype.kind == "f" else values == case.nodata
        if ours.unit == "dB" and scene.properties.get("geossl:physical"):
            values = values if is_own_grid(asset, tile) else 10 * np.log10(values.astype(float))
        if values.dtype.kind == "f" and ours.dtype != "float32":
            values = np.rint((np.where(lost, 0, values).astype(float) - ours.offset) / ours.scale)
        wide = values.astype(float) + case.shift
        yield np.where(lost | (wide == ours.nodata), ours.nodata, wide).astype(ours.dtype)


def is_own_grid(asset: Asset, tile: Tile) -> bool:
    with rasterio.open(asset.href) as dataset:
        return bool(dataset.crs and dataset.crs == tile.grid.crs and dataset.transform.a == tile.grid.resolution)


def on_tile(case: Case, asset: Asset, tile: Tile) -> NDArray[Any]:
    with rasterio.open(asset.href) as dataset:
        raw, place, crs = dataset.read(asset.index), dataset.transform, dataset.crs
        located: dict[str, Any] = {"src_crs": crs, "src_transform": place}
        if crs is None:
            located = {"src_crs": dataset.gcps[1], "gcps": dataset.gcps[0], "MAX_GCP_ORDER": 2}
    nodata = case.nodata
    if raw.dtype.kind == "f":
        raw[raw == nodata], nodata = np.nan, np.nan
    out = np.full(tile.shape, nodata, raw.dtype)
    if is_own_grid(asset, tile):
        left, top = round((tile.bounds.left - place.c) / place.a), round((tile.bounds.top - place.f) / place.e)
        rows, columns = np.arange(top, top + 256), np.arange(left, left + 256)
        inside = np.ix_((rows >= 0) & (rows < raw.shape[0]), (columns >= 0) & (columns < raw.shape[1]))
        out[inside] = raw[np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])]
        return out
    if case.sensor.radiometry.unit == "dB":
        raw = 10 ** (raw / 10)
    # no case is coarser on the grid than in its file; GDAL's guess is wrong where the two are turned
    reproject(raw, out, src_nodata=nodata, dst_nodata=nodata, dst_transform=tile.transform, dst_crs=tile.grid.crs,
              resampling=Resampling.bilinear, tolerance=TOLERANCE, XSCALE=1, YSCALE=1, **located)  # fmt: skip
    return out


def test_no_awkward_raster_is_left_out(shared_data: Path) -> None:
    folder = shared_data / "awkward"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".tif", ".jp2")}
    assert there == AWKWARD.keys() | {name for name in there if "TERRA_MODIS" in name}
