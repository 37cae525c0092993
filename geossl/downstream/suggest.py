"""Where the next labels would help a task's model most.

BADGE (Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR): every place
stands for the gradient that its label would give the last layer if the model's own guess were right,
``(p − onehot(argmax p)) ⊗ h`` with probabilities ``p`` and features ``h``. It is long where the model is unsure, and
points elsewhere where the ground looks different. k-means++ (Arthur and Vassilvitskii 2007) draws places that are
both, one after the other, without a weight between the two. Here ``h`` is the encoder's view of the place, of unit
length, and the labels that there are stand for no gradient at all: the first place is drawn by its distance to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from geossl.bands import Statistics
from geossl.chips.split import TRAIN
from geossl.downstream.data import CONTEXT, CORE, TaskData, windows
from geossl.downstream.describe import by_encoder
from geossl.downstream.task import TrainedTask
from geossl.errors import LabelError
from geossl.legend import NO_LABEL
from geossl.nets.encoder import Encoder
from geossl.probe import Scaler
from geossl.progress import Progress, silent

SIDE = 5
"""Pixels along a side of a place: enough to be seen, small enough to be of one class."""

GAP = 16
"""Pixels between a place and labelled ground, or another place: nearer ones would say the same again."""

_STEP = 8
"""Pixels from one candidate to the next."""

_WINDOWS = 256
"""Most windows of the area that are looked at, drawn at random: memory and time do not grow with the area."""

_PER_WINDOW = 32


@dataclass(frozen=True)
class Places:
    """N squares of :data:`SIDE` pixels on unlabelled ground of training blocks."""

    tile: NDArray[np.object_]
    """(N,) tile ids."""
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    """(N,) first pixel in the tile."""
    proba: NDArray[np.float32]
    """(N, K) class probabilities, the mean over the square."""
    features: NDArray[np.float32]
    """(N, F) the encoder's features, the mean over the square, all dates one after the other."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """(N,) one minus the margin between the two likeliest classes: 0 sure, 1 undecided."""
        best = np.sort(self.proba, axis=1)
        return 1 - (best[:, -1] - best[:, -2])

    def take(self, rows: NDArray[np.integer[Any]]) -> Places:
        """Some of them, in this order."""
        return Places(self.tile[rows], self.row[rows], self.col[rows], self.proba[rows], self.features[rows])


