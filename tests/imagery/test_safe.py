from __future__ import annotations

import json
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
from shapely.geometry import MultiPolygon, Polygon, box, shape

from geossl.bands import sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.safe import read_safe
from geossl.imagery.scene import Scene
from geossl.imagery.warp import check_scene, read_tile

NAME = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454"
S2 = sensor("sentinel-2-l2a").subset(["B02", "B05"])

PRODUCT = """<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://psd/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2022-10-05T11:54:11.024Z</PRODUCT_START_TIME>
<PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE></Product_Info>
<X><BOA_QUANTIFICATION_VALUE unit="none">{steps}</BOA_QUANTIFICATION_VALUE>{offsets}</X></n1:General_Info>
<EXT_POS_LIST>53 -9 53 -7 52 -7 53 -9 </EXT_POS_LIST>
<Cloud_Coverage_Assessment>44.25</Cloud_Coverage_Assessment></n1:Level-2A_User_Product>"""
OFFSETS = '<BOA_ADD_OFFSET band_id="0">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET>'


@pytest.fixture
def safe(tmp_path: Path, write: Callable[..., str]) -> Callable[..., Path]:
    """A product of 48 × 48 pixels at 10 m whose band B02 holds 0, 1 … 2303, with its levels as asked for."""

    def make(level: str = "2A", steps: int = 10_000, offsets: str = OFFSETS) -> Path:
        folder = tmp_path / f"{NAME}.SAFE"
        images = folder / "GRANULE/L2A_T29UNU/IMG_DATA"
        numbers = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
        for band, gsd in (("B02", 10), ("B02", 20), ("B05", 20), ("B05", 60), ("SCL", 20), ("SCL", 60), ("TCI", 10)):
            side = 480 // gsd
            pixels = np.full((side, side), 4, np.uint8) if band == "SCL" else numbers[:side, :side]
            path = images / f"R{gsd}m" / f"T29UNU_20221005T115411_{band}_{gsd}m.jp2"
            write(path, pixels, driver="JP2OpenJPEG", reversible="YES", quality="100", crs="EPSG:32629",
                  transform=from_origin(499_980, 5_900_040, gsd, gsd))  # fmt: skip
        (folder / "MTD_MSIL2A.xml").write_text(PRODUCT.format(level=level, steps=steps, offsets=offsets))
        (images.parent / "MTD_TL.xml").write_text("<a><HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE></a>")
        return folder

    return make


L1C_NAME = "S2B_MSIL1C_20240105T115411_N0510_R023_T29UNU_20240105T164454"
L1C_PRODUCT = """<?xml version="1.0"?><n1:Level-1C_User_Product xmlns:n1="https://psd/User_Product_Level-1C.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2024-01-05T11:54:11.024Z</PRODUCT_START_TIME>
<PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>
{offsets}</Product_Image_Characteristics></n1:General_Info>
<EXT_POS_LIST>53 -9 53 -7 52 -7 53 -9 </EXT_POS_LIST></n1:Level-1C_User_Product>"""
EACH_BAND = "".join(f'<RADIO_ADD_OFFSET band_id="{number}">-1000</RADIO_ADD_OFFSET>' for number in range(13))


@pytest.fixture
def l1c(tmp_path: Path, write: Callable[..., str]) -> Callable[..., Path]:
    """A Level-1C product of 480 × 480 m: one image a band at its native resolution, and a picture."""

    def make(
        baseline: str = "05.10", offsets: str = f"<Radiometric_Offset_List>{EACH_BAND}</Radiometric_Offset_List>"
    ) -> Path:
        folder = tmp_path / f"{L1C_NAME}.SAFE"
        images = folder / "GRANULE/L1C_T29UNU_A012345_20240105T115411/IMG_DATA"
        for number, band in enumerate(sensor("sentinel-2-l1c").bands):
            side = 480 // int(band.gsd)
            pixels = np.arange(side * side, dtype=np.uint16).reshape(side, side) + 500 * number
            write(images / f"T29UNU_20240105T115411_{band.name}.jp2", pixels, driver="JP2OpenJPEG", reversible="YES",
                  quality="100", crs="EPSG:32629", transform=from_origin(499_980, 5_900_040, band.gsd, band.gsd))  # fmt: skip
        write(images / "T29UNU_20240105T115411_TCI.jp2", np.zeros((48, 48), np.uint8), driver="JP2OpenJPEG")
        (folder / "MTD_MSIL1C.xml").write_text(L1C_PRODUCT.format(baseline=baseline, offsets=offsets))
        (images.parent / "MTD_TL.xml").write_text("<a><HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE></a>")
        return folder

    return make


