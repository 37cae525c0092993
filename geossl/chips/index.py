"""Which windows of a collection can be used, found without reading a pixel.

The cube stores the clear fraction of every chunk of every step, and the split depends on place
alone; the two suffice to list a million chips in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geossl.chips.split import TRAIN, Split
from geossl.cube.collection import Collection
from geossl.errors import SettingsError
from geossl.grid import CHUNK


@dataclass(frozen=True, repr=False)
class ChipIndex:
    """N square windows, each at one step of one tile, as parallel arrays of length N."""

    tile_ids: tuple[str, ...]
    size: int
    """Side of every window in pixels."""
    tile: NDArray[np.int32]
    """Position in :attr:`tile_ids`."""
    step: NDArray[np.int32]
    """Position along the tile's time axis."""
    row: NDArray[np.int32]
    """First pixel row in the tile."""
    col: NDArray[np.int32]
    """First pixel column in the tile."""
    clear: NDArray[np.float32]
    """Clear share of the chunks that the window lies in, 0 … 1."""
    time: NDArray[np.datetime64]
    """Acquisition time, UTC."""

    def __len__(self) -> int:
        return len(self.tile)

    def __repr__(self) -> str:
        return f"<ChipIndex: {len(self)} chips of {self.size} px on {len(np.unique(self.tile))} tiles>"

    def select(self, chosen: NDArray[Any]) -> Self:
        """The chips of a boolean mask (N,), or of row numbers in their order."""
        arrays = ("tile", "step", "row", "col", "clear", "time")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    def chunk(self) -> NDArray[np.int64]:
        """(N,) number of the stored chunk that holds each window's first pixel; equal where they share it."""
        where = np.stack([self.tile, self.step, self.row // CHUNK, self.col // CHUNK], axis=1)
        return np.unique(where, axis=0, return_inverse=True)[1]


def build_index(
    collection: Collection,
    size: int,
    *,
    stride: int | None = None,
    min_clear: float = 0.5,
    split: Split | None = None,
    subsets: Sequence[int] = (TRAIN,),
    partly: bool = False,
    steps: Sequence[int] | None = None,
) -> ChipIndex:
    """List the usable windows of a collection: by tile, then step, then row and column.

    Windows of up to 256 pixels never cross the border of a stored chunk, so that reading one costs
    one chunk; larger ones cover several chunks of one tile.

    Parameters
    ----------
    size:
        Side of the windows in pixels, at most a tile.
    stride:
        Distance between windows. Without it they are spread evenly and cover every pixel, side by
        side where ``size`` divides 256 and overlapping otherwise.
    min_clear:
        Least clear share that a window may have, by what is known of the chunks that it lies in; which of these windows
        have it, their pixels tell (:meth:`geossl.chips.reader.ChipReader.clear`).
    split, subsets:
        Only windows wholly in blocks of these subsets. Without a split, all windows.
    partly:
        Also windows that lie in such blocks only in part: for labelled chips, whose other labels
        are hidden.
    steps:
        Only these steps of every tile; all by default.
    """
    if not 0 < size <= collection.grid.tile_size:
        raise SettingsError(
            f"chips of {size} px do not fit into tiles of {collection.grid.tile_size} px",
            f"choose a chip size between 1 and {collection.grid.tile_size}",
        )
    if stride is not None and stride <= 0:
        raise SettingsError(f"a stride of {stride} px between chips is not positive")
    offsets = _offsets(size, stride, collection.grid.tile_size)
    share = _chunk_share(offsets, size, collection.grid.tile_size)
    of_chunk = np.einsum("rj,ck->rcjk", share, share)
    row, col = (o.ravel() for o in np.meshgrid(offsets, offsets, indexing="ij"))

    tile_ids = tuple(collection.tile_ids)
    allowed = {}
    for number, tile_id in enumerate(tile_ids):
        wholly = some = np.ones(row.size, bool)
        if split is not None:
            wholly, some = split.window_subsets(collection.tile(tile_id), row, col, size, tuple(subsets))
        if (some if partly else wholly).any():
            allowed[number] = some if partly else wholly

    parts: list[tuple[NDArray[Any], ...]] = []
    records = collection.records([tile_ids[number] for number in allowed])
    for (number, windows), (chunk_clear, times) in zip(allowed.items(), records, strict=True):
        clear = np.einsum("rj,tjk,ck->trc", share, chunk_clear, share).reshape(-1, row.size)
        usable = (clear > 0) & windows
        if min_clear > 0:
            # all that is clear in a chunk may lie in this window
            most = np.minimum(chunk_clear[:, None, None] * (CHUNK / size) ** 2, of_chunk).sum(axis=(3, 4))
            usable &= most.reshape(-1, row.size) >= min_clear - 1e-6  # shares add up to 1 only to float precision
        if steps is not None:
            usable[~np.isin(np.arange(len(usable)), steps)] = False
        step, window = np.nonzero(usable)
        tile = np.full(step.size, number)
        parts.append((tile, step, row[window], col[window], clear[step, window], times[step]))
    return ChipIndex(tile_ids, size, *_columns(parts))


def centres(collection: Collection, index: ChipIndex) -> NDArray[np.float64]:
    """(N, 2) centre of each window, x and y in the CRS of the grid."""
    bounds = np.array([collection.tile(tile_id).bounds[:] for tile_id in index.tile_ids]).reshape(-1, 4)
    left, _, _, top = bounds[index.tile].T
    gsd, half = collection.grid.resolution, index.size / 2
    return np.stack([left + (index.col + half) * gsd, top - (index.row + half) * gsd], axis=1)


def seconds(index: ChipIndex) -> NDArray[np.int64]:
    """(N,) acquisition times in seconds since 1970 UTC."""
    return index.time.astype("datetime64[s]").astype(np.int64)


def pairs(index: ChipIndex, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Pair the chips of each window by two different steps, anew every epoch.

    Returns
    -------
    rows:
        (P, 2) rows of the index, in random order. Each chip appears at most once; a window with k
        usable steps gives k // 2 pairs, so that P is the same in every epoch.
    """
    window = np.unique(np.stack([index.tile, index.row, index.col], axis=1), axis=0, return_inverse=True)[1]
    rng = np.random.default_rng((seed, epoch))
    order = np.lexsort((rng.random(len(index)), window))
    # position among the chips of the same window, in random order: 0 and 1 are a pair, 2 and 3 are, …
    count = np.bincount(window)
    place = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    first = (place % 2 == 0) & (place + 1 < np.repeat(count, count))
    rows = np.stack([order[first], order[np.flatnonzero(first) + 1]], axis=1)
    return rng.permutation(rows)


def _offsets(size: int, stride: int | None, tile_size: int) -> NDArray[np.int64]:
    """Window offsets along one axis of a tile."""
    room = CHUNK if size <= CHUNK else tile_size
    if stride is None:
        inside = np.linspace(0, room - size, -(-room // size)).astype(np.int64)
    else:
        inside = np.arange(0, room - size + 1, stride)
    return (np.arange(0, tile_size, room)[:, None] + inside).ravel()


def _chunk_share(offsets: NDArray[np.int64], size: int, tile_size: int) -> NDArray[np.float64]:
    """(windows, chunks) share of each window in each chunk along one axis; rows add up to 1."""
    start = np.arange(0, tile_size, CHUNK)
    overlap = np.minimum(offsets[:, None] + size, start + CHUNK) - np.maximum(offsets[:, None], start)
    return overlap.clip(0) / size


def _columns(parts: list[tuple[NDArray[Any], ...]]) -> list[NDArray[Any]]:
    """Join the tiles' columns tile, step, row, col, clear, time."""
    dtypes: tuple[Any, ...] = (np.int32, np.int32, np.int32, np.int32, np.float32, "datetime64[ns]")
    if not parts:
        return [np.zeros(0, dtype) for dtype in dtypes]
    columns = zip(*parts, strict=True)
    return [np.concatenate(column).astype(dtype) for column, dtype in zip(columns, dtypes, strict=True)]
