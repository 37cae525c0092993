"""The chosen steps of all tiles as one image without tile borders."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
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
        self._chunks: OrderedDict[tuple[str, int, int, int], tuple[NDArray[Any], NDArray[np.bool_]]] = OrderedDict()
        self._kept = 0

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
        fill = sensor.radiometry.nodata or 0
        image = np.full((self.dates, len(sensor.bands), *shape), fill, np.dtype(sensor.radiometry.dtype))
        valid = np.zeros((self.dates, *shape), np.bool_)
        for tile in self.tiles(rows, cols):
            top, left = tile.pixel_origin
            for cy, r in _chunks_of(range(max(rows.start, top), min(rows.stop, top + size)), top):
                for cx, c in _chunks_of(range(max(cols.start, left), min(cols.stop, left + size)), left):
                    here = np.s_[r.start - rows.start : r.stop - rows.start, c.start - cols.start : c.stop - cols.start]
                    y, x = top + cy * CHUNK, left + cx * CHUNK
                    there = np.s_[r.start - y : r.stop - y, c.start - x : c.stop - x]
                    for date, step in enumerate(self.steps[tile.id]):
                        pixels, clear = self._chunk(tile.id, step, cy, cx)
                        image[(date, slice(None), *here)] = pixels[(slice(None), *there)]
                        valid[(date, *here)] = clear[there]
        return image, valid

    def _chunk(self, tile_id: str, step: int, cy: int, cx: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (C, h, w) of a stored window, and which are clear (h, w). Decoded once, not by every strip."""
        key = tile_id, step, cy, cx
        if key in self._chunks:
            self._chunks.move_to_end(key)
            return self._chunks[key]
        pixels, quality = self._open(tile_id)
        window = np.s_[cy * CHUNK : (cy + 1) * CHUNK, cx * CHUNK : (cx + 1) * CHUNK]
        found = np.asarray(pixels[(step, slice(None), *window)]), is_clear(np.asarray(quality[(step, *window)]))
        self._chunks[key] = found
        self._kept += found[0].nbytes + found[1].nbytes
        while self._kept > KEEP_BYTES and len(self._chunks) > 1:
            _, (image, clear) = self._chunks.popitem(last=False)
            self._kept -= image.nbytes + clear.nbytes
        return found


def _chunks_of(span: range, first: int) -> Iterator[tuple[int, range]]:
    """The chunks of a tile that begins at ``first`` that a span touches along an axis, each with what it touches."""
    for number in range((span.start - first) // CHUNK, (span.stop - 1 - first) // CHUNK + 1):
        begin = first + number * CHUNK
        yield number, range(max(span.start, begin), min(span.stop, begin + CHUNK))
