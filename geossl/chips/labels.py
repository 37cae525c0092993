"""Labels of chips: class positions where the split allows them to be seen."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.chips.index import ChipIndex
from geossl.chips.split import TRAIN, Split
from geossl.cube.collection import Labels
from geossl.legend import NO_LABEL


class LabelLayer:
    """A label layer of the cube as networks see it.

    Parameters
    ----------
    labels:
        Class codes on the same grid as the chips.
    split, subsets:
        Labels outside these subsets, and in the buffer, are hidden. Without a split all are shown.
    """

    def __init__(self, labels: Labels, split: Split | None = None, subsets: Sequence[int] = (TRAIN,)) -> None:
        self.labels = labels
        self._split = split
        self._subsets = subsets
        self._there = set(labels.tile_ids)
        self._tile = functools.lru_cache(maxsize=256)(self._read_tile)

    def read(self, index: ChipIndex, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """(N, S, S) class positions 0 … K−1 of N rows of the index; 255 where there is none to be seen."""
        out = np.full((len(rows), index.size, index.size), NO_LABEL, np.uint8)
        for chip, row in enumerate(rows):
            tile_id = index.tile_ids[index.tile[row]]
            if tile_id in self._there:
                y, x = index.row[row], index.col[row]
                out[chip] = self._tile(tile_id)[y : y + index.size, x : x + index.size]
        return out

    def labelled(self, index: ChipIndex) -> NDArray[np.bool_]:
        """(N,) whether any label can be seen in a chip; for ``index.select``."""
        found = np.zeros(len(index), bool)
        for number, tile_id in enumerate(index.tile_ids):
            chips = np.flatnonzero(index.tile == number)
            if not len(chips) or tile_id not in self._there:
                continue
            seen = (self._tile(tile_id) != NO_LABEL).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
            total = np.pad(seen, ((1, 0), (1, 0)))
            top, left = index.row[chips], index.col[chips]
            bottom, right = top + index.size, left + index.size
            found[chips] = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left] > 0
        return found

    def _read_tile(self, tile_id: str) -> NDArray[np.uint8]:
        classes = self.labels.legend.to_index(self.labels.read(tile_id))
        if self._split is not None:
            mask = self._split.subset_mask(self.labels.tile(tile_id))
            classes[~np.isin(mask, list(self._subsets))] = NO_LABEL
        return classes
