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
            whole = planned.stale == (tile_spans(planned.tile),)
            yield (_write_tile if whole else _write_parts)(planned, rows, store, blender.task.legend)


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


def _of(part: Rectangle, rows: Iterator[Rows]) -> Iterator[Rows]:
    """The rows of a rectangle, of which those of others follow."""
    for done in rows:
        yield done
        if done.rows.stop == part[0].stop:
            return


def _write_parts(planned: Planned, rows: Iterator[Rows], store: TileFolder, legend: Legend) -> TileRecord:
    """Write the stale parts of a tile that is on disk."""
    tile = planned.tile
    down, across = tile_spans(tile)
    bands = store.read(tile.id)
    for part in planned.stale:
        at = slice(part[1].start - across.start, part[1].stop - across.start)
        for done in _of(part, rows):
            bands[:, done.rows.start - down.start : done.rows.stop - down.start, at] = _to_bands(done, legend)
    with store.writing(tile) as write:
        write(0, bands)
    known = bands[0] != NO_LABEL
    counts = np.bincount(bands[0].ravel(), minlength=256)
    return _saved(planned, store, legend, known.any(axis=1), known.any(axis=0), counts)


def _write_tile(planned: Planned, rows: Iterator[Rows], store: TileFolder, legend: Legend) -> TileRecord:
    down, across = whole = tile_spans(planned.tile)
    counts = np.zeros(256, np.int64)
    with_data_rows, with_data_cols = np.zeros(len(down), np.bool_), np.zeros(len(across), np.bool_)
    with store.writing(planned.tile) as write:
        for part in _of(whole, rows):
            bands = _to_bands(part, legend)
            row = part.rows.start - down.start
            write(row, bands)
            counts += np.bincount(bands[0].ravel(), minlength=256)
            with_data_rows[row : row + len(part.rows)] = part.valid.any(axis=1)
            with_data_cols |= part.valid.any(axis=0)
    return _saved(planned, store, legend, with_data_rows, with_data_cols, counts)


def _saved(
    planned: Planned,
    store: TileFolder,
    legend: Legend,
    with_data_rows: NDArray[np.bool_],
    with_data_cols: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> TileRecord:
    """Note what the raster on disk was made from, which rows and columns have data, and the pixels of each code."""
    rows, cols = tile_spans(planned.tile)
    extent = None
    if with_data_rows.any():
        r, c = np.flatnonzero(with_data_rows), np.flatnonzero(with_data_cols)
        extent = rows[int(r[0])], rows[int(r[-1])] + 1, cols[int(c[0])], cols[int(c[-1])] + 1
    found = {code: int(counts[code]) for code in legend.codes}
    record = dataclasses.replace(planned.record, extent=extent, counts=found)
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
