"""The work of a prediction: tile after tile in this process, or runs of tiles on Dask workers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geossl.grid import Tile
from geossl.legend import NO_LABEL, Legend
from geossl.maps.ahead import ahead
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
    """Predict tiles in this process. Reading, predicting and writing overlap: each has a thread, writing this one."""
    with (
        contextlib.closing(ahead(_strips(blender, todo))) as strips,
        contextlib.closing(ahead(_rows(blender, todo, strips))) as rows,
    ):
        for planned in todo:
            yield _write_tile(planned, rows, store, blender.task.legend)


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
        for future in as_completed(runs):
            records, windows = future.result()
            blender.windows += windows
            yield from records
    finally:
        client.cancel([*runs, there])


def _run(blender: Blender, todo: Sequence[Planned], store: TileFolder) -> tuple[list[TileRecord], int]:
    """The records of some tiles, and how many windows they took."""
    before = blender.windows
    records = list(predict_tiles(blender, todo, store))
    return records, blender.windows - before


def _strips(blender: Blender, todo: Sequence[Planned]) -> Iterator[Strip]:
    """What the prediction of tiles reads, in order."""
    for planned in todo:
        for part in planned.stale:
            yield from blender.strips(*part)


def _rows(blender: Blender, todo: Sequence[Planned], strips: Iterator[Strip]) -> Iterator[Rows]:
    """The prediction of tiles, in order."""
    for planned in todo:
        for part in planned.stale:
            yield from blender.blend(*part, strips)


def _write_tile(planned: Planned, rows: Iterator[Rows], store: TileFolder, legend: Legend) -> TileRecord:
    """Write a tile, whose stale parts are the next rows, and what it was made from."""
    tile = planned.tile
    down, across = whole = tile_spans(tile)
    # one piece, since GDAL squeezes whole blocks as they come, and others at the end, where no other thread runs
    bands = np.empty((2, *tile.shape), np.uint8) if planned.stale == (whole,) else store.read(tile.id)
    for part in planned.stale:
        at = slice(part[1].start - across.start, part[1].stop - across.start)
        for done in rows:
            bands[:, done.rows.start - down.start : done.rows.stop - down.start, at] = _to_bands(done, legend)
            if done.rows.stop == part[0].stop:
                break
    store.write(tile, bands)
    known = bands[0] != NO_LABEL
    extent = None
    if known.any():
        r, c = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        extent = down[int(r[0])], down[int(r[-1])] + 1, across[int(c[0])], across[int(c[-1])] + 1
    counts = np.bincount(bands[0].ravel(), minlength=256)
    record = dataclasses.replace(
        planned.record, extent=extent, counts={code: int(counts[code]) for code in legend.codes}
    )
    store.save(record)
    return record


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
