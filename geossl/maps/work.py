"""The work of a prediction: tile after tile in this process, or runs of tiles on Dask workers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geossl.grid import Tile
from geossl.legend import NO_LABEL, Legend
from geossl.maps.ahead import Behind, ahead
from geossl.maps.blend import Blender, Rows, Strip
from geossl.maps.tiles import TileFolder, TileRecord

if TYPE_CHECKING:
    from distributed import Client

type Rectangle = tuple[range, range]
"""Global rows and columns."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A tile to predict."""

    tile: Tile
    record: TileRecord
    """But for what only its pixels tell."""
    stale: tuple[Rectangle, ...]
    """The parts to predict; the others stay as they are on disk."""


_LONGEST = 16
"""Most tiles of a run: neighbours share windows, and a worker that is lost costs at most so many."""


def tile_spans(tile: Tile) -> Rectangle:
    """Global rows and columns of a tile."""
    (top, left), (height, width) = tile.pixel_origin, tile.shape
    return range(top, top + height), range(left, left + width)


def predict_tiles(blender: Blender, todo: Sequence[Planned], store: TileFolder) -> Iterator[TileRecord]:
    """Predict tiles in this process. Reading, predicting and writing overlap; records come when a tile is written.

    Predicting is what this thread does: in another, the C library would give large pieces of memory back at once.
    """
    written: deque[TileRecord] = deque()
    with contextlib.closing(ahead(_strips(blender, todo))) as strips, Behind() as behind:
        for planned in todo:
            sheet = _Sheet(planned, store, blender.task.legend)
            for part in planned.stale:
                for rows in blender.blend(*part, strips):
                    behind(sheet.take, rows, part[1])
            behind(sheet.write, written)
            while written:
                yield written.popleft()
    yield from written


def predict_on(client: Client, blender: Blender, todo: Sequence[Planned], store: TileFolder) -> Iterator[TileRecord]:
    """Predict tiles on Dask workers, a run of neighbours each; records come as runs end."""
    from distributed import as_completed

    if not todo:
        return
    workers = max(1, len(client.scheduler_info()["workers"]))
    length = min(_LONGEST, math.ceil(len(todo) / workers))
    # made on a worker from bytes, so that it can be made again where a worker is lost
    there = client.submit(pickle.loads, pickle.dumps(blender), pure=False)
    runs = [client.submit(_run, there, run, store, pure=False) for run in itertools.batched(todo, length)]
    try:
        for future in as_completed(runs, loop=client.loop):
            records, windows = future.result()
            blender.windows += windows
            yield from records
    finally:
        client.cancel([*runs, there])


_running = threading.Lock()
"""Of a worker: should it have several threads, they share a blender, which serves one of them."""


def _run(blender: Blender, todo: Sequence[Planned], store: TileFolder) -> tuple[list[TileRecord], int]:
    """The records of some tiles, and how many windows they took."""
    with _running:
        before = blender.windows
        records = list(predict_tiles(blender, todo, store))
        return records, blender.windows - before


def _strips(blender: Blender, todo: Sequence[Planned]) -> Iterator[Strip]:
    """What the prediction of tiles reads, in order."""
    for planned in todo:
        for part in planned.stale:
            yield from blender.strips(*part)


class _Sheet:
    """A tile to be written: what is on disk, and what was predicted of it now."""

    def __init__(self, planned: Planned, store: TileFolder, legend: Legend) -> None:
        self.planned, self.store, self.legend = planned, store, legend
        self._rows, self._cols = whole = tile_spans(planned.tile)
        # one piece, since GDAL squeezes whole blocks as they come, and others at the end, where no other thread runs
        everything = planned.stale == (whole,)
        self._bands = np.empty((2, *planned.tile.shape), np.uint8) if everything else store.read(planned.tile.id)

    def take(self, part: Rows, cols: range) -> None:
        """Put rows of a rectangle into their place."""
        down = slice(part.rows.start - self._rows.start, part.rows.stop - self._rows.start)
        across = slice(cols.start - self._cols.start, cols.stop - self._cols.start)
        self._bands[:, down, across] = _to_bands(part, self.legend)

    def write(self, written: deque[TileRecord]) -> None:
        """Write the raster, and what it was made from, which joins those of other tiles."""
        self.store.write(self.planned.tile, self._bands)
        codes = self._bands[0]
        known = codes != NO_LABEL
        extent = None
        if known.any():
            r, c = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
            extent = *_between(self._rows, r), *_between(self._cols, c)
        counts = np.bincount(codes.ravel(), minlength=256)
        found = {code: int(counts[code]) for code in self.legend.codes}
        record = dataclasses.replace(self.planned.record, extent=extent, counts=found)
        self.store.save(record)
        written.append(record)


def _between(span: range, inside: NDArray[np.intp]) -> tuple[int, int]:
    """The first and the one after the last of some places in a span."""
    return span[int(inside[0])], span[int(inside[-1])] + 1


def _to_bands(part: Rows, legend: Legend) -> NDArray[np.uint8]:
    """Class codes and confidence in percent, (2, H, W); what is not valid stays no-data."""
    first, *others = part.probabilities
    best, highest = np.zeros(first.shape, np.uint8), first.copy()
    for position, probability in enumerate(others, start=1):  # far quicker than argmax over the first axis
        np.copyto(best, np.uint8(position), where=probability > highest)
        np.maximum(highest, probability, out=highest)
    bands = np.empty((2, *first.shape), np.uint8)
    bands[0] = legend.to_code(best)
    bands[1] = np.rint(highest * 100).clip(0, 100)
    bands[:, ~part.valid] = NO_LABEL
    return bands
