"""Tiles that are copied from one that Zarr made, and rows that are written without Zarr, are what Zarr would make."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from geossl.bands import sensor
from geossl.cube import blank, layout
from geossl.cube.chunks import StoredArray
from geossl.cube.columns import lengthen, read_columns, read_shapes, write_rows
from geossl.cube.repository import Cube
from geossl.errors import StoreError
from geossl.grid import Grid

SENSOR = sensor("sentinel-2-l2a").subset(["B02", "B05", "B03"])
GRID = Grid("EPSG:32622", 10, 512, (300000.0, 9700000.0))
NATIVE = Grid("EPSG:32622", 10, 512, (300000.0, 9700000.0), bands="native")


def keys(group: zarr.Group) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        found = {}
        async for key in group.store.list_prefix(f"{group.path}/"):
            buffer = await group.store.get(key, default_buffer_prototype())
            assert buffer is not None
            found[key.removeprefix(group.path)] = buffer.to_bytes()
        return found

    return asyncio.run(read())


def collection(name: str, grid: Grid) -> zarr.Group:
    return layout.create_collection(zarr.create_group(MemoryStore()), name, SENSOR, grid)


@pytest.mark.parametrize("grid", [GRID, NATIVE])
def test_a_copied_tile_is_the_tile_that_zarr_makes(grid: Grid) -> None:
    tile = grid[3, -2]
    slow, fast = collection("slow", grid), collection("fast", grid)
    expected = layout.create_tile(slow, tile, SENSOR)
    layout.resize_pixels(expected, 5)
    blank.create_pixels(fast, {tile: 5, grid[4, -2]: 1}, SENSOR)
    blank.create_records(fast, [tile], SENSOR)
    for name, array in expected.arrays():
        copied = fast[f"{tile.id}/{name}"]
        assert isinstance(copied, zarr.Array)
        assert copied.metadata.to_dict() == array.metadata.to_dict()
        np.testing.assert_array_equal(copied[...], array[...])
    assert keys(fast[tile.id]).keys() == keys(expected).keys()  # type: ignore[arg-type]
    assert fast[f"{grid[4, -2].id}/image"].shape[0] == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("grid", [GRID, NATIVE])
def test_chunks_are_known_without_asking_the_store(grid: Grid) -> None:
    group = layout.create_tile(collection("s2", grid), grid[0, 0], SENSOR)
    known = layout.pixel_chunks(group.store, "s2", grid[0, 0], SENSOR)
    assert known.keys() == set(layout.pixel_arrays(group))
    for name, guessed in known.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        told = StoredArray.of(array)
        assert (guessed.path, guessed.chunk_shape, guessed.dtype) == (told.path, told.chunk_shape, told.dtype)
        assert guessed.fill == told.fill


def test_rows_are_what_zarr_reads_across_chunks_of_rows(tmp_path: Path) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    known = {0: "a", 1: "ü" * 40, 1023: "last", 1024: "next", 2500: "far"}
    later = {1: "b", 2501: "new"}

    def write(session: object) -> str:
        root = zarr.open_group(session.store)  # type: ignore[attr-defined]
        group = layout.create_tile(layout.create_collection(root, "s2", SENSOR, GRID), GRID[0, 0], SENSOR)
        for rows in (known, later):
            values = {
                index: {"scene_id": text, "revision": index, "chunk_clear": np.full((2, 2), index, np.float32)}
                for index, text in rows.items()
            }
            write_rows(group.store, {group.path: values})
        lengthen(group.store, {f"{group.path}/time": 7})
        lengthen(group.store, {f"{group.path}/time": 3})
        return "rows"

    cube.transact(write)
    group = cube.view().root["s2/x0y0"]
    assert isinstance(group, zarr.Group)
    expected = np.full(2502, "", object)
    for index, text in (known | later).items():
        expected[index] = text
    np.testing.assert_array_equal(group["scene_id"][:], expected)  # type: ignore[index]
    revision = np.asarray(group["revision"][:])  # type: ignore[index]
    assert set(np.flatnonzero(revision)) == {*known, *later} - {0}
    np.testing.assert_array_equal(np.asarray(group["chunk_clear"])[2500], np.full((2, 2), 2500))
    store = cube.view().session.store
    np.testing.assert_array_equal(read_columns(store, ["s2/x0y0/scene_id"])[0], expected)
    assert read_shapes(store, ["s2/x0y0/time", "s2/x0y0/chunk_clear"]) == [(7,), (2502, 2, 2)]
    with pytest.raises(StoreError, match="s2/x0y0/none"):
        read_columns(store, ["s2/x0y0/none"])