@pytest.mark.parametrize(("baseline", "shift"), [("05.10", -1000), ("02.06", 0)])
def test_level_1c_before_and_after_its_offset(l1c: Callable[..., Path], baseline: Any, shift: Any) -> None:
    """Since baseline 04.00 each of 13 bands states its RADIO_ADD_OFFSET; before it none does."""
    s = sensor("sentinel-2-l1c")
    scene = read_safe(l1c(baseline) if shift else l1c(baseline, offsets=""), s)
    assert (scene.id, scene.shift, scene.masks) == (L1C_NAME, shift, {})
    assert scene.properties == {"s2:processing_baseline": baseline}
    assert {name: Path(asset.href).name for name, asset in scene.bands.items()} == {
        name: f"T29UNU_20240105T115411_{name}.jp2" for name in s.band_names
    }
    check_scene(scene, s)
    pixels = read_tile(scene, s, Grid("EPSG:32629", 10, 256, (499_980, 5_900_040))[0, 0], resampling="nearest")
    assert pixels is not None
    for number, (band, stored) in enumerate(zip(s.bands, pixels.image, strict=True)):
        side, factor = 480 // int(band.gsd), int(band.gsd) // 10
        raw = np.arange(side * side).reshape(side, side) + 500 * number
        expected = np.where(raw == 0, -32768, raw + shift).repeat(factor, axis=0).repeat(factor, axis=1)
        np.testing.assert_array_equal(stored[:48, :48], expected, err_msg=band.name)
        assert (stored[48:] == -32768).all()


def test_level_1c_bands_must_agree_on_their_offset(l1c: Callable[..., Path]) -> None:
    folder = l1c(offsets=EACH_BAND.replace("-1000", "-500", 1))
    with pytest.raises(SceneError, match=r"its bands have different offsets: \[-1000, -500\]"):
        read_safe(folder, sensor("sentinel-2-l1c"))


def test_a_product_says_what_its_scene_is(safe: Callable[..., Path]) -> None:
    scene = read_safe(safe(), S2)
    assert (scene.id, scene.crs, scene.shift, scene.source_nodata) == (NAME, "EPSG:32629", -1000, 0)
    assert scene.time == datetime(2022, 10, 5, 11, 54, 11, 24_000, tzinfo=UTC)
    assert shape(scene.footprint).equals(Polygon([(-9, 53), (-7, 53), (-7, 52)]))
    assert scene.properties == {"s2:processing_baseline": "04.00", "eo:cloud_cover": 44.25}
    assert [Path(asset.href).name[-11:] for asset in scene.bands.values()] == ["B02_10m.jp2", "B05_20m.jp2"]
    assert scene.masks["scl"].href.endswith("SCL_20m.jp2")


def test_a_footprint_across_the_antimeridian_is_cut(safe: Callable[..., Path]) -> None:
    folder = safe()
    product = (folder / "MTD_MSIL2A.xml").read_text()
    west = "53 179 53 -179 52 -179 52 179 53 179"
    (folder / "MTD_MSIL2A.xml").write_text(product.replace("53 -9 53 -7 52 -7 53 -9", west))
    parts = MultiPolygon([box(179, 52, 180, 53), box(-180, 52, -179, 53)])
    assert shape(read_safe(folder, S2).footprint).equals(parts)


def test_without_fine_bands_the_coarse_mask_is_taken(safe: Callable[..., Path]) -> None:
    folder = safe()
    for path in (*folder.glob("**/R10m/*"), *folder.glob("**/R20m/*_B*")):
        path.unlink()
    scene = read_safe(folder, S2.subset(["B05"]))
    assert scene.masks["scl"].href.endswith("SCL_60m.jp2")


