"""Empty tiles, many at once: Zarr makes one, and the others are copies of its keys.

A tile has more than a dozen arrays, each of which costs Zarr a millisecond or more. All that differs between the
tiles of a collection is where they lie.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import zarr
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from geossl.bands import Sensor
from geossl.cube import layout
from geossl.cube.chunks import encoded, get, put
from geossl.cube.groups import band_groups
from geossl.grid import Grid, Tile

Keys = dict[str, bytes]
"""Key below a tile's group → metadata document or chunk."""

_DOCUMENT = "zarr.json"


def create_pixels(collection: zarr.Group, lengths: Mapping[Tile, int], sensor: Sensor) -> None:
    """The large arrays of tiles that are not there yet, of that many steps; see :func:`layout.create_pixels`."""
    _write(collection, {tile: _lengthened(_blank(sensor, tile.grid).pixels, n) for tile, n in lengths.items()})


def create_records(collection: zarr.Group, tiles: Iterable[Tile], sensor: Sensor) -> None:
    """The small arrays of tiles that have large ones, without a step; see :func:`layout.create_records`."""
    _write(collection, {tile: _moved(_blank(sensor, tile.grid).records, sensor, tile) for tile in tiles})


@dataclass(frozen=True)
class _Blank:
    """The keys of an empty tile."""

    pixels: Keys
    records: Keys


@functools.lru_cache(maxsize=4)
def _blank(sensor: Sensor, grid: Grid) -> _Blank:
    collection = zarr.create_group(MemoryStore())
    layout.create_pixels(collection, grid[0, 0], sensor)
    pixels = _keys(collection, grid[0, 0])
    layout.create_records(collection, grid[0, 0], sensor)
    return _Blank(pixels, {key: data for key, data in _keys(collection, grid[0, 0]).items() if key not in pixels})


def _keys(collection: zarr.Group, tile: Tile) -> Keys:
    store, prefix = collection.store, f"{tile.id}/"

    async def read() -> Keys:
        found = {}
        async for key in store.list_prefix(prefix):
            data = await get(store, key)
            assert data is not None
            found[key.removeprefix(prefix)] = data
        return found

    return sync(read())


def _lengthened(keys: Keys, steps: int) -> Keys:
    """With so many steps in every array; a group's own document stays."""
    changed = dict(keys)
    for key, data in keys.items():
        document = json.loads(data)
        if document["node_type"] == "array":
            document["shape"][0] = steps
            changed[key] = json.dumps(document).encode()
    return changed


def _moved(keys: Keys, sensor: Sensor, tile: Tile) -> Keys:
    """With another tile's place."""
    changed = dict(keys)
    for part in band_groups(sensor, tile.grid):
        here = tile.coarser(part.factor)
        for name, values in layout.coordinates(here).items():
            changed[f"{part.name(name)}/c/0"] = encoded(values)
        document = f"{part.name('spatial_ref')}/{_DOCUMENT}"
        reference = json.loads(keys[document])
        reference["attributes"]["GeoTransform"] = layout.geotransform(here)
        changed[document] = json.dumps(reference).encode()
    return changed


def _write(collection: zarr.Group, tiles: Mapping[Tile, Keys]) -> None:
    store, path = collection.store, collection.path

    async def write() -> None:
        for tile, keys in tiles.items():
            # a chunk needs its array, an array its group
            for key in sorted(keys, key=lambda key: (not key.endswith(_DOCUMENT), key.count("/"))):
                await put(store, f"{path}/{tile.id}/{key}", keys[key])

    sync(write())
