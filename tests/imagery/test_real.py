"""Real imagery, read in place: what it should become, or why it must be refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geossl.bands import Band, Radiometry, Sensor, sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.folder import FolderSettings
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import check_scene, read_tile, scene_geobox

# odc-geo 0.5 still calls shapely.ops.transform
pytestmark = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")


def scenes(base: Path, sensor: Sensor, **settings: Any) -> list[Scene]:
    found = list(open_source(FolderSettings(**settings), base).scenes(sensor))
    assert [entry for entry in found if isinstance(entry, Rejected)] == []
    return [entry for entry in found if isinstance(entry, Scene)]


def simple(bands: int, dtype: str, nodata: float | None, **more: Any) -> Sensor:
    return Sensor(
        "simple", tuple(Band(f"b{i}", None, 30) for i in range(1, bands + 1)), Radiometry(dtype, nodata=nodata, **more)
    )


def utm(box: GeoBox, size: float) -> Grid:
    """A grid of the UTM zone of a raster's middle."""
    x, y = box.extent.to_crs("EPSG:4326").centroid.coords[0]
    return Grid(f"EPSG:{32600 + 100 * (y < 0) + int((x + 180) // 6) % 60 + 1}", size, 256)


def test_zion_is_one_scene_of_four_files(shared_data: Path) -> None:
    s = sensor("landsat-8-l1").subset(["B2", "B3", "B4", "B5"])
    (scene,) = scenes(shared_data, s, path="zion-landsat8-nlcd", pattern="landsat_b{band}.tif", date="2015-08-18",
                      scene="LC80380342015230LGN00", bands={"B2": "2", "B3": "3", "B4": "4", "B5": 5})  # fmt: skip
    assert (scene.id, scene.time) == ("LC80380342015230LGN00", datetime(2015, 8, 18, tzinfo=UTC))
    check_scene(scene, s)
    grid = Grid("EPSG:32612", 30, 256, (301_905, 4_154_085))
    pixels = read_tile(scene, s, grid[2, 3])
    assert pixels is not None
    assert pixels.aligned
    for band, name in zip(pixels.image, "2345", strict=True):
        with rasterio.open(shared_data / f"zion-landsat8-nlcd/landsat_b{name}.tif") as dataset:
            raw = dataset.read(1)[768:1024, 512:768]
        np.testing.assert_array_equal(band, np.where(raw == 65535, 0, raw))


def test_pucallpa_is_a_scene_a_year(shared_data: Path) -> None:
    names = ("SWIR1", "NIR", "red", "green")
    s = Sensor("pucallpa", tuple(Band(name, None, 90) for name in names), Radiometry("uint8", nodata=0))
    series = scenes(
        shared_data, s, path="pucallpa-landsat-series", pattern="{date:%Y}.tif", bands=names, scene="pucallpa"
    )
    assert [scene.id for scene in series] == [f"pucallpa-{year}" for year in range(1985, 2021, 5)]
    check_scene(series[0], s)
    grid = utm(scene_geobox(series[0]), 90)
    assert grid.crs == "EPSG:32718"
    tile = next(iter(grid.tiles(scene_geobox(series[0]).extent.centroid)))
    pixels = read_tile(series[0], s, tile)
    assert pixels is not None
    oracle = np.zeros((4, 256, 256), np.uint8)
    with rasterio.open(shared_data / "pucallpa-landsat-series/1985.tif") as dataset:
        for index in range(4):
            reproject(dataset.read(index + 1), oracle[index], src_transform=dataset.transform, src_crs=dataset.crs,
                      src_nodata=0, dst_nodata=0, dst_transform=tile.transform, dst_crs=grid.crs,
                      resampling=Resampling.bilinear, tolerance=TOLERANCE, XSCALE=1, YSCALE=1)  # fmt: skip
    assert (pixels.image != oracle).mean() < 1e-3  # what lies just between two integers
    np.testing.assert_array_equal(pixels.quality == Quality.NODATA, (oracle == 0).any(axis=0))
    assert (pixels.quality == 0).mean() > 0.9


def test_a_safe_product_is_harmonised_and_masked(shared_data: Path) -> None:
    s = sensor("sentinel-2-l2a").subset(["B02", "B8A"])
    (scene,) = scenes(shared_data, s, path="s2-safe-t29unu")
    assert (scene.shift, list(scene.masks)) == (-1000, ["scl"])
    check_scene(scene, s)
    pixels = read_tile(scene, s, Grid("EPSG:32629", 60, 256, (499_980, 5_900_040))[4, 1])
    assert pixels is not None
    assert pixels.aligned
    raw, scl = [], None
    for asset in (*scene.bands.values(), *scene.masks.values()):
        assert asset is not None
        with rasterio.open(asset.href) as dataset:
            raw.append(dataset.read(1, window=((256, 512), (1024, 1280))).astype(int))
    *raw, scl = raw
    np.testing.assert_array_equal(pixels.image, np.where(np.array(raw) == 0, -32768, np.array(raw) - 1000))
    nothing = (np.array(raw) == 0).any(axis=0) | (scl == 0)
    np.testing.assert_array_equal(pixels.quality & Quality.NODATA > 0, nothing)
    np.testing.assert_array_equal(pixels.quality & Quality.CLOUD > 0, np.isin(scl, (8, 9)))
    assert 0.05 < nothing.mean() < 0.95
    missing = open_source(FolderSettings(path="s2-safe-t29unu"), shared_data).scenes(sensor("sentinel-2-l2a"))
    assert "has no image of band B08" in next(entry.reason for entry in missing if isinstance(entry, Rejected))


