from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin

from geossl.errors import SceneError
from geossl.imagery.raster import MAX_PIXELS, footprint, geobox, open_raster

FIELD = np.arange(12, dtype=np.uint16).reshape(3, 4)


def refuse(href: str) -> str:
    """Why opening is refused."""
    with pytest.raises(SceneError) as caught, open_raster(href, "scene s, band B1") as dataset:
        geobox(dataset, "scene s, band B1")
    assert caught.value.what.startswith("scene s, band B1: ")
    assert "\n" not in caught.value.what
    return caught.value.what


@pytest.mark.parametrize(
    "href",
    [
        "/vsizip/imagery.zip/a.tif",
        "/vsicurl/http://example.org/a.tif",
        "zip:///imagery.zip!a.tif",
        "zip+https://example.org/imagery.zip!a.tif",
        "file://host/imagery/a.tif",
        "https://example.org/imagery.zip!a.tif",
    ],
)
def test_addresses_that_are_not_read(href: str) -> None:
    assert "is not a kind of address that is read" in refuse(href)


def test_a_file_address_is_a_path(tmp_path: Path, write: Callable[..., str]) -> None:
    path = Path(write(tmp_path / "a b.tif", FIELD))
    with open_raster(path.as_uri(), "scene s") as dataset:
        assert (dataset.read(1) == FIELD).all()


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    contents = {"empty.tif": b"", "page.tif": b"\n<!DOCTYPE html>", "noise.tif": b"II*\0" + bytes(40), "a.jp2": b"jP"}
    reasons = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        reasons[name] = refuse(str(tmp_path / name))
    assert reasons["empty.tif"].endswith("empty.tif is empty")
    assert reasons["page.tif"].endswith("page.tif is a web page or XML, not a raster")
    assert "is not a readable GTiff file" in reasons["noise.tif"]
    assert "is not a readable JP2OpenJPEG file" in reasons["a.jp2"]
    assert refuse(str(tmp_path / "gone.tif")).endswith("gone.tif does not exist")


def test_a_vrt_is_refused_even_under_another_name(tmp_path: Path, write: Callable[..., str]) -> None:
    secret = write(tmp_path / "secret.tif", FIELD)
    vrt = f"""<VRTDataset rasterXSize="4" rasterYSize="3"><GeoTransform>0,1,0,0,0,-1</GeoTransform><VRTRasterBand dataType="UInt16" band="1">
        <SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    for name in ("a.vrt", "a.tif", "a.jp2"):
        (tmp_path / name).write_text(vrt)
    with rasterio.open(tmp_path / "a.vrt") as dataset:  # GDAL would follow it
        assert (dataset.read(1) == FIELD).all()
    assert "is not a kind of file that is read" in refuse(str(tmp_path / "a.vrt"))
    assert "XML, not a raster" in refuse(str(tmp_path / "a.tif"))
    assert "XML, not a raster" in refuse(str(tmp_path / "a.jp2"))


def test_files_beside_the_named_one_are_not_read(tmp_path: Path, write: Callable[..., str]) -> None:
    path = write(tmp_path / "a.tif", FIELD)
    Path(path + ".aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n500\n600\n")
    Path(path + ".msk").write_bytes(b"not a mask")
    with open_raster(path, "scene s") as dataset:
        assert dataset.crs.to_epsg() == 32622
        assert dataset.transform == from_origin(0, 20_000, 10, 10)
        assert dataset.files == [path]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while such files are written
def test_where_pixels_are_must_be_said(tmp_path: Path, write: Callable[..., str]) -> None:
    points = [GroundControlPoint(r, c, -51 + c, 1 - r, 0) for r in (0, 3) for c in (0, 4)]
    gcps = write(tmp_path / "gcps.tif", FIELD, transform=None, crs=None)
    with rasterio.open(gcps, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    assert "gcps.tif, which is located by ground control points only, has 4 of them: too few" in refuse(gcps)
    assert refuse(write(tmp_path / "crs.tif", FIELD, crs=None)).endswith("crs.tif has no coordinate system")
    assert refuse(write(tmp_path / "geo.tif", FIELD, transform=None)).endswith("geo.tif has no geotransform")


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1000
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32622", "sparse_ok": True}
    place = {"transform": from_origin(0, 0, 10, 10)}
    with rasterio.open(tmp_path / "wide.tif", "w", width=side, height=side, tiled=True, **profile, **place):
        pass
    assert "pixels, too many to read" in refuse(str(tmp_path / "wide.tif"))
    block = {"tiled": True, "blockxsize": 20_000, "blockysize": 20_000, "compress": "deflate"}
    with rasterio.open(tmp_path / "block.tif", "w", width=25_000, height=25_000, **block, **profile, **place):
        pass
    assert "blocks of 20000 × 20000 pixels, too large" in refuse(str(tmp_path / "block.tif"))


def test_footprint_is_in_degrees_and_cut_at_the_antimeridian(tmp_path: Path, write: Callable[..., str]) -> None:
    west = write(tmp_path / "west.tif", FIELD, transform=from_origin(500_000, 100_000, 10_000, 10_000))
    with open_raster(west, "scene s") as dataset:
        polygon = footprint(geobox(dataset, "scene s"), "scene s")
    assert polygon["type"] == "Polygon"
    corner = rasterio.warp.transform("EPSG:32622", "EPSG:4326", [500_000], [100_000])
    assert tuple(polygon["coordinates"][0][0]) == pytest.approx((corner[0][0], corner[1][0]), abs=1e-6)
    across = write(tmp_path / "across.tif", FIELD, crs="EPSG:32660", transform=from_origin(800_000, 0, 20_000, 20_000))
    with open_raster(across, "scene s") as dataset:
        assert footprint(geobox(dataset, "scene s"), "scene s")["type"] == "MultiPolygon"


@pytest.mark.parametrize("crs", ['LOCAL_CS["a building site",UNIT["metre",1]]', "IAU_2015:30100"])
def test_places_that_are_not_on_earth_are_refused(tmp_path: Path, write: Callable[..., str], crs: str) -> None:
    with open_raster(write(tmp_path / "a.tif", FIELD, crs=crs), "scene s") as dataset:
        box = geobox(dataset, "scene s")
    with pytest.raises(SceneError, match="scene s: its coordinate system cannot be placed on Earth"):
        footprint(box, "scene s")


def test_a_rotated_raster_keeps_its_rotation(tmp_path: Path, write: Callable[..., str]) -> None:
    rotated = from_origin(0, 20_000, 10, 10) @ Affine.rotation(30)
    with open_raster(write(tmp_path / "rotated.tif", FIELD, transform=rotated), "scene s") as dataset:
        assert geobox(dataset, "scene s").affine.almost_equals(rotated)
