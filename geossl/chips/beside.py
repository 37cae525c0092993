"""Chips of two collections as pairs: the same window of one grid, at most some days apart.

A scene of one sensor has no scene of another at the same hour, and may have several within some days. A
pair is found by tile, row, column and time alone; that the two lie on one grid is for the caller to see to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.chips.index import ChipIndex, seconds
from geossl.chips.reader import ChipReader

_DAY = 86_400  # seconds
_SIDE = 2**20  # pixels; more than any tile has


@dataclass(frozen=True)
class Beside:
    """The chips that may be the others of pairs."""

    reader: ChipReader
    index: ChipIndex
    """Windows of the same grid and size."""
    days: float
    """Most days between the two of a pair."""
    weights: NDArray[np.float64] | None = None
    """(N,) how often each is seen; see :class:`~geossl.chips.loader.ChipLoader`."""


def pairs_beside(index: ChipIndex, beside: Beside, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Pair each chip with one beside it, drawn anew every epoch from all of its window that are near in time.

    Returns
    -------
    rows:
        (P, 2) rows of the index and of that beside, in the order of the index: every chip that has another
        near enough, once.
    """
    ours, theirs, order = _line(index, beside.index)
    # days without end would leave the window
    reach = int(min(beside.days * _DAY, _longest(index, beside.index)))
    start, stop = np.searchsorted(theirs, ours - reach), np.searchsorted(theirs, ours + reach, side="right")
    rows = np.flatnonzero(start < stop)
    drawn = np.random.default_rng((seed, epoch)).integers(start[rows], stop[rows])
    return np.stack([rows, order[drawn]], axis=1)


def days_beside(index: ChipIndex, others: ChipIndex) -> NDArray[np.float64]:
    """(N,) days from each chip to the nearest of the others in its window; infinite where there is none."""
    ours, theirs, _ = _line(index, others)
    if not len(theirs):
        return np.full(len(ours), np.inf)
    after = np.searchsorted(theirs, ours)
    gaps = [np.abs(theirs[at.clip(0, len(theirs) - 1)] - ours) for at in (after - 1, after)]
    gap = np.minimum(*gaps)
    return np.where(gap <= _longest(index, others), gap / _DAY, np.inf)


def _line(index: ChipIndex, others: ChipIndex) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All chips on one line of seconds, window after window and so far apart that none is near another's.

    Returns
    -------
    ours:
        (N,) where our chips are.
    theirs, order:
        (M,) where the others are, ascending, and which rows these are.
    """
    ids = {name: number for number, name in enumerate(dict.fromkeys(index.tile_ids + others.tile_ids))}
    windows, times = [], []
    for each in (index, others):
        tile = np.array([ids[name] for name in each.tile_ids], np.int64)[each.tile]
        windows.append((tile * _SIDE + each.row) * _SIDE + each.col)
        times.append(seconds(each))
    window = np.unique(np.concatenate(windows), return_inverse=True)[1]
    time = np.concatenate(times)
    line = window * (2 * _longest(index, others) + 1) + (time - time.min(initial=np.iinfo(np.int64).max))
    ours, theirs = np.split(line, [len(index)])
    order = np.argsort(theirs, kind="stable")
    return ours, theirs[order], order


def _longest(index: ChipIndex, others: ChipIndex) -> int:
    """Seconds from the first chip of both to the last."""
    time = np.concatenate([seconds(index), seconds(others)])
    return int(np.ptp(time)) if len(time) else 0