def test_chiapas_masks_by_a_band_of_its_own_file(shared_data: Path) -> None:
    """Two files of one series, of which one tags its no-data and the other does not."""
    s = simple(6, "int16", -9999, scale=1e-4, unit="reflectance")
    bands = [*s.band_names, "thermal", "fmask"]
    pair = scenes(
        shared_data, s, path="chiapas-landsat7-pair", pattern="LE7022049{date:%Y%j}EDC*_stack.gtif", bands=bands
    )
    assert [str(scene.time.date()) for scene in pair] == ["1999-11-18", "2002-04-16"]
    for scene in pair:
        check_scene(scene, s)
        with rasterio.open(scene.bands["b1"].href) as dataset:
            raw, fmask = dataset.read(range(1, 7)), dataset.read(8)
            origin = dataset.transform.c, dataset.transform.f
        pixels = read_tile(scene, s, Grid("EPSG:32615", 30, 256, origin)[0, 0])
        assert pixels is not None
        np.testing.assert_array_equal(pixels.image[:, :250, :250], raw)
        quality = pixels.quality[:250, :250]
        np.testing.assert_array_equal(quality & Quality.CLOUD > 0, fmask == 4)
        no_data = (raw == -9999).any(axis=0) | (fmask < 0) | (fmask > 254)
        np.testing.assert_array_equal(quality & Quality.NODATA > 0, no_data)


@pytest.mark.parametrize("city", ["norcia", "hongkong"])
def test_oscd_bands_of_three_resolutions(shared_data: Path, city: Any) -> None:
    s = sensor("sentinel-2-l1c")
    settings = {"path": f"oscd/images/{city}", "pattern": "imgs_2/{scene}_{date:%Y%m%dT%H%M%S}_{band}.tif"}
    (scene,) = scenes(shared_data, s, **settings)
    check_scene(scene, s)
    box = scene_geobox(scene)
    tile = next(iter(utm(box, 10).tiles(box.extent.centroid)))
    pixels = read_tile(scene, s, tile)
    assert pixels is not None
    seen = pixels.quality == 0
    assert seen.mean() > 0.5
    # bands of 60 m and of 10 m see the same ground
    assert (
        np.corrcoef(pixels.image[s.band_names.index("B09")][seen], pixels.image[s.band_names.index("B8A")][seen])[0, 1]
        > 0.7
    )


def test_float_reflectance_becomes_integers(shared_data: Path) -> None:
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    (scene,) = scenes(shared_data, sensor("sentinel-2-l2a"), path="rstoolbox-amazon", pattern="sen2.tif",
                      bands=names, date="2017-01-01", physical=True)  # fmt: skip
    s = sensor("sentinel-2-l2a")
    check_scene(scene, s)
    box = scene_geobox(scene)
    grid = utm(box, 10)
    pixels = read_tile(scene, s, next(iter(grid.tiles(box.extent.centroid))), resampling="nearest")
    assert pixels is not None
    seen = pixels.quality == 0
    with rasterio.open(scene.bands["B08"].href) as dataset:
        stored = np.rint(dataset.read(8).astype(float) * 1e4)
    assert set(np.unique(pixels.image[7][seen])) <= set(np.unique(stored).astype(int))


def test_a_scene_across_the_antimeridian_reaches_both_zones(shared_data: Path) -> None:
    s = simple(1, "uint16", 0)
    (scene,) = scenes(shared_data, s, path="awkward", pattern="riotiler_cog_dateline.tif", date="2020-01-01")
    assert scene.footprint["type"] == "MultiPolygon"
    west = read_tile(scene, s, Grid("EPSG:32660", 100, 256, (570_600, 5_847_600))[4, 4])
    east = read_tile(scene, s, Grid("EPSG:32601", 100, 256, (300_000, 5_847_600))[0, 4])
    assert west is not None
    assert east is not None
    assert all(math.isfinite(pixels.image.mean()) and (pixels.quality == 0).mean() > 0.5 for pixels in (west, east))


def test_a_series_of_modis_tiles_has_its_dates(shared_data: Path) -> None:
    s = simple(1, "int16", -3000)
    pattern = "TERRA_MODIS_{scene}_NDVI_{date:%Y-%m-%d}.jp2"
    series = scenes(shared_data, s, path="awkward/sits_modis_sinop", pattern=pattern, bands=["b1"])
    assert len(series) == 12
    assert [str(series[i].time.date()) for i in (0, -1)] == ["2013-09-14", "2014-08-29"]
    with pytest.raises(SceneError, match="no-data is said to be 70000, which int16 cannot hold"):
        check_scene(scenes(shared_data, s, path="awkward/sits_modis_sinop", pattern=pattern, nodata=70_000)[0], s)
