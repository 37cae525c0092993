"""What scenes of this region usually are like at each time of the year, and how far one is from that.

Every number of a description (a band's mean at a place, say) is expected to follow the year: a constant of the
place, and two harmonics that all places share, which each place may bend a little as far as its own history
shows (harmonic regression with shrinkage; after Zhu & Woodcock 2014, who fit each pixel by itself). What is left,
averaged over the places, is the scene's own deviation; how far single places are off joins it, for means, spreads
and features apart, since other land is brighter here and darker there. Its distance from nought is Mahalanobis', with a shrunken
covariance (Ledoit & Wolf 2004) of the deviations of the history itself, each taken by a model that has not seen
the scene (nor, where there are several years, its year).

The threshold is the conformal one (Vovk et al. 2005): as high as the history's own distances reach but for the
stated share of false alarms. It needs about 1/rate − 1 scenes; with fewer, the largest distance is taken and the
rate that this can promise is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from geossl.drift.describe import Description
from geossl.errors import StoreError

LEAST = 8
"""Fewest scenes of a history that anything can be said from."""

LEAST_PLACES = 12
"""Fewest clear places that a scene is judged by."""

COMPONENTS = 6
"""Directions of the embedding space that are looked at: the first principal ones of the history."""

HARMONICS = 2
_OWN_SCENES = 4.0
"""So many scenes of a place count as much as what all places share."""


class ShortHistoryError(StoreError):
    """There are too few scenes to say what is usual."""


@dataclass(frozen=True)
class Expected:
    """A model of the year, and what it expects."""

    shared: NDArray[np.float64]
    """(2 · HARMONICS, D)"""
    place: NDArray[np.int64]
    """(P,) ascending"""
    level: NDArray[np.float64]
    """(P, D)"""
    own: NDArray[np.float64]
    """(P, 2 · HARMONICS, D)"""

    def at(self, time: np.datetime64, place: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(n, D) what is expected at places, and which of the places (n,) are known."""
        known = np.isin(place, self.place)
        at = np.searchsorted(self.place, place[known])
        return self.level[at] + np.einsum("h,nhd->nd", _year(time), self.shared + self.own[at]), known


@dataclass(frozen=True)
class Distance:
    """How far one scene is from what is expected."""

    value: float
    deviation: NDArray[np.float64]
    """(D + 3,) averaged over places, and how far single places are off beyond the usual."""
    places: int


