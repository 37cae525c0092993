"""The work of a prediction: tile after tile in this process, or runs of tiles on Dask workers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
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

type Planned = tuple[Tile, TileRecord]
"""A tile to predict, and its record but for what only its pixels tell."""

_LONGEST = 16
"""Most tiles of a run: neighbours share windows, and a worker that is lost costs at most so many."""


def tile_spans(tile: Tile) -> tuple[range, range]:
    """Global rows and columns of a tile."""
    (top, left), (height, width) = tile.pixel_origin, tile.shape
    return range(top, top + height), range(left, left + width)


def predict_tiles(blender: Blender, todo: Sequence[Planned], store: TileFolder) -> Iterator[TileRecord]:
    """Predict tiles in this process. Reading, predicting and writing overlap."""
    with contextlib.closing(ahead(_strips(blender, [tile for tile, _ in todo]))) as strips:
        for tile, planned in todo:
            yield _predict_tile(blender, tile, strips, store, planned)


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


def _strips(blender: Blender, tiles: Sequence[Tile]) -> Iterator[Strip]:
    """What the prediction of tiles reads, in order."""
    for tile in tiles:
        yield from blender.strips(*tile_spans(tile))


def _predict_tile(
    blender: Blender, tile: Tile, strips: Iterator[Strip], store: TileFolder, planned: TileRecord
) -> TileRecord:
    rows, cols = tile_spans(tile)
    legend = blender.task.legend
    counts = np.zeros(256, np.int64)
    with_data_rows, with_data_cols = np.zeros(len(rows), np.bool_), np.zeros(len(cols), np.bool_)
    with store.writing(tile) as write, Behind() as behind:

        def finish(part: Rows) -> None:
            bands = _to_bands(part, legend)
            row = part.rows.start - rows.start
            write(row, bands)
            counts[:] += np.bincount(bands[0].ravel(), minlength=256)
            with_data_rows[row : row + len(part.rows)] = part.valid.any(axis=1)
            with_data_cols[:] |= part.valid.any(axis=0)

        for part in blender.blend(rows, cols, strips):
            behind(finish, part)
    extent = None
    if with_data_rows.any():
        r, c = np.flatnonzero(with_data_rows), np.flatnonzero(with_data_cols)
        extent = rows[int(r[0])], rows[int(r[-1])] + 1, cols[int(c[0])], cols[int(c[-1])] + 1
    record = dataclasses.replace(planned, extent=extent, counts={code: int(counts[code]) for code in legend.codes})
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
