"""Room on the disk of a local cube: measured before a wave, and said plainly when it is gone."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import icechunk
import numpy as np
from pydantic import ByteSize
from zarr.core.sync import sync

from geossl.bands import Sensor
from geossl.cube import layout
from geossl.cube.arrays import subarray, subgroup
from geossl.cube.groups import band_groups
from geossl.cube.repository import Cube, View
from geossl.cube.storage import local_folder
from geossl.errors import StoreError
from geossl.grid import Grid, Tile

_LOOKED_AT = 8
"""Steps whose stored size is looked up, to learn how well the pixels compress."""

_MARGIN = 1.05
"""Room asked for beyond what the pixels need: records, manifests, and scenes that compress less."""

_GONE = {
    "No space left on device": ("is full", "free disk"),
    "Disk quota exceeded": ("is full: the disk quota is used up", "free disk, or raise the quota"),
    "Read-only file system": ("is read-only", "mount it for writing, or name another store"),
    "Permission denied": ("may not be written", "ask for the right to write there, or name another store"),
}


@dataclass
class Room:
    """Sees to it that an ingest stops before the reserve of free disk is touched."""

    cube: Cube
    reserve: int
    """Bytes of the cube's disk that stay free; object stores have no such limit."""
    _share: float = 1.0
    """Stored bytes for each byte of pixels; nothing compresses until it has been seen to."""

    def require(self, collection: str, sensor: Sensor, grid: Grid, tiles: list[Tile]) -> None:
        """See whether one more step on each of the tiles leaves the reserve alone.

        Raises
        ------
        StoreError
            It does not; says by how much.
        """
        free = free_bytes(self.cube.uri)
        if free is None or not tiles:
            return
        self._share = stored_share(self.cube.view(), collection, tiles) or self._share
        need = int(len(tiles) * step_bytes(sensor, grid) * self._share * _MARGIN)
        if need + self.reserve > free:
            raise StoreError(
                f"the disk of {self.cube.uri} has {human(free)} free, {human(self.reserve)} of it in reserve, and the "
                f"next wave ({len(tiles)} tiles) needs about {human(need)}: {human(need + self.reserve - free)} missing",
                "free disk or move the store to a larger one (or lower ingest.wave or ingest.reserve), "
                "then run the same command again: all that was committed is kept",
            )


def free_bytes(uri: str) -> int | None:
    """Free bytes on the disk of a local address; None for object stores."""
    folder = local_folder(uri)
    if folder is None:
        return None
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def step_bytes(sensor: Sensor, grid: Grid) -> int:
    """Uncompressed bytes of one scene on one tile: all bands, and quality."""
    numbers = sum(len(group.bands) * (grid.tile_size // group.factor) ** 2 for group in band_groups(sensor, grid))
    return numbers * np.dtype(sensor.radiometry.dtype).itemsize + grid.tile_size**2


def stored_share(view: View, collection: str, tiles: Iterable[Tile]) -> float | None:
    """Stored bytes for each byte of pixels, over the newest steps of tiles; None where none of them is there."""
    root = view.root
    if collection not in root:
        return None
    group = subgroup(root, collection)
    there = [tile.id for tile in dict.fromkeys(tiles) if tile.id in group]
    stored = raw = 0
    for tile_id in there[:: max(1, len(there) // _LOOKED_AT)]:
        last = layout.step_count(group, tile_id) - 1
        for name in layout.pixel_arrays(subgroup(group, tile_id)):
            array = subarray(group, f"{tile_id}/{name}")
            raw += array.nbytes // array.shape[0]
            grid = [range(-(-size // chunk)) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)]
            for window in np.ndindex(*map(len, grid)):
                key = array.metadata.encode_chunk_key((last, *window))
                with contextlib.suppress(FileNotFoundError):  # pure no-data has no chunk
                    stored += sync(array.store.getsize(f"{array.path}/{key}"))
    return stored / raw if raw else None


@contextlib.contextmanager
def plain_errors(uri: str) -> Iterator[None]:
    """Turn what a full or read-only disk makes a store raise into a StoreError."""
    try:
        yield
    except (icechunk.IcechunkError, OSError) as error:
        for sign, (state, remedy) in _GONE.items():
            if sign in str(error):
                raise StoreError(
                    f"the disk of {uri} {state}",
                    f"{remedy}, then run the same command again: what was committed is kept",
                ) from error
        raise


def human(size: float) -> str:
    """1.5GB"""
    return ByteSize(size).human_readable(decimal=True)