class Baseline:
    """The history of a region, season by season.

    Parameters
    ----------
    history:
        Descriptions of the scenes that count as usual.
    false_alarms:
        The share of usual scenes that may be called unusual.

    Raises
    ------
    ShortHistoryError
        There are too few scenes to say anything.
    """

    def __init__(self, history: Sequence[Description], *, false_alarms: float = 0.05) -> None:
        history = [each for each in history if len(each) >= LEAST_PLACES]
        if len(history) < LEAST:
            raise ShortHistoryError(
                f"{len(history)} clear scenes are too short a history to say what is unusual; {LEAST} are needed",
                "ingest more of the past",
            )
        self._axes, self._centre = _principal(history)
        self._rows = [self.numbers(each) for each in history]
        self.history = history
        self.expected = _fit(history, self._rows)
        folds = _folds(history)
        bands = history[0].mean.shape[1]
        self._parts = (slice(0, bands), slice(bands, 2 * bands), slice(2 * bands, None))
        deviations = np.empty((len(history), self._rows[0].shape[1] + len(self._parts)))
        for fold in set(folds):
            inside = [i for i, other in enumerate(folds) if other != fold]
            model = _fit([history[i] for i in inside], [self._rows[i] for i in inside])
            for i, other in enumerate(folds):
                if other == fold:
                    deviations[i] = self._deviation(model, history[i], self._rows[i])
        self._usual = np.zeros(deviations.shape[1])
        self._usual[-len(self._parts) :] = deviations[:, -len(self._parts) :].mean(axis=0)
        deviations -= self._usual
        self._precision = _precision(deviations)
        # each by a covariance that has not seen it
        self.distances = np.array(
            [_length(row, _precision(np.delete(deviations, i, axis=0))) for i, row in enumerate(deviations)]
        )
        rank = math.ceil((len(history) + 1) * (1 - false_alarms))
        self.promised = max(false_alarms, 1 / (len(history) + 1))
        """The share of false alarms that so short a history can promise."""
        self.threshold = float(np.sort(self.distances)[min(rank, len(history)) - 1])

    def numbers(self, scene: Description) -> NDArray[np.float64]:
        """(P, D): band means, band spreads, embedding in its principal directions."""
        reduced = (scene.embedding - self._centre) @ self._axes
        return np.concatenate([scene.mean, scene.spread, reduced], axis=1).astype(np.float64)

    def distance(self, scene: Description) -> Distance:
        """How far a scene is from what is expected of it."""
        deviation = self._deviation(self.expected, scene, self.numbers(scene)) - self._usual
        places = int(np.isin(scene.place, self.expected.place).sum())
        return Distance(_length(deviation, self._precision), deviation, places)

    def _deviation(self, model: Expected, scene: Description, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """(D + 3,) what is left, averaged over the places that the model knows, and the logarithms of its size there."""
        expected, known = model.at(scene.time, scene.place)
        if not known.any():
            return np.zeros(numbers.shape[1] + len(self._parts))
        left = numbers[known] - expected
        sizes = [
            0.5 * np.log((left[:, part] ** 2).mean() + 1e-6) if left[:, part].size else 0.0 for part in self._parts
        ]
        return np.concatenate([left.mean(axis=0), sizes])


def _year(time: np.datetime64) -> NDArray[np.float64]:
    """(2 · HARMONICS,) sines and cosines of the time of the year."""
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    phase = 2 * np.pi * float(day) / 365.25 * np.arange(1, HARMONICS + 1)
    return np.concatenate([np.sin(phase), np.cos(phase)])


def _principal(history: Sequence[Description]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(E, k) the first principal directions of all embeddings, each of unit spread, and their centre (E,)."""
    rows = np.concatenate([each.embedding for each in history]).astype(np.float64)
    centre = rows.mean(axis=0) if rows.shape[1] else np.zeros(0)
    _, spread, axes = np.linalg.svd(rows - centre, full_matrices=False)
    keep = min(COMPONENTS, int((spread > 1e-6).sum()))
    scale = spread[:keep] / math.sqrt(max(len(rows) - 1, 1))
    return axes[:keep].T / scale, centre


def _fit(history: Sequence[Description], rows: Sequence[NDArray[np.float64]]) -> Expected:
    """The levels of all places and the year that they share by least squares, then each place's own year by ridge."""
    place, row = np.unique(np.concatenate([each.place for each in history]), return_inverse=True)
    x = np.repeat([_year(each.time) for each in history], [len(each) for each in history], axis=0)  # (N, H)
    y = np.concatenate(rows)  # (N, D)
    count = np.bincount(row, minlength=len(place)).astype(np.float64)

    def by_place(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros((len(place), values.shape[1]))
        np.add.at(total, row, values)
        return total / count[:, None]

    mean_x, mean_y = by_place(x), by_place(y)
    inner_x, inner_y = x - mean_x[row], y - mean_y[row]  # within places
    gram = inner_x.T @ inner_x
    shared = np.linalg.solve(
        gram + 1e-6 * np.trace(gram) * np.eye(len(gram)) + 1e-9 * np.eye(len(gram)), inner_x.T @ inner_y
    )
    left = inner_y - inner_x @ shared
    grams = np.zeros((len(place), x.shape[1], x.shape[1]))
    np.add.at(grams, row, inner_x[:, :, None] * inner_x[:, None, :])
    cross = np.zeros((len(place), x.shape[1], y.shape[1]))
    np.add.at(cross, row, inner_x[:, :, None] * left[:, None, :])
    own = np.linalg.solve(grams + 0.5 * _OWN_SCENES * np.eye(x.shape[1]), cross)
    level = mean_y - np.einsum("ph,phd->pd", mean_x, shared + own)
    return Expected(shared, place, level, own)


def _folds(history: Sequence[Description]) -> list[int]:
    """Which scenes are left out together: a calendar year, or a scene by itself where there is one year only."""
    years = [int(each.time.astype("datetime64[Y]").astype(int)) for each in history]
    least = min(len(history) - years.count(year) for year in set(years))
    return years if len(set(years)) > 1 and least >= LEAST // 2 else list(range(len(history)))


def _precision(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the shrunken covariance about nought."""
    scale = np.sqrt((deviations**2).mean(axis=0)) + 1e-6
    covariance, _ = ledoit_wolf(deviations / scale, assume_centered=True)
    return np.linalg.inv(covariance * np.outer(scale, scale))


def _length(deviation: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    return math.sqrt(max(float(deviation @ precision @ deviation), 0.0))
