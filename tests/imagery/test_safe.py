from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, Polygon, box, shape

from geossl.bands import sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.safe import read_safe
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
    assert read_safe(safe(offsets=""), S2).shift == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"level": "1C"}, r"SAFE is a Level-1C product, the sensor is sentinel-2-l2a"),
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
