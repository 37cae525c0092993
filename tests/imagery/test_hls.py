from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import shape

from geossl.bands import sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.hls import NAME, read_hls
from geossl.imagery.scene import Scene
from geossl.imagery.warp import check_scene, read_tile

GRANULE = "HLS.S30.T10SEH.2020273T190109.v2.0"
S30 = sensor("hls-s30")
SIDE = 256

Granule = Callable[..., list[Path]]


@pytest.fixture
def granule(tmp_path: Path, write: Callable[..., str]) -> Granule:
    """The files of one granule, 256 × 256 pixels at 30 m, with two more bands than the sensor has."""

    def make(name: str = GRANULE, bands: tuple[str, ...] = S30.band_names) -> list[Path]:
        rng = np.random.default_rng(5)
        place: dict[str, Any] = {"crs": "EPSG:32610", "transform": from_origin(499_980, 4_200_000, 30, 30)}
        for band in (*bands, "B10", "SZA"):
            pixels = rng.integers(-100, 10_000, (SIDE, SIDE)).astype(np.int16)
            pixels[:5] = -9999
            write(tmp_path / f"{name}.{band}.tif", pixels, nodata=-9999, **place)
        fmask = np.full((SIDE, SIDE), 0b0100_0000, np.uint8)
        fmask[:5], fmask[5:9], fmask[9:12], fmask[12:14] = 255, 0b10, 0b100, 0b1110_0000
        write(tmp_path / f"{name}.Fmask.tif", fmask, nodata=255, **place)
        return sorted(tmp_path.glob("*.tif"))

    return make


def test_a_granule_is_a_scene_with_the_files_numbers(granule: Granule) -> None:
    scene = read_hls(granule(), S30)
    assert (scene.id, scene.crs, scene.shift, scene.source_nodata) == (GRANULE, "EPSG:32610", 0, -9999)
    assert scene.time == datetime(2020, 9, 29, 19, 1, 9, tzinfo=UTC)  # day 273 of a leap year
    expected = transform_bounds("EPSG:32610", "EPSG:4326", 499_980, 4_200_000 - 30 * SIDE, 499_980 + 30 * SIDE, 4.2e6)
    np.testing.assert_allclose(shape(scene.footprint).bounds, expected, atol=1e-6)
    check_scene(scene, S30)
    pixels = read_tile(scene, S30, Grid("EPSG:32610", 30, SIDE, (499_980, 4_200_000))[0, 0])
    assert pixels is not None
    assert pixels.aligned
    for stored, asset in zip(pixels.image, scene.bands.values(), strict=True):
        with rasterio.open(asset.href) as dataset:
            np.testing.assert_array_equal(stored, dataset.read(1))
    flags = np.zeros((SIDE, SIDE), np.uint8)
    flags[:5], flags[5:12], flags[12:14] = Quality.NODATA, Quality.CLOUD, Quality.WATER
    np.testing.assert_array_equal(pixels.quality, flags)


def test_both_products_have_their_own_bands(granule: Granule) -> None:
    l30 = sensor("hls-l30")
    scene = read_hls(granule(GRANULE.replace("S30", "L30"), l30.band_names), l30)
    assert (scene.sensor, list(scene.bands)) == ("hls-l30", [f"B0{number}" for number in range(1, 8)])
    common = {band.common_name for band in l30.bands} & {band.common_name for band in S30.bands}
    assert common == {"coastal", "blue", "green", "red", "nir08", "swir16", "swir22"}
    for name in common - {"coastal"}:
        assert l30.band(str(name)).wavelength == pytest.approx(S30.band(str(name)).wavelength, abs=0.012)


@pytest.mark.parametrize(
    ("name", "band"),
    [(f"{GRANULE}.B8A.tif", "B8A"), ("HLS.L30.T60WWV.2014001T000000.v2.0.Fmask.tif", "Fmask"),
     ("HLS-VI.S30.T10SEH.2020273T190109.v2.0.EVI.tif", None), (f"{GRANULE}.tif", None), (f"{GRANULE}.B02.hdf", None)],
)  # fmt: skip
def test_names(name: Any, band: Any) -> None:
    match = NAME.fullmatch(name)
    assert (match and match["band"]) == band


def test_what_does_not_suit_is_refused(granule: Granule, tmp_path: Path) -> None:
    files = granule()
    with pytest.raises(SceneError, match=r"is of sensor hls-s30, not hls-l30\n  → choose sensor hls-s30"):
        read_hls(files, sensor("hls-l30"))
    with pytest.raises(SceneError, match=r"S30.*has no B03, Fmask \(there are: B01, B02"):
        read_hls([path for path in files if ".B03." not in path.name and "Fmask" not in path.name], S30)
    with pytest.raises(SceneError, match=r"it is of HLS version 1\.5"):
        read_hls([path.with_name(path.name.replace("v2.0", "v1.5")) for path in files], S30)
    with pytest.raises(SceneError, match="2020400T190109 is no year, day of year and time"):
        read_hls([path.rename(path.with_name(path.name.replace("2020273", "2020400"))) for path in files], S30)
    with pytest.raises(SceneError, match="none of 1 files is named as HLS names"):
        read_hls([tmp_path / "a.tif"], S30)


ASSETS = (*S30.band_names, "B09", "B10", "Fmask", "SZA")


@pytest.mark.parametrize(
    ("collection", "key"), [("hls2-s30", "Fmask"), ("HLSS30_2.0", "Fmask"), ("HLSS30.v2.0", "fmask"), (None, "Fmask")]
)
def test_items_of_any_provider_have_the_bits_of_hls(collection: Any, key: Any) -> None:
    """Planetary Computer, LP DAAC's CMR-STAC, and a copy with neither collection nor scale."""
    item = pystac.Item(GRANULE, {"type": "Point", "coordinates": [0, 0]}, None, datetime(2020, 9, 29, tzinfo=UTC),
                       {"platform": "sentinel-2b"}, collection=collection)  # fmt: skip
    for name in ASSETS:
        item.add_asset(key if name == "Fmask" else name, pystac.Asset(f"/i/{name}.tif"))
    scene = Scene.from_item(item, S30)
    assert list(scene.bands) == list(S30.band_names)
    assert {kind: asset.href for kind, asset in scene.masks.items()} == {"hls_fmask": "/i/Fmask.tif"}
    with pytest.raises(SceneError, match="it is of sensor hls-s30, not hls-l30"):
        Scene.from_item(item, sensor("hls-l30"))
    again = pystac.Item.from_dict(scene.to_item().to_dict())
    assert Scene.from_item(again, S30) == scene
