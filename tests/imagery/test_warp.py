"""Reading tiles: what is copied, and what is warped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin
from rasterio.warp import reproject, transform

from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Asset
from geossl.imagery.warp import check_scene, read_tile, scene_geobox

from .conftest import MakeScene, MakeSensor, Write

GRID = Grid("EPSG:32622", 10, 256)
NODATA = -32768


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warp")


@settings(max_examples=60, deadline=None)
@given(
    column=st.integers(-300, 300),
    row=st.integers(-300, 300),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    blocks=st.sampled_from([{}, {"tiled": True, "blockxsize": 64, "blockysize": 32, "compress": "deflate"}]),
)
def test_a_scene_on_the_grid_is_copied_exactly(
    folder: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    column: Any,
    row: Any,
    height: Any,
    width: Any,
    blocks: Any,
) -> None:
    """Against a plain NumPy picture of the world in which tile (0, 0) is a window."""
    numbers = np.random.default_rng(width).integers(0, 9, (height, width)).astype(np.int16)
    world = np.full((900, 900), NODATA, np.int16)
    world[row + 300 : row + 300 + height, column + 300 : column + 300 + width] = np.where(numbers == 0, NODATA, numbers)
    expected = world[300:556, 300:556]
    place = from_origin(10 * column, -10 * row, 10, 10)
    path = write(folder / "any.tif", numbers, nodata=0, transform=place, **blocks)
    pixels = read_tile(make_scene(path), make_sensor(), GRID[0, 0])
    if (expected == NODATA).all():
        assert pixels is None
    else:
        assert pixels is not None
        assert pixels.aligned
        np.testing.assert_array_equal(pixels.image[0], expected)
        np.testing.assert_array_equal(pixels.quality, np.where(expected == NODATA, Quality.NODATA, 0))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:32622", from_origin(3, 2004, 10, 10)),  # off the grid by a fraction of a pixel
        ("EPSG:32622", from_origin(100, 2000, 20, 20)),
        ("EPSG:4326", from_origin(-55.486, 0.018, 9e-5, 9e-5)),
        ("EPSG:32621", from_origin(668_000, 2000, 10, 10)),
        ("EPSG:32622", from_origin(600, 2400, 10, 10) @ Affine.rotation(20)),
    ],
)
def test_any_other_scene_is_resampled_as_gdal_does(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
    crs: Any,
    place: Any,
    resampling: Any,
) -> None:
    noise[0, 50:90, 30:200] = 0
    path = write(tmp_path / "a.tif", noise[0], crs=crs, transform=place, nodata=0)
    tile = GRID[0, -1]
    pixels = read_tile(make_scene(path), make_sensor(dtype="uint16", nodata=0), tile, resampling=resampling)
    oracle = np.zeros(tile.shape, np.uint16)
    # GDAL takes what is rotated for coarser than it is, unless told, and blurs it
    size = {} if place.is_rectilinear else {"XSCALE": 1, "YSCALE": 1}
    reproject(noise[0], oracle, src_transform=place, src_crs=crs, src_nodata=0, dst_nodata=0,
              dst_transform=tile.transform, dst_crs="EPSG:32622", resampling=Resampling[resampling], tolerance=TOLERANCE, **size)  # fmt: skip
    assert 5_000 < (oracle > 0).sum() < oracle.size
    assert pixels is not None
    assert not pixels.aligned
    np.testing.assert_array_equal(pixels.image[0], oracle)
    np.testing.assert_array_equal(pixels.quality == Quality.NODATA, oracle == 0)


def test_a_coarser_band_is_brought_onto_the_grid(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    fine = write(tmp_path / "fine.tif", noise[0, :240, :240], nodata=0)
    coarse = write(tmp_path / "coarse.tif", noise[1, :40, :40], nodata=0, transform=from_origin(0, 20_000, 60, 60))
    scene, sensor = make_scene(fine, coarse), make_sensor("B1", "B2")
    tile = Grid("EPSG:32622", 10, 256, (0, 20_000))[0, 0]
    check_scene(scene, sensor)
    assert scene_geobox(scene).resolution.x == 10
    pixels = read_tile(scene, sensor, tile, resampling="nearest")
    assert pixels is not None
    assert not pixels.aligned
    np.testing.assert_array_equal(pixels.image[0, :240, :240], noise[0, :240, :240])
    np.testing.assert_array_equal(pixels.image[1, :240, :240], noise[1, :40, :40].repeat(6, 0).repeat(6, 1))
    assert (pixels.quality[240:] == Quality.NODATA).all()
    assert (pixels.quality[:, 240:] == Quality.NODATA).all()
    assert (pixels.quality[:240, :240] == 0).all()


def test_one_band_without_data_makes_the_pixel_no_data(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    noise[0, 10, 20], noise[1, 30, 40] = 0, 0
    path = write(tmp_path / "a.tif", noise, nodata=0, transform=from_origin(0, 0, 10, 10))
    pixels = read_tile(make_scene(Asset(path, 1), Asset(path, 2)), make_sensor("B1", "B2"), GRID[0, 0])
    assert pixels is not None
    assert set(zip(*np.nonzero(pixels.quality), strict=True)) == {(10, 20), (30, 40)}
    assert pixels.image[:, 10, 20].tolist() == [NODATA, noise[1, 10, 20]]
    assert pixels.image[:, 30, 40].tolist() == [noise[0, 30, 40], NODATA]


@pytest.mark.parametrize(
    ("kind", "codes"), [("scl", [0, 3, 8]), ("qa_pixel", [1, 1 << 4, 1 << 3]), ("fmask", [255, 2, 4])]
)
def test_the_mask_is_nearest_and_says_what_is_cloudy(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
    kind: Any,
    codes: Any,
) -> None:
    place = from_origin(0, 0, 10, 10)
    bands = write(tmp_path / "a.tif", noise[0, :256, :256], nodata=0, transform=place)
    mask = np.array(codes, np.uint16)[np.random.default_rng(0).integers(0, 3, (128, 128))]
    quality = write(tmp_path / "mask.tif", mask, transform=from_origin(0, 0, 20, 20))
    scene = make_scene(bands, masks={kind: Asset(quality)})
    check_scene(scene, make_sensor())
    pixels = read_tile(scene, make_sensor(), GRID[0, 0])
    assert pixels is not None
    flags = {codes[0]: Quality.NODATA, codes[1]: Quality.SHADOW, codes[2]: Quality.CLOUD}
    expected = np.vectorize(flags.__getitem__)(mask).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(pixels.quality, expected)
    assert pixels.aligned  # the mask does not count


def test_buffers_are_reused(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    path = write(tmp_path / "a.tif", noise[0], nodata=0, transform=from_origin(0, 0, 10, 10))
    scene, sensor = make_scene(path), make_sensor()
    first = read_tile(scene, sensor, GRID[0, 0])
    assert first is not None
    second = read_tile(scene, sensor, GRID[1, 1], out=first)
    assert second is first
    fresh = read_tile(scene, sensor, GRID[1, 1])
    assert fresh is not None
    np.testing.assert_array_equal(second.image, fresh.image)
    np.testing.assert_array_equal(second.quality, fresh.quality)


def test_a_tile_far_away_has_nothing(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    sensor = make_sensor()
    near = write(tmp_path / "near.tif", noise[0])
    degrees = write(tmp_path / "degrees.tif", noise[0], crs="EPSG:4326", transform=from_origin(-51, 0.5, 1e-3, 1e-3))
    for path in (near, degrees):
        assert read_tile(make_scene(path), sensor, GRID[3000, 3000]) is None
        assert read_tile(make_scene(path), sensor, Grid("EPSG:32650", 10, 256)[100, 100]) is None
    assert read_tile(make_scene(near, source_nodata=int(noise[0, 0, 0])), sensor, GRID[0, -8]) is not None


def test_a_raster_in_degrees_that_ends_at_the_antimeridian(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    place = from_origin(179.7, 0.3, 1e-3, 1e-3)  # to 180° and to the equator
    path = write(tmp_path / "a.tif", np.ones((300, 300), np.uint16), crs="EPSG:4326", transform=place, nodata=0)
    tile = Grid("EPSG:32660", 100, 256, (826_000, 12_800))[0, 0]  # two thirds of it lie beyond
    pixels = read_tile(make_scene(path), make_sensor(), tile)
    assert pixels is not None
    x, y = tile.bounds.left + 100 * (np.arange(256) + 0.5), tile.bounds.top - 100 * (np.arange(256) + 0.5)
    longitude, latitude = transform(tile.grid.crs, "EPSG:4326", np.tile(x, 256), y.repeat(256))
    inside = ((np.array(longitude) > 0) & (np.array(latitude) > 0)).reshape(256, 256)
    assert (inside == (pixels.quality == 0)).mean() > 0.995


def test_a_pixel_is_where_it_is_exactly(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    """A scene of the neighbouring zone whose numbers are its columns and rows: bilinear is then exact, and what
    comes out is the place in the scene."""
    tile = Grid("EPSG:32622", 10, 1024)[70, -100]
    there = CRS("EPSG:32622").transformer_to_crs(CRS("EPSG:32623"))
    left, top = there(tile.bounds.left, tile.bounds.top)
    transform = from_origin(left - 3000, top + 3000, 10, 10)
    rows, columns = np.indices((1700, 1700), np.float32)
    paths = [
        write(tmp_path / f"{name}.tif", values, crs="EPSG:32623", transform=transform)
        for name, values in (("rows", rows), ("columns", columns))
    ]
    sensor = make_sensor("B1", "B2", dtype="float32", nodata=None)
    pixels = read_tile(make_scene(*paths), sensor, tile)
    assert pixels is not None
    x, y = there(*(tile.transform @ (np.indices(tile.shape)[::-1].reshape(2, -1) + 0.5)))
    column, row = ~transform @ (x, y)
    for found, expected in zip(pixels.image, (row - 0.5, column - 0.5), strict=True):
        seen = np.isfinite(found.ravel())
        assert seen.mean() > 0.9
        assert np.abs(found.ravel() - expected)[seen].max() < 1.5 * TOLERANCE
