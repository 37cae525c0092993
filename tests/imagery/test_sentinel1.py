"""Sentinel-1: powers are averaged, decibels are kept, and what is still in radar geometry is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject

from geossl import bands
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.folder import FolderSettings
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Asset, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import check_scene, read_tile

from .conftest import SQUARE, Write

RTC = bands.sensor("sentinel-1-rtc")
GRID = Grid("EPSG:32622", 10, 256)
NODATA = -32768
DECIBEL = {"geossl:physical": True}


def scene(path: str, **properties: Any) -> Scene:
    both = {"VV": Asset(path, 1), "VH": Asset(path, 2)}
    return Scene("s", RTC.name, datetime(2020, 5, 6, tzinfo=UTC), SQUARE, None, both, properties=properties)


@pytest.fixture
def power() -> NDArray[np.float32]:
    """(2, 300, 280) gamma0, speckled as a few looks leave it, with holes."""
    rng = np.random.default_rng(3)
    values = rng.gamma(4, 0.02, (2, 300, 280)).astype(np.float32)
    values[:, 40:60, 100:150] = 0
    values[0, 200:220] = np.nan
    return values


def stored(linear: NDArray[Any]) -> NDArray[np.int16]:
    """Hundredths of a decibel."""
    good = np.isfinite(linear) & (linear > 0)
    decibel = 10 * np.log10(np.where(good, linear, 1).astype(float))
    return np.where(good, np.rint(100 * decibel), NODATA).astype(np.int16)


def test_the_sensor_is_as_published() -> None:
    assert RTC.band_names == ("VV", "VH")
    assert RTC.wavelengths == (None, None)
    assert RTC.radiometry.to_physical(np.array([-1234, NODATA], np.int16))[0] == pytest.approx(-12.34)
    assert bands.Sensor.from_dict(RTC.to_dict()) == RTC


def test_aligned_power_becomes_decibels(tmp_path: Path, write: Write) -> None:
    values = np.array([[1, 10, 0.001, 0.0123, 0, -0.5, np.nan, np.inf, 1e-40]], np.float32)
    path = write(tmp_path / "a.tif", np.stack([values, values]), transform=from_origin(0, 0, 10, 10))
    check_scene(scene(path), RTC)
    pixels = read_tile(scene(path), RTC, GRID[0, 0])
    assert pixels is not None
    assert pixels.image[0, 0, :9].tolist() == [0, 1000, -3000, -1910, *[NODATA] * 4, -32767]
    assert pixels.quality[0, :9].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, Quality.SATURATED]
    assert pixels.saturated == 2


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "place", [from_origin(-300, 200, 10.7, 10.7), from_origin(-3, 7, 10, 10), from_origin(0, 0, 5, 5)]
)
def test_power_is_resampled_before_it_becomes_decibels(
    tmp_path: Path, write: Write, power: NDArray[np.float32], place: Any, resampling: Any
) -> None:
    tile = GRID[0, 0]
    path = write(tmp_path / "a.tif", power, transform=place, nodata=0)
    in_decibel = 10 * np.log10(np.where(power > 0, power, np.nan))
    other = write(tmp_path / "b.tif", in_decibel.astype(np.float32), transform=place, nodata=np.nan)
    oracle = np.zeros((2, *tile.shape), np.float32)
    for raw, out in zip(power, oracle, strict=True):
        reproject(np.where(np.isnan(raw), 0, raw), out, src_transform=place, src_crs=GRID.crs, src_nodata=0,
                  dst_nodata=0, dst_transform=tile.transform, dst_crs=GRID.crs,
                  resampling=Resampling[resampling], tolerance=TOLERANCE, XSCALE=min(1, place.a / 10), YSCALE=min(1, place.a / 10))  # fmt: skip
    pixels = read_tile(scene(path), RTC, tile, resampling=resampling)
    assert pixels is not None
    np.testing.assert_array_equal(pixels.image, stored(oracle))
    from_decibel = read_tile(scene(other, **DECIBEL), RTC, tile, resampling=resampling)
    assert from_decibel is not None
    np.testing.assert_array_equal(from_decibel.image == NODATA, pixels.image == NODATA)
    apart = np.abs(from_decibel.image.astype(int) - pixels.image)
    assert apart.max() <= (1 if resampling != "cubic" else 60)  # cubic can come near to no power at all
    assert (apart <= 1).mean() > 0.999


def test_decibels_on_the_grid_are_copied(tmp_path: Path, write: Write) -> None:
    values = np.array([[-12.344, -12.346, 3.5, np.nan, -9999]], np.float32)
    path = write(tmp_path / "a.tif", np.stack([values, values]), transform=from_origin(0, 0, 10, 10), nodata=-9999)
    pixels = read_tile(scene(path, **DECIBEL), RTC, GRID[0, 0])
    assert pixels is not None
    assert pixels.image[1, 0, :5].tolist() == [-1234, -1235, 350, NODATA, NODATA]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while such files are written
def test_raw_products_are_refused_with_the_tool_to_run_first(tmp_path: Path, write: Write) -> None:
    amplitude = np.full((2, 300, 280), 87, np.uint16)
    swath = write(tmp_path / "swath.tif", amplitude.astype(np.float32), transform=None, crs=None)
    points = [
        GroundControlPoint(r, c, -51 + 1e-4 * c, 1 - 1e-4 * r) for r in range(0, 301, 60) for c in range(0, 281, 70)
    ]
    with rasterio.open(swath, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    reasons = {
        write(
            tmp_path / "map.tif", amplitude
        ): r"map\.tif: the file holds uint16, the amplitude of a raw radar product",
        swath: r"swath\.tif is located by ground control points, as raw radar is",
        write(tmp_path / "slc.tif", amplitude.astype(np.complex64)): "complex numbers",
    }
    for path, reason in reasons.items():
        with pytest.raises(SceneError, match=reason) as caught:
            check_scene(scene(path), RTC)
        assert "SNAP" in caught.value.remedy or "intensity" in caught.value.remedy


def test_the_orbit_of_an_item_is_kept(tmp_path: Path, write: Write, power: NDArray[np.float32]) -> None:
    """Items of terrain-corrected collections still say what they were made from: product type GRD."""
    path = write(tmp_path / "a.tif", power, transform=from_origin(-300, 200, 10, 10), nodata=0)
    said = {
        "platform": "SENTINEL-1A",
        "sar:product_type": "GRD",
        "sar:polarizations": ["VV", "VH"],
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 54,
    }
    item = pystac.Item("S1A_IW_GRDH_rtc", SQUARE, [-51, 0, -50, 1], datetime(2020, 5, 6, tzinfo=UTC), said)
    for index, key in enumerate(("vv", "vh"), start=1):
        item.add_asset(key, pystac.Asset(path, roles=["data"], extra_fields={"geossl:index": index}))
    found = Scene.from_item(item, RTC)
    check_scene(found, RTC)
    assert (found.bands["VH"], found.shift) == (Asset(path, 2), 0)
    again = Scene.from_item(found.to_item(), RTC)
    for kept in (found, again):
        assert kept.properties["sat:orbit_state"] == "descending"
        assert kept.properties["sat:relative_orbit"] == 54


def test_real_patches_in_decibels(shared_data: Path) -> None:
    """BigEarthNet's, aligned and halved: the mean of powers, which lies above the mean of decibels."""
    pattern = "{scene}_{date:%Y%m%dT%H%M%S}_34TCR_43_25.tif"
    settings = FolderSettings(path="bigearthnet-v2-patches/s1", pattern=pattern, bands=["VV", "VH"], physical=True)
    (found,) = open_source(settings, shared_data).scenes(RTC)
    assert isinstance(found, Scene)
    check_scene(found, RTC)
    with rasterio.open(found.bands["VV"].href) as dataset:
        raw, place = dataset.read().astype(float), dataset.transform
    tile = Grid("EPSG:32634", 10, 256, (place.c, place.f))[0, 0]
    pixels = read_tile(found, RTC, tile)
    assert pixels is not None
    assert pixels.aligned
    np.testing.assert_array_equal(pixels.image[:, :120, :120], np.rint(100 * raw))
    halved = read_tile(found, RTC, Grid("EPSG:32634", 20, 256, (place.c, place.f))[0, 0], resampling="average")
    assert halved is not None
    mean = (10 ** (raw / 10)).reshape(2, 60, 2, 60, 2).mean(axis=(2, 4))
    assert np.abs(halved.image[:, :60, :60] - 1000 * np.log10(mean)).max() < 0.51
    assert (halved.quality[:60, :60] == 0).all()
    assert (halved.image[:, :60, :60] > 100 * raw.reshape(2, 60, 2, 60, 2).mean(axis=(2, 4)) - 1).all()
