"""Bands at their native resolution: stored as they were measured, read as one image, and as safe as any other."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # registers .rio
import xarray
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from zarr.core.sync import sync

from geossl import bands
from geossl.chips.cache import ChunkCache
from geossl.chips.index import build_index
from geossl.chips.reader import ChipReader
from geossl.cube import layout, statistics
from geossl.cube.check import check
from geossl.cube.chunks import get
from geossl.cube.composite import composite
from geossl.cube.ingest import ingest
from geossl.cube.migrate import migrate
from geossl.cube.overview import Overview
from geossl.cube.plan import plan
from geossl.cube.repair import repair
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings, IngestSettings
from geossl.cube.space import step_bytes, stored_share
from geossl.errors import StoreError
from geossl.grid import Grid, Tile
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Asset, Scene

from .conftest import digest

GRID = Grid("EPSG:32622", 10, 512, (499980.0, 4900020.0), bands="native")
SENSOR = bands.sensor("sentinel-2-l2a").subset(["B01", "B02", "B05", "B04", "B11", "B03"])
FINE, COARSE = [1, 3, 5], [0, 2, 4]
WEST, EAST = GRID[0, 0], GRID[1, 0]
SHAPE = (510, 1020)
"""Rows and columns of 10 m: whole pixels of 60 m, and two short of the tiles' edge."""


