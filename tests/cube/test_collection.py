"""What others see of a cube: xarray, rioxarray, pickles."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # registers .rio
import xarray
import zarr

from geossl import bands
from geossl.bands import Radiometry, Sensor
from geossl.cube import layout
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError
from geossl.grid import Grid
from geossl.imagery.folder import FolderSettings
from geossl.imagery.sources import open_source

from .conftest import GRID, SENSOR, SceneMaker, pixels_of


def test_xarray_sees_time_order_nodata_and_place(cube: Cube, make_scene: SceneMaker) -> None:
    hole = (slice(0, 9), slice(0, 8))
    ingest(cube, [make_scene(2), make_scene(0, nodata=hole), make_scene(1)], SENSOR, GRID, "s2", IngestSettings())
    collection = cube.view().collection("s2")
    tile = collection.tile(collection.tile_ids[0])
    dataset = collection.open(tile.id)
    assert dataset.scene_id.values.tolist() == ["scene-000", "scene-001", "scene-002"]
    assert dataset.time.values[1] == np.datetime64("2024-01-11T13:40")
    expected = pixels_of(0, 256, 512)[1, :, :256].astype(float)
    expected[hole] = np.nan
    np.testing.assert_array_equal(dataset.image.sel(band="B08").isel(time=0), expected)
    assert dataset.rio.crs.to_epsg() == dataset.image.rio.crs.to_epsg() == 32622
    assert dataset.rio.transform() == dataset.rio.transform(recalc=True) == tile.transform
    assert dataset.rio.bounds() == tile.bounds.bbox
    with pytest.raises(StoreError, match="x0y0"):
        collection.open("x0y0")


def test_equal_times_are_two_steps(cube: Cube, make_scene: SceneMaker) -> None:
    ingest(cube, [make_scene(0), make_scene(1, day=0)], SENSOR, GRID, "s2", IngestSettings())
    collection = cube.view().collection("s2")
    dataset = collection.open(collection.tile_ids[0])
    assert dataset.scene_id.values.tolist() == ["scene-000", "scene-001"]


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", -9999.5), ("uint16", 0), ("uint8", None)])
def test_nodata_of_any_sensor(cube: Cube, dtype: str, nodata: float | None) -> None:
    sensor = Sensor("own", SENSOR.bands, Radiometry(dtype, nodata=nodata))
    tile = GRID[0, 0]
    image = np.full((2, 256, 256), 3, dtype)
    if nodata is not None:
        image[:, 0] = nodata

    def write(session: object) -> str:
        root = zarr.open_group(session.store)  # type: ignore[attr-defined]
        group = layout.create_tile(layout.create_collection(root, "own", sensor, GRID), tile, sensor)
        step = layout.Step("a", np.datetime64("2024-01-01"), "x", np.ones((1, 1), np.float32))
        layout.append_step(group, step, image, np.zeros((256, 256), np.uint8))
        return "one step"

    cube.transact(write)
    collection = cube.view().collection("own")
    assert collection.sensor == sensor
    seen = collection.open(tile.id).image.isel(time=0).values
    np.testing.assert_array_equal(np.isnan(seen[:, 0]), nodata is not None)
    np.testing.assert_array_equal(seen[:, 1:], 3)


def test_a_pickled_collection_reads_the_same(tiny_cube: Cube) -> None:
    view = tiny_cube.view()
    ours = view.collection("sentinel-2-l2a")
    theirs = pickle.loads(pickle.dumps(ours))
    assert (theirs.name, theirs.snapshot, theirs.tile_ids) == (ours.name, ours.snapshot, ours.tile_ids)
    assert (theirs.sensor, theirs.statistics, theirs.cube_id) == (ours.sensor, ours.statistics, view.id)
    tile_id = ours.tile_ids[1]
    np.testing.assert_array_equal(theirs.image(tile_id)[2], ours.image(tile_id)[2])
    labels = pickle.loads(pickle.dumps(view.labels("landcover")))
    np.testing.assert_array_equal(labels.read(tile_id), view.labels("landcover").read(tile_id))


def test_zion_in_xarray_is_zion_in_rasterio(cube: Cube, shared_data: Path) -> None:
    """A real scene, as anyone reads it: plain xarray on the store, without geossl."""
    folder = shared_data / "zion-landsat8-nlcd"
    sensor = bands.sensor("landsat-8-l1").subset(["blue", "green", "red", "nir08"])
    source = FolderSettings(
        path=str(folder),
        pattern="{scene}_{band}.tif",
        date="2015-08-18T18:00:00Z",  # type: ignore[arg-type]  # pydantic parses it
        bands={"B2": "b2", "B3": "b3", "B4": "b4", "B5": "b5"},
    )
    grid = Grid("EPSG:32612", 30, 512, origin=(15, 15))
    report = ingest(cube, open_source(source, folder).scenes(sensor), sensor, grid, "zion", IngestSettings())
    assert (len(report.ingested), report.saturated) == (1, 0)
    view = cube.view()
    covered = 0
    for tile_id in view.collection("zion").tile_ids:
        dataset = xarray.open_zarr(view.session.store, group=f"zion/{tile_id}", consolidated=False)
        assert dataset.rio.crs.to_epsg() == 32612
        box, image = dataset.rio.bounds(), dataset.image.values
        for position, name in enumerate(("b2", "b3", "b4", "b5")):
            with rasterio.open(folder / f"landsat_{name}.tif") as file:
                window = rasterio.windows.from_bounds(*box, file.transform).round_offsets().round_lengths()
                read = file.read(1, window=window, boundless=True, masked=True).filled(0)
            assert dataset.band.values[position] == sensor.band_names[position]
            np.testing.assert_array_equal(np.nan_to_num(image[0, position]), read)
            covered += int(np.isfinite(image[0, position]).sum())
    assert covered > 4 * 1_000_000