def test_numbers_are_harmonised_exactly(safe: Callable[..., Path]) -> None:
    scene = read_safe(safe(), S2)
    check_scene(scene, S2)
    pixels = read_tile(scene, S2, Grid("EPSG:32629", 10, 256, (499_980, 5_900_040))[0, 0], resampling="nearest")
    assert pixels is not None
    raw = np.arange(48 * 48).reshape(48, 48)
    assert raw[31, 12] == 1500
    assert pixels.image[0, 31, 12] == 500
    assert S2.radiometry.to_physical(pixels.image)[0, 31, 12] == pytest.approx(0.05)
    np.testing.assert_array_equal(pixels.image[0, :48, :48], np.where(raw == 0, -32768, raw - 1000))
    np.testing.assert_array_equal(pixels.quality[:48, :48] == 0, (raw > 0) & (pixels.image[1, :48, :48] > -32768))


def test_a_product_without_offset_is_not_shifted(safe: Callable[..., Path]) -> None:
    """Level-2A before baseline 04.00: integers as they are, no-data still 0."""
    scene = read_safe(safe(offsets=""), S2)
    assert (scene.shift, scene.source_nodata) == (0, 0)
    pixels = read_tile(scene, S2, Grid("EPSG:32629", 10, 256, (499_980, 5_900_040))[0, 0], resampling="nearest")
    assert pixels is not None
    raw = np.arange(48 * 48).reshape(48, 48)
    np.testing.assert_array_equal(pixels.image[0, :48, :48], np.where(raw == 0, -32768, raw))


def test_a_real_product_of_baseline_04_00(shared_data: Path) -> None:
    """All eleven bands that are there, each from the finest image of its own."""
    (folder,) = (shared_data / "s2-safe-t29unu").glob("*.SAFE")
    s = sensor("sentinel-2-l2a").subset([name for name in sensor("sentinel-2-l2a").band_names if name != "B08"])
    scene = read_safe(folder, s)
    assert (scene.id, scene.crs, scene.shift) == (folder.name.removesuffix(".SAFE"), "EPSG:32629", -1000)
    assert scene.time == datetime(2022, 10, 5, 11, 54, 11, 24_000, tzinfo=UTC)
    assert [Path(asset.href).name for asset in scene.bands.values()] == [
        f"T29UNU_20221005T115411_{name}_60m.jp2" for name in s.band_names
    ]
    assert scene.masks["scl"].href.endswith("_SCL_60m.jp2")
    assert scene.properties["s2:processing_baseline"] == "04.00"
    with rasterio.open(scene.bands["B02"].href) as dataset:
        raster = box(*transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds))
    footprint = shape(scene.footprint)
    assert raster.buffer(0.01).contains(footprint)
    assert 0.5 < footprint.area / raster.area < 0.7  # the swath's edge runs through the tile
    assert Scene.from_item(pystac.Item.from_dict(json.loads(json.dumps(scene.to_item().to_dict()))), s) == scene


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"level": "1C"}, r"SAFE is a Level-1C product, the sensor is sentinel-2-l2a"),
        ({"steps": "many"}, "the metadata hold no number or time: .*many"),
        ({"steps": 1000}, r"a step is 1/1000, for sentinel-2-l2a 0.0001"),
        ({"offsets": OFFSETS.replace("-1000", "0", 1)}, r"its bands have different offsets: \[-1000, 0\]"),
    ],
)
def test_a_product_that_does_not_suit_the_sensor_is_refused(
    safe: Callable[..., Path], changes: Any, reason: Any
) -> None:
    with pytest.raises(SceneError, match=reason):
        read_safe(safe(**changes), S2)


def test_an_incomplete_product_is_refused(safe: Callable[..., Path]) -> None:
    folder = safe()
    with pytest.raises(SceneError, match=r"has no image of band B03 \(there are: B02, B05, SCL\)"):
        read_safe(folder, sensor("sentinel-2-l2a").subset(["B02", "B03"]))
    (folder / "MTD_MSIL2A.xml").write_text("<half")
    with pytest.raises(SceneError, match="is not XML"):
        read_safe(folder, S2)
    (folder / "MTD_MSIL2A.xml").write_text("<empty/>")
    with pytest.raises(SceneError, match="the metadata has no PROCESSING_LEVEL"):
        read_safe(folder, S2)
    (folder / "MTD_MSIL2A.xml").unlink()
    with pytest.raises(SceneError, match=r"has no file MTD_MSIL\*\.xml"):
        read_safe(folder, S2)
