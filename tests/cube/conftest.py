"""Generated scenes: GeoTIFFs on a small grid, whose every number is known."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from distributed import Client
from numpy.typing import NDArray

from geossl import bands
from geossl.bands import Sensor
from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.repository import Cube, View
from geossl.grid import Grid
from geossl.imagery.scene import Asset, Scene

GRID = Grid("EPSG:32622", 10, 256)
SENSOR = bands.sensor("sentinel-2-l2a").subset(("red", "nir"))
CORNER = (97, -2000)
"""Tile at the north-west of every generated scene."""

SceneMaker = Callable[..., Scene]


@pytest.fixture
def grid() -> Grid:
    return GRID


@pytest.fixture
def sensor() -> Sensor:
    return SENSOR


@pytest.fixture
def cube(tmp_path: Path) -> Cube:
    return Cube.create(str(tmp_path / "cube"))


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """Two worker processes, for all tests that need any."""
    with dask_client(ClusterSettings(workers=2)) as client:
        yield client


@pytest.fixture
def make_scene(tmp_path: Path) -> SceneMaker:
    return lambda *args, **kwargs: write_scene(tmp_path / "scenes", *args, **kwargs)


def pixels_of(number: int, rows: int, columns: int) -> NDArray[np.int16]:
    """(2, rows, columns) numbers that tell scene, band and place."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 5000, (2, rows, columns), dtype=np.int16)


def write_scene(
    folder: Path,
    number: int,
    tiles: tuple[int, int] = (2, 1),
    *,
    name: str | None = None,
    image: NDArray[np.int16] | None = None,
    nodata: tuple[slice, slice] | None = None,
    cloud: tuple[slice, slice] | None = None,
    day: int | None = None,
    subfolder: str = "",
) -> Scene:
    """A scene that lies on the grid and covers ``tiles`` (columns, rows) of it from :data:`CORNER`."""
    folder = folder / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows = tiles[0] * GRID.tile_size, tiles[1] * GRID.tile_size
    image = pixels_of(number, rows, columns) if image is None else image.copy()
    if nodata is not None:
        image[:, *nodata] = -32768
    scl = np.full((rows, columns), 4, np.uint8)
    if cloud is not None:
        scl[cloud] = 9
    name = name or f"scene-{number:03}"
    corner = GRID[CORNER]
    profile = {
        "driver": "GTiff",
        "width": columns,
        "height": rows,
        "crs": GRID.crs,
        "transform": corner.transform,
        "tiled": True,
        "compress": "deflate",
    }
    path = folder / f"{name}.tif"
    with rasterio.open(path, "w", count=2, dtype="int16", nodata=-32768, **profile) as file:
        file.write(image)
    mask = folder / f"{name}-scl.tif"
    with rasterio.open(mask, "w", count=1, dtype="uint8", **profile) as file:
        file.write(scl, 1)
    outline = corner.extent.to_crs("EPSG:4326").json
    time = dt.datetime(2024, 1, 1, 13, 40, tzinfo=dt.UTC) + dt.timedelta(days=10 * number if day is None else day)
    return Scene(
        name,
        SENSOR.name,
        time,
        outline,
        GRID.crs,
        {"B04": Asset(str(path), 1), "B08": Asset(str(path), 2)},
        {"scl": Asset(str(mask))},
    )


def digest(view: View) -> dict[str, str]:
    """Path → checksum of values and attributes, of every group and array but the cube's own random id."""

    def walk(group: zarr.Group) -> Iterator[tuple[str, bytes]]:
        attributes = {key: value for key, value in group.attrs.asdict().items() if key != "geossl:id"}
        yield group.path, repr(attributes).encode()
        for _, array in group.arrays():
            values = np.asarray(array[...])
            content = values.tobytes() if values.dtype.kind in "iuf" else repr(values.tolist()).encode()
            yield array.path, repr((array.shape, array.attrs.asdict())).encode() + content
        for _, child in group.groups():
            yield from walk(child)

    return {path: hashlib.blake2b(content, digest_size=8).hexdigest() for path, content in walk(view.root)}
