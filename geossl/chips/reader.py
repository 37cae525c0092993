"""Batches of chips out of the cube, into buffers that are used again.

A batch is planned by chunks: each chunk that it touches is fetched and decoded once, however many
chips lie in it, and threads work on different chunks. What is in the chunk cache is a plain file;
the rest is fetched from the store with many requests in flight.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.chips.cache import ChunkCache
from geossl.chips.damage import Damage
from geossl.chips.index import ChipIndex
from geossl.cube.chunks import StoredArray
from geossl.cube.collection import Collection
from geossl.cube.groups import BandGroup, place
from geossl.errors import StoreError
from geossl.grid import CHUNK
from geossl.imagery.clouds import Quality, is_clear

IN_FLIGHT = 32
"""Most chunks of one batch that are asked of the store at the same time."""

_BATCHES = 4
"""Most batches that ask the store for chunks at the same time."""

_FLAGS_AT_ONCE = 2048
"""Chips whose quality flags are held in memory together."""


@dataclass(frozen=True)
class ChipBuffers:
    """Pixels of a batch whose rows have any shape (…): ``(B,)``, or ``(B, 2)`` for pairs."""

    image: NDArray[Any]
    """(…, C, S, S) stored numbers."""
    quality: NDArray[np.uint8]
    """(…, S, S) flags of :class:`geossl.imagery.clouds.Quality`."""


@dataclass(frozen=True)
class _Part:
    """An array that holds a part of what is wanted, or all of it."""

    array: StoredArray
    group: BandGroup | None = None
    """Which of the bands; None: all, so that a chunk is laid out as its target is."""

    def key(self, step: int, window: tuple[int, int]) -> str:
        """Where the chunk of a window at one step lies in the store."""
        return self.array.key(step, *(0,) * (len(self.array.chunk_shape) - 3), *window)

    def place(self, chunk: NDArray[Any], rows: slice, columns: slice, out: NDArray[Any]) -> None:
        """Copy these rows and columns (of the grid's pixels in the window) of a decoded chunk."""
        if self.group is None:
            out[...] = chunk[..., rows, columns]
        else:
            place(self.group, chunk, rows, columns, out)


@dataclass(frozen=True)
class _TileChunks:
    """What reading a tile needs to know, looked up once."""

    parts: dict[str, list[_Part]]
    """Of ``image`` and ``quality``."""
    versions: tuple[str, ...]
    """Scene and revision of every step."""


@dataclass(frozen=True)
class _Job:
    """One chunk window, and where its pixels go: (chip, rows and columns of the chip, of the window)."""

    tile: _TileChunks
    step: int
    window: tuple[int, int]
    places: list[tuple[int, tuple[slice, slice], tuple[slice, slice]]]

    def parts(self, targets: _Targets) -> list[tuple[str, _Part]]:
        """The arrays that hold what is wanted, each with the name of its target."""
        return [(name, part) for name in targets for part in self.tile.parts[name]]

    def hide(self, targets: _Targets) -> None:
        """Show nothing where its pixels would go."""
        for name, part in self.parts(targets):
            for chip, to, _ in self.places:
                targets[name][chip][..., *to] = Quality.NODATA if name == "quality" else part.array.fill


_Targets = dict[str, NDArray[Any]]
"""``image`` or ``quality`` → (N, …, S, S), where the pixels of N chips go."""


class ChipReader:
    """Reads the pixels of chips.

    Parameters
    ----------
    collection:
        Where the chips of the index lie.
    cache:
        Keeps compressed chunks on local disk; without it every epoch asks the store.
    threads:
        How many chunks are decoded at the same time; by default one a processor, at most 8.
    bad_chunks:
        How many chunks may be damaged or gone before reading stops. Each is reported once, with its
        address, and its pixels count as not seen.
    """

    def __init__(
        self,
        collection: Collection,
        cache: ChunkCache | None = None,
        threads: int | None = None,
        *,
        bad_chunks: int = 0,
    ) -> None:
        self.collection = collection
        self.cache = cache
        self._damage = Damage(bad_chunks)
        self._cube = collection.cube_id
        self._threads = ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "geossl-decode")
        # their event loops never meet one of the caller's (a notebook has one); one for each batch that is under way
        self._fetchers = ThreadPoolExecutor(_BATCHES, "geossl-fetch")
        self._scratch = threading.local()
        self._tile = functools.lru_cache(maxsize=4096)(self._look_up)

    def buffers(self, shape: tuple[int, ...], size: int) -> ChipBuffers:
        """Uninitialised buffers for rows of that shape and chips of ``size`` pixels."""
        sensor = self.collection.sensor
        image = np.empty((*shape, len(sensor.bands), size, size), sensor.radiometry.dtype)
        return ChipBuffers(image, np.empty((*shape, size, size), np.uint8))

    def read(self, index: ChipIndex, rows: NDArray[np.integer[Any]], out: ChipBuffers | None = None) -> ChipBuffers:
        """Read these rows of the index, of any shape (…), into ``out`` (C-contiguous) or new buffers.

        Raises
        ------
        StoreError
            A chunk is damaged or gone, and no more are borne with; the message names it.
        """
        if out is None:
            out = self.buffers(rows.shape, index.size)
        image = out.image.reshape(-1, *out.image.shape[-3:])
        quality = out.quality.reshape(-1, *out.quality.shape[-2:])
        self._read(index, rows.ravel(), {"image": image, "quality": quality})
        return out

    def clear(self, index: ChipIndex) -> NDArray[np.float32]:
        """(N,) clear share of each chip itself, where the index knows only that of whole chunks.

        Reads quality flags, and only of chunks that are neither all clear nor all unclear.
        """
        share = index.clear.copy()
        mixed = np.flatnonzero((share > 0) & (share < 1))
        for rows in np.array_split(mixed, -(-len(mixed) // _FLAGS_AT_ONCE) or 1):
            quality = np.empty((len(rows), index.size, index.size), np.uint8)
            self._read(index, rows, {"quality": quality})
            share[rows] = is_clear(quality).mean(axis=(1, 2))
        return share

    def _read(self, index: ChipIndex, rows: NDArray[np.integer[Any]], targets: _Targets) -> None:
        jobs = self._plan(index, rows)
        if self.cache is not None:
            done = list(self._threads.map(lambda job: self._from_cache(job, targets), jobs))
            jobs = [job for job, found in zip(jobs, done, strict=True) if not found]
        if jobs:
            self._fetchers.submit(asyncio.run, self._from_store(jobs, targets)).result()

    def _plan(self, index: ChipIndex, rows: NDArray[np.integer[Any]]) -> list[_Job]:
        places = defaultdict(list)
        columns = (index.tile, index.step, index.row, index.col)
        for chip, (tile, step, row, col) in enumerate(zip(*(c[rows].tolist() for c in columns), strict=True)):
            for cy, chip_rows, chunk_rows in _pieces(row, index.size):
                for cx, chip_cols, chunk_cols in _pieces(col, index.size):
                    places[tile, step, cy, cx].append((chip, (chip_rows, chip_cols), (chunk_rows, chunk_cols)))
        return [
            _Job(self._tile(index.tile_ids[tile]), step, (cy, cx), where)
            for (tile, step, cy, cx), where in places.items()
        ]

    def _look_up(self, tile_id: str) -> _TileChunks:
        scenes, revisions = self.collection.scene_ids(tile_id), self.collection.revisions(tile_id)
        image = self.collection.image(tile_id).parts
        images = [_Part(StoredArray.of(array), group if len(image) > 1 else None) for group, array in image]
        return _TileChunks(
            {"image": images, "quality": [_Part(StoredArray.of(self.collection.quality(tile_id)))]},
            tuple(f"{scene}@{revision}" for scene, revision in zip(scenes, revisions, strict=True)),
        )

    def _cache_key(self, job: _Job, part: _Part) -> str:
        where = [self._cube, part.array.path, job.tile.versions[job.step], *map(str, job.window)]
        return "/".join(where)

    def _from_cache(self, job: _Job, targets: _Targets) -> bool:
        assert self.cache is not None
        found = [self.cache.get(self._cache_key(job, part)) for _, part in job.parts(targets)]
        if None in found:
            return False
        try:
            self._place(job, found, targets)
        except StoreError:  # a damaged copy; the store has the original
            return False
        return True

    async def _from_store(self, jobs: list[_Job], targets: _Targets) -> None:
        gate = asyncio.Semaphore(IN_FLIGHT)
        loop = asyncio.get_running_loop()

        async def one(job: _Job) -> None:
            async with gate:
                wanted = [part.array.get(part.key(job.step, job.window)) for _, part in job.parts(targets)]
                try:
                    found = await asyncio.gather(*wanted)
                    await loop.run_in_executor(self._threads, self._finish, job, found, targets)
                except StoreError as error:
                    self._damage.bear(error)
                    job.hide(targets)

        await asyncio.gather(*map(one, jobs))

    def _finish(self, job: _Job, found: list[bytes | None], targets: _Targets) -> None:
        self._place(job, found, targets)
        if self.cache is not None:
            for (_, part), data in zip(job.parts(targets), found, strict=True):
                # no bytes say: nothing but the fill value
                self.cache.put(self._cache_key(job, part), data or b"")

    def _place(self, job: _Job, found: list[bytes | None], targets: _Targets) -> None:
        """Decode a chunk of each array and copy its pixels to every chip that wants some."""
        for (name, part), data in zip(job.parts(targets), found, strict=True):
            target = targets[name]
            chip, _, source = job.places[0]
            whole = part.group is None and source == (slice(0, CHUNK),) * 2 and target.shape[-1] == CHUNK
            chunk = target[chip] if whole else self._scratch_for(part.array)
            part.array.decode(part.key(job.step, job.window), data or None, chunk)
            for chip, to, (rows, columns) in job.places[whole:]:
                part.place(chunk, rows, columns, target[chip][..., *to])

    def _scratch_for(self, array: StoredArray) -> NDArray[Any]:
        """This thread's buffer for one chunk of such an array, without its time axis."""
        buffers: dict[Any, NDArray[Any]] = self._scratch.__dict__
        name = array.path.rpartition("/")[2]
        if name not in buffers:
            buffers[name] = np.empty(array.chunk_shape[1:], array.dtype)
        return buffers[name]


def _pieces(start: int, size: int) -> list[tuple[int, slice, slice]]:
    """Along one axis: the chunks that a chip touches, with the part of the chip and the part of the chunk."""
    stop = start + size
    return [
        (
            chunk,
            slice(max(start, chunk * CHUNK) - start, min(stop, (chunk + 1) * CHUNK) - start),
            slice(max(start - chunk * CHUNK, 0), min(stop - chunk * CHUNK, CHUNK)),
        )
        for chunk in range(start // CHUNK, (stop - 1) // CHUNK + 1)
    ]
