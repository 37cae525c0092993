"""Where pixels come from: zones, the antimeridian, rotation, control points, and what lies around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geom import point
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from scipy.ndimage import map_coordinates, minimum_filter

from geossl.grid import Grid, Tile
from geossl.imagery.clouds import Quality
from geossl.imagery.scene import Asset
from geossl.imagery.warp import check_scene, read_tile, scene_geobox

from .conftest import MakeScene, MakeSensor, Write

GRID = Grid("EPSG:32622", 10, 256)
NODATA = -32768


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warp")


def ramps(height: int, width: int) -> NDArray[np.int16]:
    """(2, H, W), each pixel's own column and row in hundredths: what is read tells where it was read."""
    row, column = np.mgrid[:height, :width]
    return (100 * np.stack([column, row])).astype(np.int16)


def where(tile: Tile, crs: str, place: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of a raster at the middle of each pixel of a tile, by PROJ itself; no longitude below 0."""
    row, column = np.mgrid[: tile.shape[0], : tile.shape[1]] + 0.5
    x, y = tile.transform.a * column + tile.transform.c, tile.transform.e * row + tile.transform.f
    x, y = pyproj.Transformer.from_crs(tile.grid.crs, crs, always_xy=True).transform(x, y)
    back = ~place
    x = x % 360 if crs == "EPSG:4326" else x
    return back.a * x + back.b * y + back.c - 0.5, back.d * x + back.e * y + back.f - 0.5


@pytest.mark.parametrize(
    ("grid", "crs", "size"),
    [
        pytest.param(Grid("EPSG:32622", 10, 256, (200_000, 6_000_000)), "EPSG:32621", 10, id="neighbouring zone"),
        pytest.param(Grid("EPSG:32722", 10, 256, (200_000, 6_000_000)), "EPSG:32721", 10, id="southern zone"),
        pytest.param(Grid("EPSG:32622", 10, 256, (500_000, -400_000)), "EPSG:32722", 10, id="negative northings"),
        pytest.param(Grid("EPSG:32660", 100, 256, (826_000, 12_800)), "EPSG:4326", 1e-3, id="antimeridian, west"),
        pytest.param(Grid("EPSG:32601", 100, 256, (150_000, 12_800)), "EPSG:4326", 1e-3, id="antimeridian, east"),
        pytest.param(
            Grid("EPSG:32601", 100, 256, (150_000, 12_800)), "EPSG:32660", 100, id="zone across the antimeridian"
        ),
        pytest.param(Grid("EPSG:3035", 10, 256, (4_500_000, 3_210_000)), "EPSG:25832", 10, id="equal-area grid"),
    ],
)
@pytest.mark.parametrize("part", [0, 150])
def test_every_pixel_comes_from_its_own_place(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    grid: Grid,
    crs: str,
    size: float,
    part: int,
) -> None:
    """Of a raster that covers the tile, and of one that covers a part of it."""
    tile = grid[0, 0]
    middle = 128 * grid.resolution
    x, y = pyproj.Transformer.from_crs(grid.crs, crs, always_xy=True).transform(
        grid.origin[0] + middle, grid.origin[1] - middle
    )
    x = x % 360 if crs == "EPSG:4326" else x
    place = from_origin(round(x, 3) + (part - 160) * size, round(y, 3) + (160 - part) * size, size, size)
    path = write(tmp_path / "a.tif", ramps(320, 320), crs=crs, transform=place, nodata=-9999)
    pixels = read_tile(make_scene(Asset(path, 1), Asset(path, 2)), make_sensor("B1", "B2"), tile)
    assert pixels is not None
    column, row = where(tile, crs, place)
    seen = pixels.quality == 0
    inside = (column > 0) & (row > 0) & (column < 319) & (row < 319)
    assert inside.mean() > 0.2
    assert (seen >= inside).all()
    assert not (seen & ((column < -0.7) | (row < -0.7) | (column > 319.7) | (row > 319.7))).any()
    # GDAL interpolates places along a line to an eighth of a pixel
    off = [np.abs(band / 100 - at)[inside] for band, at in zip(pixels.image, (column, row), strict=True)]
    assert max(map(np.max, off)) < 0.14


@pytest.mark.parametrize("angle", [3, 20, 45, 160])
def test_a_rotated_scene_is_interpolated_and_not_blurred(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene, angle: float
) -> None:
    """Against SciPy's interpolation between the four pixels around each place."""
    raw = np.random.default_rng(angle).integers(1000, 9000, (300, 300)).astype(np.uint16)
    place = (
        Affine.translation(1280, -1280)
        @ Affine.rotation(angle)
        @ Affine.scale(10, -10)
        @ Affine.translation(-150, -150)
    )
    path = write(tmp_path / "a.tif", raw, transform=place, nodata=0)
    column, row = where(GRID[0, 0], GRID.crs, place)
    expected = map_coordinates(raw.astype(float), [row, column], order=1)
    pixels = read_tile(make_scene(path), make_sensor(), GRID[0, 0])
    assert pixels is not None
    inside = (column > 0) & (row > 0) & (column < 299) & (row < 299)
    assert inside.mean() > 0.5
    assert np.abs(pixels.image[0] - expected)[inside].max() <= 0.5001


def test_the_same_ground_is_the_same_on_any_tile(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene, noise: NDArray[np.uint16]
) -> None:
    place = from_origin(100, -100, 10, 10) @ Affine.rotation(-25)
    scene = make_scene(write(tmp_path / "a.tif", noise[0], transform=place, nodata=0))
    whole = read_tile(scene, make_sensor(), Grid("EPSG:32622", 10, 512)[0, 0], resampling="cubic")
    assert whole is not None
    for iy, ix in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = read_tile(scene, make_sensor(), GRID[ix, iy], resampling="cubic")
        window = whole.image[0, 256 * iy : 256 * iy + 256, 256 * ix : 256 * ix + 256]
        np.testing.assert_array_equal(NODATA if part is None else part.image[0], window)


@settings(max_examples=80, deadline=None)
@given(
    corner=st.tuples(st.floats(-900, 2500), st.floats(-900, 2500)),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    pixel=st.sampled_from([5.0, 10.0, 17.3, 20.0, 60.0]),
    turn=st.sampled_from([0.0, 12.0]),
    lost=st.floats(0, 1),
    dtype=st.sampled_from(["uint16", "int16", "float32"]),
    resampling=st.sampled_from(["nearest", "bilinear", "cubic", "average"]),
    seed=st.integers(0, 1000),
)
def test_no_data_never_bleeds_into_what_was_measured(
    folder: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    corner: Any,
    size: Any,
    pixel: Any,
    turn: Any,
    lost: Any,
    dtype: Any,
    resampling: Any,
    seed: Any,
) -> None:
    """Of ground that is 1234 wherever it was measured, every pixel is either 1234 or no-data."""
    rng = np.random.default_rng(seed)
    tagged = {"uint16": 65535, "int16": -9999, "float32": 7.5}[dtype]
    numbers = np.full((2, *size), 1234, dtype)
    holes = rng.random(numbers.shape) < lost
    numbers[holes] = np.where(rng.random(holes.sum()) < 0.5, np.nan, tagged) if dtype == "float32" else tagged
    place = Affine.translation(corner[0], -corner[1]) @ Affine.rotation(turn) @ Affine.scale(pixel, -pixel)
    path = write(folder / "holes.tif", numbers, nodata=tagged, transform=place)
    sensor = make_sensor("B1", "B2", dtype="float32" if dtype == "float32" else "int16")
    pixels = read_tile(make_scene(Asset(path, 1), Asset(path, 2)), sensor, GRID[0, 0], resampling=resampling)
    if pixels is None:
        return
    for band in pixels.image:
        assert set(np.unique(band)) <= {1234, NODATA}
    np.testing.assert_array_equal(pixels.quality, (pixels.image == NODATA).any(axis=0).astype(np.uint8))
    if not pixels.aligned and resampling != "average":  # what was measured all around is there
        column, row = where(GRID[0, 0], GRID.crs, place)
        reach = np.ceil(2 * max(1, 10 / pixel)) + 1
        around = minimum_filter(~holes.any(axis=0), int(2 * reach + 1), mode="constant")
        inside = (column > 0) & (row > 0) & (column < size[1] - 1) & (row < size[0] - 1)
        near = around[np.rint(row[inside]).astype(int), np.rint(column[inside]).astype(int)]
        assert (pixels.quality[inside][near] == 0).all()


@pytest.mark.parametrize("factor", [2, 3, 4, 6])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_average_is_the_mean_of_what_was_measured(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene, factor: int, dtype: str
) -> None:
    """Of pixels that fit into the grid's a whole number of times."""
    rng = np.random.default_rng(factor)
    fine = rng.integers(1, 9000, (256 * factor, 256 * factor)).astype(dtype)
    fine[rng.random(fine.shape) < 0.3] = 0
    fine[: 20 * factor, : 30 * factor] = 0
    path = write(tmp_path / "a.tif", fine, nodata=0, transform=from_origin(0, 0, 10 / factor, 10 / factor))
    pixels = read_tile(make_scene(path), make_sensor(dtype=dtype, nodata=0), GRID[0, 0], resampling="average")
    assert pixels is not None
    blocks = fine.reshape(256, factor, 256, factor).astype(float)
    count = (blocks > 0).sum(axis=(1, 3))
    mean = blocks.sum(axis=(1, 3)) / np.maximum(count, 1)
    np.testing.assert_allclose(pixels.image[0], mean, rtol=1e-6, atol=0.5 if dtype == "uint16" else 0)
    np.testing.assert_array_equal(pixels.quality > 0, count == 0)


def test_masks_are_nearest_however_bands_are_resampled(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene, noise: NDArray[np.uint16]
) -> None:
    """Cloud (8) beside snow (11) mixes to cirrus (10) when it is averaged, and no class lies between 0 and 3."""
    codes = np.array([3, 8, 11], np.uint8)[np.random.default_rng(1).integers(0, 3, (280, 280))]
    place = from_origin(-37, 41, 9.7, 9.7)
    bands = write(tmp_path / "a.tif", noise[0, :280], nodata=0, transform=place)
    mask = write(tmp_path / "scl.tif", codes, transform=place)
    seen = {}
    for resampling in ("nearest", "average", "cubic"):
        pixels = read_tile(
            make_scene(bands, masks={"scl": Asset(mask)}), make_sensor(), GRID[0, 0], resampling=resampling
        )
        assert pixels is not None
        seen[resampling] = pixels.quality.copy()
    column, row = where(GRID[0, 0], GRID.crs, place)
    flags = {3: Quality.SHADOW, 8: Quality.CLOUD, 11: Quality.SNOW}
    expected = np.vectorize(flags.__getitem__)(codes[np.rint(row).astype(int), np.rint(column).astype(int)])
    for quality in seen.values():
        assert (quality == expected).mean() > 0.9999  # a pixel's middle may fall on an edge


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while such files are written
def test_ground_control_points_locate_a_scene(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    """Points of a slightly curved surface; a pixel of the tile must come from where the surface says."""
    path = write(tmp_path / "gcps.tif", ramps(300, 280), transform=None, crs=None, nodata=-9999)

    def ground(column: Any, row: Any) -> tuple[Any, Any]:
        return 300 + 9 * column - 2 * row + 1e-3 * column * row, -200 - 2 * column - 9 * row + 1e-3 * row * row

    points = [GroundControlPoint(r, c, *ground(c, r)) for r in range(0, 301, 60) for c in range(0, 281, 70)]
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(32622))
    scene, sensor = make_scene(Asset(path, 1), Asset(path, 2)), make_sensor("B1", "B2")
    check_scene(scene, sensor)
    outline = scene_geobox(scene).extent
    pixels = read_tile(scene, sensor, GRID[0, 0])
    assert pixels is not None
    seen = pixels.quality == 0
    assert 0.3 < seen.mean() < 0.9
    column, row = pixels.image.astype(float) / 100 + 0.5
    x, y = ground(column, row)
    at_row, at_column = np.mgrid[:256, :256]
    inner = seen & (column > 2) & (row > 2) & (column < 278) & (row < 298)
    assert np.abs(x - 10 * (at_column + 0.5))[inner].max() < 2.5  # a quarter of a pixel
    assert np.abs(y + 10 * (at_row + 0.5))[inner].max() < 2.5
    assert all(outline.contains(point(*ground(c, r), outline.crs)) for r in (1, 299) for c in (1, 279))
    unsaid = write(tmp_path / "unsaid.tif", np.ones((300, 280), np.uint8), transform=None, crs=None)
    with rasterio.open(unsaid, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(32622))
    whole = read_tile(make_scene(unsaid), make_sensor(dtype="uint8", nodata=None), GRID[0, 0])
    assert whole is not None
    assert ((whole.quality == 0) == seen).mean() > 0.99