def pixels_of(number: int, gsd: float, band: int) -> NDArray[np.int16]:
    rows, columns = (int(side * 10 // gsd) for side in SHAPE)
    rng = np.random.default_rng((number, band))
    return rng.integers(100, 5000, (rows, columns), dtype=np.int16)


def make_scene(folder: Path, number: int, hole: bool = False, subfolder: str = "") -> Scene:
    """One file a band at 10, 20 and 60 m from the corner of the grid, and SCL at 20 m with a cloud of odd place.

    ``hole``: B05 (20 m) has no data in its first 33 rows, and nothing at all was measured on the western tile.
    """
    folder = folder / subfolder
    folder.mkdir(exist_ok=True, parents=True)

    def write(name: str, values: NDArray[Any], gsd: float) -> Asset:
        path = folder / f"{number}-{name}.tif"
        place = Affine(gsd, 0, GRID.origin[0], 0, -gsd, GRID.origin[1])
        nodata = -32768 if values.dtype == np.int16 else None
        with rasterio.open(
            path, "w", "GTiff", values.shape[1], values.shape[0], 1, GRID.crs, place, values.dtype, nodata
        ) as file:
            file.write(values, 1)
        return Asset(str(path))

    assets = {}
    for position, band in enumerate(SENSOR.bands):
        values = pixels_of(number, band.gsd, position)
        if hole:
            values[:, : int(5120 // band.gsd) + 1] = -32768
        if hole and band.name == "B05":
            values[:33] = -32768
        assets[band.name] = write(band.name, values, band.gsd)
    scl = np.full((255, 510), 4, np.uint8)
    scl[20 + number : 101, 77:131] = 9
    time = dt.datetime(2024, 1, 1, 13, 40, tzinfo=dt.UTC) + dt.timedelta(days=10 * number)
    outline = WEST.extent.to_crs("EPSG:4326").json
    return Scene(f"scene-{number}", SENSOR.name, time, outline, GRID.crs, assets, {"scl": write("scl", scl, 20)})


def read_in(cube: Cube, scenes: list[Scene], **settings: Any) -> list[str]:
    return ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(**settings)).ingested


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    """Three scenes; the one in the middle has holes."""
    return [make_scene(tmp_path_factory.mktemp("scenes"), number, hole=number == 1) for number in range(3)]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, scenes: list[Scene]) -> Cube:
    """To read from."""
    cube = Cube.create(str(tmp_path_factory.mktemp("full") / "cube"))
    read_in(cube, scenes)
    return cube


def expected(scene: Scene, tile: Tile) -> NDArray[np.int16]:
    """(C, 512, 512) by rasterio and NumPy alone: files at 10 and 20 m cut and repeated, 60 m put onto 20 m by GDAL."""
    image = np.full((len(SENSOR.bands), 512, 512), -32768, np.int16)
    for position, band in enumerate(SENSOR.bands):
        with rasterio.open(scene.bands[band.name].href) as file:
            gsd = 10 if band.gsd == 10 else 20
            place = Affine(gsd, 0, tile.bounds.left, 0, -gsd, tile.bounds.top)
            side = 5120 // gsd
            if band.gsd == gsd:
                window = rasterio.windows.from_bounds(*tile.bounds, transform=file.transform)
                values = file.read(1, window=window, boundless=True, fill_value=-32768)
            else:
                values = np.full((side, side), -32768, np.int16)
                reproject(file.read(1), values, src_transform=file.transform, src_crs=file.crs, src_nodata=-32768,
                          dst_transform=place, dst_crs=file.crs, dst_nodata=-32768,
                          resampling=Resampling.bilinear, tolerance=TOLERANCE)  # fmt: skip
        image[position] = values.repeat(gsd // 10, 0).repeat(gsd // 10, 1)
    return image


def step_of(cube: Cube, scene: Scene, tile: Tile) -> int:
    return cube.view().collection("s2").scene_ids(tile.id).index(scene.id)


def test_pixels_are_the_files(full: Cube, scenes: list[Scene]) -> None:
    collection = full.view().collection("s2")
    assert [group.bands for group in collection.groups] == [tuple(FINE), tuple(COARSE)]
    assert collection.scene_ids(WEST.id) == ["scene-0", "scene-2"]  # the middle one has nothing there
    assert collection.scene_ids(EAST.id) == ["scene-0", "scene-1", "scene-2"]
    for tile in (WEST, EAST):
        stored = full.view().session.store
        tens = zarr.open_array(stored, path=f"s2/{tile.id}/image", mode="r")
        twenties = zarr.open_array(stored, path=f"s2/{tile.id}/image_20m", mode="r")
        assert (tens.chunks, twenties.chunks) == ((1, 3, 256, 256), (1, 3, 128, 128))
        assert twenties.shape[1:] == (3, 256, 256)
        for scene in scenes:
            if scene.id not in collection.scene_ids(tile.id):
                continue
            step, image = step_of(full, scene, tile), expected(scene, tile)
            np.testing.assert_array_equal(tens[step], image[FINE])
            np.testing.assert_array_equal(twenties[step], image[COARSE, ::2, ::2])
            np.testing.assert_array_equal(collection.image(tile.id)[step], image)


def test_quality_is_of_all_bands_at_the_finest_resolution(full: Cube, scenes: list[Scene]) -> None:
    collection = full.view().collection("s2")
    for tile, scene in ((WEST, scenes[0]), (EAST, scenes[1])):
        quality = np.asarray(collection.quality(tile.id)[step_of(full, scene, tile)])
        lost = (expected(scene, tile) == -32768).any(axis=0)
        np.testing.assert_array_equal(quality & Quality.NODATA != 0, lost)
        assert 0.001 < lost.mean() < 0.5
    assert lost[65, 100]
    assert not lost[66, 100]  # 33 rows of 20 m
    quality = np.asarray(collection.quality(WEST.id)[0])
    cloud = np.zeros((512, 512), bool)
    cloud[40:202, 154:262] = True
    np.testing.assert_array_equal(quality & Quality.CLOUD != 0, cloud)


def test_xarray_sees_two_images_in_their_places(full: Cube) -> None:
    dataset = xarray.open_zarr(full.view().session.store, group=f"s2/{EAST.id}", consolidated=False, chunks=None)
    for name, tile, names in (
        ("image", EAST, ["B02", "B04", "B03"]),
        ("image_20m", EAST.coarser(2), ["B01", "B05", "B11"]),
    ):
        image = dataset[name]
        assert image.rio.crs.to_epsg() == 32622
        assert image.rio.transform() == image.rio.transform(recalc=True) == tile.transform
        assert image.rio.bounds() == EAST.bounds.bbox
        assert image.rio.shape == tile.shape
        assert image[image.dims[1]].values.tolist() == names
    sorted_ = full.view().collection("s2").open(EAST.id)
    assert np.isnan(sorted_.image_20m.isel(time=1).sel(band_20m="B05").values[:33]).all()
    assert sorted_.quality.rio.crs.to_epsg() == 32622


@pytest.mark.parametrize("size", [64, 200, 256, 300])
def test_chips_are_cut_from_the_assembled_image(full: Cube, tmp_path: Path, size: int) -> None:
    collection = full.view().collection("s2")
    index = build_index(collection, size, min_clear=0.0)
    rng = np.random.default_rng(size)
    inside = np.flatnonzero((index.row + size + 3 <= 512) & (index.col + size + 3 <= 512) | (size != 64))
    rows = rng.choice(inside, min(len(inside), 12), replace=False)
    # half a coarser pixel, and a whole one, from where chips usually begin
    odd = dataclasses.replace(index, row=index.row + (size == 64) * 3, col=index.col + (size == 64) * 2)
    images = {tile: np.asarray(collection.image(tile)[:]) for tile in index.tile_ids}
    reader = ChipReader(collection, ChunkCache(tmp_path))
    for _ in range(2):  # the second time out of the cache
        read = reader.read(odd, rows)
        for chip, row in enumerate(rows):
            y, x = int(odd.row[row]), int(odd.col[row])
            whole = images[odd.tile_ids[odd.tile[row]]][odd.step[row]]
            np.testing.assert_array_equal(read.image[chip], whole[:, y : y + size, x : x + size])
    # the flags of a tile are enough for what asks for nothing else
    np.testing.assert_allclose(
        reader.clear(index)[rows[0]],
        is_clear(reader.read(index, rows[:1]).quality).mean(),
        atol=1e-6,
    )


def test_statistics_are_of_the_image_that_readers_see(full: Cube) -> None:
    collection = full.view().collection("s2")
    found = statistics.count(collection).statistics()
    seen = []
    for tile in (WEST.id, EAST.id):
        clear = is_clear(np.asarray(collection.quality(tile)[:]))
        seen.append(np.moveaxis(np.asarray(collection.image(tile)[:]), 1, 0)[:, clear])
    values = np.concatenate(seen, axis=1).astype(np.float64)
    assert found.count == (values.shape[1],) * 6
    np.testing.assert_allclose(found.mean, values.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.p98, np.percentile(values, 98, axis=1), rtol=1e-12)


def test_composites_are_of_one_resolution(full: Cube, tmp_path: Path, scenes: list[Scene]) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    read_in(cube, scenes)
    name = composite(cube, "s2", CompositeSettings(months=12))
    made = cube.view().collection(name)
    assert (made.grid, made.sensor) == (GRID.plain, SENSOR)
    source = cube.view().collection("s2")
    stack = np.asarray(source.image(EAST.id)[:]).astype(np.float64)
    clear = is_clear(np.asarray(source.quality(EAST.id)[:]))
    stack[np.broadcast_to(~clear[:, None], stack.shape)] = np.nan
    with np.errstate(all="ignore"):
        median = np.full(stack.shape[1:], -32768.0)
        seen = clear.any(axis=0)
        median[:, seen] = np.rint(np.nanmedian(stack[:, :, seen], axis=0))
    np.testing.assert_array_equal(made.image(EAST.id)[0], median)
    np.testing.assert_array_equal(made.clear_count(EAST.id)[0], clear.sum(axis=0))
    assert check(cube).damage == []


def test_less_is_stored_and_as_much_as_is_said(full: Cube, scenes: list[Scene], tmp_path: Path) -> None:
    def stored(cube: Cube) -> int:
        return sum(path.stat().st_size for path in (Path(cube.uri) / "chunks").iterdir())

    one = Cube.create(str(tmp_path / "one"))
    report = ingest(one, scenes, SENSOR, GRID.plain, "s2", IngestSettings())
    collection = full.view().collection("s2")
    raw = sum(array.nbytes for tile in (WEST.id, EAST.id) for _, array in collection.image(tile).parts)
    raw += sum(collection.quality(tile).nbytes for tile in (WEST.id, EAST.id))
    assert raw == 5 * step_bytes(SENSOR, GRID) == 5 * 512 * 512 * (3 * 2 + 3 * 2 // 4 + 1) + 5 * 512 * 512 // 2
    assert report.bytes == 5 * step_bytes(SENSOR, GRID.plain) == 5 * 512 * 512 * (6 * 2 + 1)
    assert stored(full) < 0.7 * stored(one)
    share = stored_share(full.view(), "s2", [WEST, EAST])
    assert share is not None
    assert stored(full) == pytest.approx(share * raw, rel=0.15)
    planned = plan(str(tmp_path / "new"), scenes, SENSOR, GRID, "s2", IngestSettings(reserve=0))  # type: ignore[arg-type]
    assert planned.stored == pytest.approx(stored(full), rel=0.15)


def test_the_overview_of_a_scene_is_that_of_one_resolution(tmp_path: Path, scenes: list[Scene]) -> None:
    views: list[Overview] = []
    swir = SENSOR.subset(["B05", "B04", "B11", "B03"])  # no blue: red, green and near-infrared are of both groups
    for name, grid in (("native", GRID), ("one", GRID.plain)):
        cube = Cube.create(str(tmp_path / name))
        ingest(
            cube, scenes[:1], swir, grid, "s2", IngestSettings(resampling="nearest"), look=lambda _, v: views.append(v)
        )
    assert (views[0].every, views[0].image.shape[0]) == (views[1].every, 3)
    np.testing.assert_array_equal(views[0].quality, views[1].quality)
    np.testing.assert_array_equal(views[0].image, views[1].image)


def test_ingesting_again_does_nothing_and_other_files_replace(tmp_path: Path, scenes: list[Scene]) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    assert len(read_in(cube, scenes)) == 3
    before = cube.snapshot()
    assert read_in(cube, scenes) == []
    assert cube.snapshot() == before
    other = dataclasses.replace(make_scene(tmp_path, 5), id="scene-0")
    assert read_in(cube, [other]) == ["scene-0"]
    collection = cube.view().collection("s2")
    np.testing.assert_array_equal(collection.image(EAST.id)[0], expected(other, EAST))
    np.testing.assert_array_equal(cube.view(before).collection("s2").image(EAST.id)[0], expected(scenes[0], EAST))
    # a scene that has nothing on a tile any more leaves no-data in every group
    empty = dataclasses.replace(make_scene(tmp_path, 6, hole=True), id="scene-0")
    read_in(cube, [empty])
    assert (np.asarray(cube.view().collection("s2").image(WEST.id)[0]) == -32768).all()
    assert check(cube).damage == []


def test_killed_ingests_end_like_an_undisturbed_one(tmp_path: Path, scenes: list[Scene]) -> None:
    """With gaps to close: a scene that cannot be read, and one without data on a tile."""
    broken = make_scene(tmp_path, 8)
    path = Path(broken.bands["B11"].href)
    path.write_bytes(path.read_bytes()[:5000])
    several = [broken, *scenes, make_scene(tmp_path, 4)]
    (tmp_path / "job.pickle").write_bytes(pickle.dumps((several, SENSOR, GRID)))
    code = f"""if True:
        import pickle, warnings; warnings.simplefilter("ignore")
        from geossl.cube.ingest import ingest
        from geossl.cube.repository import Cube
        from geossl.cube.settings import IngestSettings
        scenes, sensor, grid = pickle.load(open({str(tmp_path / "job.pickle")!r}, "rb"))
        cube = Cube.open_or_create({str(tmp_path / "killed")!r})
        ingest(cube, scenes, sensor, grid, "s2", IngestSettings(wave=3),
               progress=lambda *step: print(*step, flush=True))"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "scenes 4 5\n":  # within the second wave
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    killed = Cube.open_or_create(str(tmp_path / "killed"))
    read_in(killed, several, wave=3)
    calm = Cube.create(str(tmp_path / "calm"))
    assert len(read_in(calm, several, wave=5)) == 4
    assert digest(killed.view()) == digest(calm.view())
    assert check(killed).damage == []


def test_a_flipped_bit_of_a_coarse_band_is_found_named_and_not_served(tmp_path: Path, scenes: list[Scene]) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    read_in(cube, scenes)
    sound = digest(cube.view())
    store = cube.view().session.store
    key = f"s2/{EAST.id}/image_20m/c/2/0/1/0"
    content = sync(get(store, key))
    (path,) = [file for file in (Path(cube.uri) / "chunks").iterdir() if file.read_bytes() == content]
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 4
    path.write_bytes(broken)
    (damage,) = check(Cube.open_unchecked(cube.uri)).damage
    assert (damage.array, damage.tile, damage.step, damage.window) == ("image_20m", EAST.id, 2, (1, 0))
    assert damage.scene == "scene-2"
    collection = Cube.open(cube.uri).view().collection("s2")
    index = build_index(collection, 256, min_clear=0.0)
    hit = (index.tile == index.tile_ids.index(EAST.id)) & (index.step == 2) & (index.row == 256) & (index.col == 0)
    reader = ChipReader(collection)
    with pytest.raises(StoreError, match=rf"{key} is damaged"):
        reader.read(index, np.flatnonzero(hit))
    reader.read(index, np.flatnonzero(~hit))
    with pytest.raises(ValueError, match="checksum"):
        collection.image(EAST.id)[2]
    assert repair(cube, check(cube)) == ["scene scene-2 of s2 will be read again"]
    assert read_in(cube, scenes) == ["scene-2"]
    assert check(cube).damage == []
    changed = {path for path, value in digest(cube.view()).items() if value != sound[path]}
    assert changed == {f"s2/{tile.id}/revision" for tile in (WEST, EAST)} | {"s2/scenes/revision"}


def test_a_group_that_lost_a_step_is_found(tmp_path: Path, scenes: list[Scene]) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    read_in(cube, scenes)
    session = cube.repository.writable_session("main")
    array = zarr.open_array(session.store, path=f"s2/{WEST.id}/image_20m")
    array.resize((1, *array.shape[1:]))
    session.commit("bad")
    (damage,) = check(cube).damage
    assert "image 2, image_20m 1, quality 2" in damage.problem


def test_a_collection_keeps_its_groups(full: Cube, scenes: list[Scene]) -> None:
    with pytest.raises(StoreError, match=r"bands='native'(.|\n)*bands='one'"):
        ingest(full, scenes, SENSOR, GRID.plain, "s2", IngestSettings())
    other = dataclasses.replace(SENSOR, bands=tuple(dataclasses.replace(band, gsd=10) for band in SENSOR.bands))
    with pytest.raises(StoreError, match="60, 10, 20, 10, 20, 10 m, the sensor has 10, 10"):
        ingest(full, scenes, other, GRID, "s2", IngestSettings())


def test_a_cube_of_format_2_needs_nothing_but_the_number(tmp_path: Path, scenes: list[Scene]) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    ingest(cube, scenes[:1], SENSOR, GRID.plain, "s2", IngestSettings())
    wanted = digest(cube.view())
    session = cube.repository.writable_session("main")
    zarr.open_group(session.store).attrs[layout.FORMAT_KEY] = 2
    session.commit("as it was")
    with pytest.raises(StoreError, match=r"has format 2(.|\n)*geossl cube migrate"):
        ingest(cube, scenes, SENSOR, GRID, "native", IngestSettings())
    assert check(cube).damage == []
    commits = len(cube.log())
    assert migrate(cube) == ["the cube has format 3 now; it had 2"]
    assert len(cube.log()) == commits + 1
    assert migrate(cube) == []
    assert digest(cube.view()) == wanted
