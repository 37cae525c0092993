"""How an encoder does on labels while it learns: for people to watch, never to choose by.

The nearest labelled neighbours of points in held-out blocks vote on their class. The points lie in
a bounded number of chips, which are read once, so a look costs the same whatever the region's size.
Test blocks are not touched: those of validation judge here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.augment import Normalize
from geossl.bands import Statistics
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import TaskData
from geossl.legend import NO_LABEL
from geossl.methods.dense import columns
from geossl.nets.encoder import Encoder
from geossl.probe import KNN

TILES = 16
"""Most labelled tiles that are looked into."""
CHIPS = 64
"""Most chips of training blocks, and as many of validation blocks."""
POINTS = 8
"""Points of one chip."""
_BATCH = 8


@dataclass(frozen=True)
class _Points:
    """Labelled points of N chips."""

    image: NDArray[Any]
    """(N, D, C, S, S) stored numbers of D dates."""
    valid: NDArray[np.bool_]
    """(N, D, S, S)"""
    at: Tensor
    """(N, P, 2) in [-1, 1], x and y."""
    label: NDArray[np.int64]
    """(N, P) class position, NO_LABEL where a chip has fewer."""

    @classmethod
    def draw(cls, data: TaskData, subset: int, size: int, *, seed: int) -> Self:
        chips = data.chips(subset, size, limit=CHIPS, seed=seed)
        rng = np.random.default_rng(seed)
        chosen = np.stack([balanced(label.ravel(), POINTS, rng) for label in chips.label])
        label = np.take_along_axis(chips.label.reshape(len(chips), -1), chosen, axis=1).astype(np.int64)
        y, x = np.divmod(chosen, size)
        at = torch.from_numpy(((np.stack([x, y], axis=2) + 0.5) * 2 / size - 1).astype(np.float32))
        return cls(chips.image, chips.valid, at, label)


class OnlineKnn:
    """The share of points in validation blocks whose class their five nearest in training blocks tell.

    Parameters
    ----------
    data:
        Images and labels. Points are drawn class by class, as far as there are any.
    statistics:
        What pretraining normalises by.
    size:
        Side of the chips in pixels; one that the encoder takes.

    Raises
    ------
    LabelError
        There is nothing to learn from or to judge by.
    """

    def __init__(self, data: TaskData, statistics: Statistics, *, size: int, seed: int = 0) -> None:
        few = copy.copy(data)
        few.tile_ids = np.random.default_rng(seed).permutation(data.tile_ids)[:TILES].tolist()
        few.require_labels(TRAIN)
        self._classes = len(data.legend)
        self._teach, self._judge = (_Points.draw(few, subset, size, seed=seed) for subset in (TRAIN, VAL))
        self._normalize = Normalize.from_statistics(statistics)

    def __call__(self, encoder: Encoder) -> float:
        """The accuracy of an encoder, which is in evaluation mode, on the device that it is on."""
        known, classes = self._features(encoder, self._teach)
        asked, truth = self._features(encoder, self._judge)
        proba = KNN(self._classes).fit(known, classes).predict_proba(asked)
        return float((proba.argmax(axis=1) == truth).mean())

    def _features(self, encoder: Encoder, points: _Points) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Hypercolumns (N, F) of the labelled points, and their classes; of two dates, how they differ."""
        device = next(encoder.parameters()).device
        normalize = self._normalize.to(device)
        parts = []
        for start in range(0, len(points.image), _BATCH):
            rows = slice(start, start + _BATCH)
            image, valid = (torch.from_numpy(x[rows]).to(device) for x in (points.image, points.valid))
            at = points.at[rows].to(device)
            dates = [
                columns(encoder(normalize(image[:, date], valid[:, date])).maps, at) for date in range(image.shape[1])
            ]
            found = dates[0] if len(dates) == 1 else (dates[0] - dates[1]).abs()
            parts.append(found.cpu().numpy())
        counted = points.label != NO_LABEL
        return np.concatenate(parts)[counted], points.label[counted]


def balanced(label: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of ``count`` labels (N,), as many of each class as there are; those without a label come last."""
    order = rng.permutation(len(label))
    shuffled = label[order]
    turn = np.empty(len(label), np.int64)
    for each in np.unique(shuffled):
        mine = np.flatnonzero(shuffled == each)
        turn[mine] = np.arange(len(mine)) if each != NO_LABEL else len(label)
    return order[np.argsort(turn, kind="stable")[:count]]
