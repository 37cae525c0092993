"""How long it takes to open a cube of 1,000 tiles and to list its million chips."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from geossl.chips.index import build_index
from geossl.cube import layout
from geossl.cube.repository import Cube

from .harness import Sides, bench
from .pixels import GRID, SENSOR

TILES = 1000
STEPS = 16
SIZE = 128


@bench(
    "index-million",
    unit="s",
    reference="the same records through zarr.open_array, 16 threads",
    better="lower",
)
def index_million(folder: Path) -> Iterator[Sides]:
    """Open the cube and build the index, as a process does that has read nothing before."""
    uri = str(folder / "cube")
    write_records(uri, TILES)
    yield Sides(ours=lambda: _ours(uri), reference=lambda: _through_zarr(uri))


def write_records(uri: str, tiles: int) -> None:
    """A cube of so many tiles and :data:`STEPS` scenes that holds records and no pixels."""

    def fill(session: Any) -> str:
        collection = layout.create_collection(zarr.open_group(session.store, mode="r+"), SENSOR.name, SENSOR, GRID)
        # one tile by the layout's own hand; the others are copies of its keys, which is ten times as fast
        memory = MemoryStore()
        one = zarr.create_group(memory, path="one")
        tile = layout.create_tile(one, GRID[0, 0], SENSOR)
        layout.resize_pixels(tile, STEPS)
        layout.write_records(one, {tile.basename: dict(enumerate(map(_step, range(STEPS))))})

        async def copy() -> None:
            keys = sorted([key async for key in memory.list_prefix(f"{tile.path}/")], key=_metadata_first)
            for number in range(tiles):
                place = f"{collection.path}/{GRID[48 + number % 40, -900 + number // 40].id}"
                for key in keys:
                    value = await memory.get(key, default_buffer_prototype())
                    await session.store.set(place + key.removeprefix(tile.path), value)

        sync(copy())
        return "benchmark"

    Cube.create(uri).transact(fill)


def _metadata_first(key: str) -> tuple[bool, str]:
    return not key.endswith("zarr.json"), key


def _step(number: int) -> layout.Step:
    windows = (GRID.tile_size // 256,) * 2
    clear = 1 - 0.4 * np.random.default_rng(number).random(windows, np.float32)
    return layout.Step(f"scene-{number}", np.datetime64("2024-01-01") + 5 * number, f"{number:032x}", clear)


def _ours(uri: str) -> float:
    start = time.perf_counter()
    index = build_index(Cube.open(uri).view().collection(SENSOR.name), SIZE)
    seconds = time.perf_counter() - start
    assert len(index) == TILES * STEPS * (GRID.tile_size // SIZE) ** 2
    return seconds


def _through_zarr(uri: str) -> float:
    start = time.perf_counter()
    collection = Cube.open(uri).view().collection(SENSOR.name)
    with ThreadPoolExecutor(16) as threads:
        read = list(
            threads.map(lambda tile: (collection.chunk_clear(tile), collection.times(tile)), collection.tile_ids)
        )
    seconds = time.perf_counter() - start
    assert len(read) == TILES
    return seconds