def suggest(
    data: TaskData,
    task: TrainedTask,
    encoder: Encoder,
    statistics: Statistics,
    count: int,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Places:
    """The places to label next, the most telling first.

    Only ground of training blocks is ever suggested. Validation and test blocks must stay a fair sample of the
    area: labels that lie where the model was unsure would make its scores those of hard places, and no longer
    comparable with earlier ones; and there they would teach nothing, since nothing learns from those blocks.

    Parameters
    ----------
    task:
        The model whose doubts count.
    encoder, statistics:
        What tells whether places look alike, and the statistics that normalise its images.

    Raises
    ------
    LabelError
        There is no clear, unlabelled ground in training blocks.
    """
    places = candidates(data, task, encoder, statistics, seed=seed, progress=progress)
    if not len(places):
        raise LabelError(
            f"no clear ground in the training blocks lies farther than {GAP} pixels from the labels of "
            f"{data.labels.name!r}",
            "all of it is labelled: more labels can only come from more imagery, or from other blocks under `split`",
        )
    tiles = {tile_id: data.collection.tile(tile_id).pixel_origin for tile_id in np.unique(places.tile)}
    first = np.array([tiles[tile_id] for tile_id in places.tile])
    at = first + np.stack([places.row, places.col], axis=1)
    return places.take(choose(places.proba, places.features, at, count, seed=seed))


def choose(
    proba: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    at: NDArray[np.integer[Any]],
    count: int,
    *,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Rows of the places to label, drawn by k-means++ in the space of gradients.

    Parameters
    ----------
    proba, features, at:
        (N, K), (N, F) and, as row and column on the ground, (N, 2).

    Returns
    -------
    Up to ``count`` rows, no two nearer than :data:`GAP`; fewer where there are no more.
    """
    rng = np.random.default_rng(seed)
    gradient = np.asarray(proba, np.float64).copy()
    gradient[np.arange(len(gradient)), gradient.argmax(axis=1)] -= 1
    look = Scaler.of(features)(features).astype(np.float64)
    look /= np.linalg.norm(look, axis=1, keepdims=True) + 1e-12
    length = (gradient**2).sum(axis=1)  # the squared length of the outer product, as the features have length 1
    distance = length.copy()
    free = np.ones(len(length), bool)
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        weight = np.where(free, np.maximum(distance, 0), 0)
        if not weight.sum() > 0:  # the model is sure everywhere, or all that is left has been drawn in kind
            weight = free.astype(np.float64)
        pick = int(rng.choice(len(weight), p=weight / weight.sum()))
        chosen.append(pick)
        # ‖a⊗h − b⊗k‖² = ‖a‖² + ‖b‖² − 2 (a·b)(h·k)
        away = length + length[pick] - 2 * (gradient @ gradient[pick]) * (look @ look[pick])
        distance = np.minimum(distance, away)
        free &= (np.abs(at - at[pick]) >= SIDE + GAP).any(axis=1)
    return np.array(chosen, np.int64)


def candidates(
    data: TaskData,
    task: TrainedTask,
    encoder: Encoder,
    statistics: Statistics,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Places:
    """Squares of unlabelled, clear ground in training blocks, with what model and encoder make of them."""
    rng = np.random.default_rng(seed)
    squares = list(_squares(data))
    total = sum(len(np.unique(_window(found), axis=0)) for _, found in squares)
    share = min(1.0, _WINDOWS / max(total, 1))
    look = by_encoder(encoder, statistics)
    columns: list[list[Any]] = [[], [], [], [], []]
    for done, (tile_id, found) in enumerate(squares):
        progress("places", done, len(squares))
        chosen = _thinned(found, share, rng)
        if not len(chosen):
            continue
        image, valid = data.images(tile_id)
        wanted = np.zeros(valid.shape[1:], bool)
        wanted[chosen[:, 0], chosen[:, 1]] = True
        for window in windows(image, valid, wanted):
            proba = task.describe(window.image, window.valid)
            dates = range(len(window.image))
            features = np.concatenate([look(window.image[d : d + 1], window.valid[d : d + 1]) for d in dates])
            inside = (_window(chosen) == (window.row // CORE, window.col // CORE)).all(axis=1)
            for row, col in chosen[inside]:
                y, x = row - window.row + CONTEXT, col - window.col + CONTEXT
                here = slice(y, y + SIDE), slice(x, x + SIDE)
                for column, value in zip(
                    columns,
                    (tile_id, row, col, proba[:, *here].mean(axis=(1, 2)), features[:, *here].mean(axis=(1, 2))),
                    strict=True,
                ):
                    column.append(value)
    progress("places", len(squares), len(squares))
    tile, row, col, probas, looks = columns
    return Places(
        np.array(tile, object),
        np.array(row, np.int64),
        np.array(col, np.int64),
        np.array(probas, np.float32),
        np.array(looks, np.float32),
    )


def _squares(data: TaskData) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Tile by tile, (n, 2) first pixels of the squares that may be suggested."""
    labelled = set(data.labels.tile_ids)
    for tile_id in data.collection.tile_ids:
        if (steps := data.steps(tile_id)) is None:
            continue
        tile = data.collection.tile(tile_id)
        usable = data.valid(tile_id, steps).all(axis=0) & (data.split.subset_mask(tile) == TRAIN)
        if data.forest is not None:
            usable &= data.forest(tile_id)
        if tile_id in labelled:
            usable &= maximum_filter(data.labels.read(tile_id) != NO_LABEL, 2 * GAP + 1) == 0
        whole = minimum_filter(usable, SIDE, origin=-(SIDE // 2), mode="constant", cval=0)
        row, col = np.nonzero(whole[::_STEP, ::_STEP])
        if row.size:
            yield tile_id, np.stack([row, col], axis=1) * _STEP


def _thinned(squares: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Some squares of a share of the windows, drawn at random."""
    numbers, of = np.unique(_window(squares), axis=0, return_inverse=True)
    kept = rng.random(len(numbers)) < share
    parts = [rng.permutation(np.flatnonzero(of.ravel() == n))[:_PER_WINDOW] for n in np.flatnonzero(kept)]
    return squares[np.sort(np.concatenate(parts))] if parts else squares[:0]


def _window(squares: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row and column of the core window that each square begins in."""
    return squares // CORE
