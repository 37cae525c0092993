"""The chosen steps of all tiles as one image without tile borders."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.errors import StoreError
from geossl.grid import CHUNK, Tile
from geossl.imagery.clouds import is_clear
from geossl.maps.protocols import Imagery, Sliceable
from geossl.maps.tiles import Source

KEEP_BYTES = 128 << 20
"""Bound on decoded chunks that wait for the next strip of windows, or for the next tile."""

REQUESTS = 8
"""Rows of chunks that are asked for at the same time, pixels and quality apart."""

type _Key = tuple[str, int, int, int]
"""Of a stored window: tile, step, and its row and column among those of the tile."""

type _Chunk = tuple[NDArray[Any], NDArray[np.bool_]]
"""Pixels (C, h, w) of a stored window, and which are clear (h, w)."""


def _period(composite: str) -> tuple[str, str]:
    """First and last day of a composite, whose id is ``start/duration`` such as ``2023-01-01/P12M``."""
    start, _, duration = composite.partition("/")
    months = np.timedelta64(int(duration.removeprefix("P").removesuffix("M")), "M")
    after = np.datetime64(start, "M") + months
    return start, str(after.astype("M8[D]") - np.timedelta64(1, "D"))


class Canvas:
    """Reads rectangles of a grid's global pixel lattice, across tile borders.

    Parameters
    ----------
    collection:
        Where pixels come from.
    steps:
        Which steps of each tile make the image, by tile id: one for each date. A tile that is
        not listed holds no data.
    dates:
        How many steps each tile must name.
    """

    def __init__(self, collection: Imagery, steps: Mapping[str, Sequence[int]], dates: int) -> None:
        if wrong := [tile_id for tile_id, chosen in steps.items() if len(chosen) != dates]:
            raise StoreError(
                f"the model compares {dates} date(s), but tile {wrong[0]} names {len(steps[wrong[0]])}",
                "choose a step for each date",
            )
        if missing := sorted(steps.keys() - set(collection.tile_ids)):
            raise StoreError(f"the collection {collection.name} has no tile {missing[0]}")
        self.collection = collection
        self.steps = steps
        self.dates = dates
        # a strip of windows reads a tile and its eight neighbours over and over
        self._open = functools.lru_cache(maxsize=32)(self._open_tile)
        self.sources = functools.lru_cache(maxsize=4096)(self._sources)
        self._threads = ThreadPoolExecutor(REQUESTS, "geossl-canvas")
        self._kept: OrderedDict[_Key, _Chunk] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # what is open or kept stays behind
        return type(self), (self.collection, dict(self.steps), self.dates)

    def _open_tile(self, tile_id: str) -> tuple[Sliceable, Sliceable]:
        return self.collection.image(tile_id), self.collection.quality(tile_id)

    def tiles(self, rows: range, cols: range) -> Iterator[Tile]:
        """The tiles with data that a rectangle touches, row by row."""
        size = self.collection.grid.tile_size
        for iy in range(rows.start // size, (rows.stop - 1) // size + 1):
            for ix in range(cols.start // size, (cols.stop - 1) // size + 1):
                tile = self.collection.grid[ix, iy]
                if tile.id in self.steps:
                    yield tile

    def _sources(self, tile_id: str) -> tuple[Source, ...]:
        """What the chosen steps of a tile are, in date order."""
        collection = self.collection
        scenes, revisions = collection.scene_ids(tile_id), collection.revisions(tile_id)
        checksums, times = collection.checksums(tile_id), collection.times(tile_id)
        return tuple(
            Source(
                tile_id,
                scenes[step],
                int(revisions[step]),
                checksums[step],
                *(_period(scenes[step]) if collection.kind == "composite" else [str(times[step].astype("M8[D]"))] * 2),
            )
            for step in self.steps[tile_id]
        )

    def read(self, rows: range, cols: range) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a rectangle in global rows and columns.

        Returns
        -------
        image
            (dates, C, H, W) stored numbers; where no tile has data, no-data (or 0).
        valid
            (dates, H, W) where something clear was measured.
        """
        sensor, size = self.collection.sensor, self.collection.grid.tile_size
        shape = len(rows), len(cols)
        tiles = list(self.tiles(rows, cols))
        image = np.empty((self.dates, len(sensor.bands), *shape), np.dtype(sensor.radiometry.dtype))
        valid = np.empty((self.dates, *shape), np.bool_)
        if len(tiles) < len(_parts(rows, 0, size)) * len(_parts(cols, 0, size)):
            image[:], valid[:] = sensor.radiometry.nodata or 0, False
        pieces: list[tuple[_Key, int, tuple[range, range], tuple[int, int]]] = []
        for tile in tiles:
            top, left = tile.pixel_origin
            down = _parts(range(max(rows.start, top), min(rows.stop, top + size)), top, CHUNK)
            across = _parts(range(max(cols.start, left), min(cols.stop, left + size)), left, CHUNK)
            for (date, step), (cy, r), (cx, c) in itertools.product(
                enumerate(self.steps[tile.id]), down.items(), across.items()
            ):
                pieces.append(((tile.id, step, cy, cx), date, (r, c), (top + cy * CHUNK, left + cx * CHUNK)))
        chunks = self._chunks([key for key, *_ in pieces])
        for key, date, (r, c), (y, x) in pieces:
            pixels, clear = chunks[key]
            here = np.s_[r.start - rows.start : r.stop - rows.start, c.start - cols.start : c.stop - cols.start]
            there = np.s_[r.start - y : r.stop - y, c.start - x : c.stop - x]
            image[(date, slice(None), *here)] = pixels[(slice(None), *there)]
            valid[(date, *here)] = clear[there]
        return image, valid

    def _chunks(self, keys: Sequence[_Key]) -> dict[_Key, _Chunk]:
        """Some stored windows. Decoded once, not by every strip."""
        found: dict[_Key, _Chunk] = {}
        missing: dict[tuple[str, int, int], list[int]] = {}
        for key in dict.fromkeys(keys):  # two dates may be one step
            if (chunk := self._kept.get(key)) is None:
                missing.setdefault(key[:3], []).append(key[3])
            else:
                self._kept.move_to_end(key)
                found[key] = chunk
        # one request for a row of them, and all requests at the same time, so that nothing waits for one alone
        asked = {
            row: [
                self._threads.submit(_request, array, (row[1], *bands), row[2], range(min(across), max(across) + 1))
                for array, bands in zip(self._open(row[0]), ((slice(None),), ()), strict=True)
            ]
            for row, across in missing.items()
        }
        for row, (pixels, quality) in asked.items():
            image, clear = pixels.result(), is_clear(quality.result())
            first = min(missing[row])
            for cx in missing[row]:
                part = slice((cx - first) * CHUNK, (cx - first + 1) * CHUNK)
                # copies: a view of one chunk would hold the whole row
                found[*row, cx] = image[..., part].copy(), clear[:, part].copy()
                self._keep((*row, cx), found[*row, cx])
        return found

    def _keep(self, key: _Key, chunk: _Chunk) -> None:
        """Keep a chunk, and those longest unused no more."""
        self._kept[key] = chunk
        self._bytes += sum(part.nbytes for part in chunk)
        while self._bytes > KEEP_BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in gone)


def _request(array: Sliceable, of: tuple[Any, ...], cy: int, across: range) -> NDArray[Any]:
    """Some stored windows of a row of them."""
    window = np.s_[cy * CHUNK : (cy + 1) * CHUNK, across.start * CHUNK : across.stop * CHUNK]
    return np.asarray(array[(*of, *window)])


def _parts(span: range, first: int, size: int) -> dict[int, range]:
    """The pieces of ``size`` along an axis, counted from ``first``, that a span touches, each with what it touches."""
    return {
        number: range(max(span.start, first + number * size), min(span.stop, first + (number + 1) * size))
        for number in range((span.start - first) // size, (span.stop - 1 - first) // size + 1)
    }
