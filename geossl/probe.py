"""Small classifiers on feature arrays: how much does a representation already know?

All take (N, D) float features and (N,) class positions 0 … K−1, and give (N, K) probabilities.
A class that the training labels lack keeps its column and gets probability 0.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf, shrunk_covariance
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier

from geossl.scores import confusion, macro_f1

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


CHOICE = 2000
"""Most samples that choose between probes: more would cost time and change little."""

SHRINKAGES = (None, 0.1, 0.3, 0.6)


class Probe(Protocol):
    """What every classifier here can do."""

    def fit(self, x: Floats, y: Labels) -> Self: ...

    def predict_proba(self, x: Floats) -> NDArray[np.float32]: ...


@dataclass
class Scaler:
    """Shift and scale every feature to mean 0 and standard deviation 1 (constant features to 0)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, x: Floats) -> Self:
        mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        # a feature that is constant up to rounding carries nothing but rounding
        return cls(mean, np.where(std > 1e-7 * np.maximum(1.0, np.abs(mean)), std, np.inf))

    def __call__(self, x: Floats) -> NDArray[np.float32]:
        return ((x - self.mean) / self.std).astype(np.float32)


def softmax(logits: Floats, axis: int = -1) -> NDArray[np.float32]:
    """Exponentials that sum to 1 along an axis; a logit of −inf gives 0."""
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(np.float32)


class Linear(ABC):
    """Base of the probes that end in ``softmax(x @ weight.T + bias)`` on *unscaled* features."""

    weight: NDArray[np.float32]
    """(K, D); zeros for a class never seen."""
    bias: NDArray[np.float32]
    """(K,); −inf for a class never seen."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def fit(self, x: Floats, y: Labels) -> Self:
        scaler = Scaler.of(x)
        seen, position = np.unique(y, return_inverse=True)
        weight, bias = (
            self._solve(scaler(x), position, len(seen)) if len(seen) > 1 else (np.zeros((1, x.shape[1])), 0.0)
        )
        # the scaling is folded into the weights, and classes never seen get their empty rows
        self.weight = np.zeros((self.classes, x.shape[1]), np.float32)
        self.bias = np.full(self.classes, -np.inf, np.float32)
        self.weight[seen] = weight / scaler.std
        self.bias[seen] = bias - (weight / scaler.std) @ scaler.mean
        return self

    @abstractmethod
    def _solve(self, z: Floats, y: Labels, classes: int) -> tuple[Floats, Floats]:
        """Weight (classes, D) and bias (classes,) for scaled features; every class 0 … classes−1 has samples."""

    def logits(self, x: Floats) -> NDArray[np.float32]:
        return x.astype(np.float32) @ self.weight.T + self.bias

    def predict_proba(self, x: Floats) -> NDArray[np.float32]:
        return softmax(self.logits(x))


class ShrinkageLDA(Linear):
    """Linear discriminant analysis with one covariance for all classes, shrunk towards a multiple of the identity.

    The within-class covariance is pooled before it is shrunk, so a class with a single sample
    does no harm. All classes seen are held equally likely beforehand.

    Parameters
    ----------
    shrinkage:
        0 … 1; None: after Ledoit and Wolf. That suits a few features; many alike features are
        separated better with more, so :func:`ldas` offers both to :func:`tuned`.
    """

    def __init__(self, classes: int, shrinkage: float | None = None) -> None:
        super().__init__(classes)
        self.shrinkage = shrinkage

    def _solve(self, z: Floats, y: Labels, classes: int) -> tuple[Floats, Floats]:
        z = z.astype(np.float64)
        means = np.stack([z[y == k].mean(axis=0) for k in range(classes)])
        within = z - means[y]
        if self.shrinkage is None:
            covariance, _ = ledoit_wolf(within, assume_centered=True)
        else:
            covariance = shrunk_covariance(within.T @ within / len(within), self.shrinkage)
        # the small ridge keeps features that never vary within a class from dividing by zero
        covariance += 1e-6 * np.eye(len(covariance))
        weight = np.linalg.solve(covariance, means.T).T
        return weight, -0.5 * (weight * means).sum(axis=1)


class Logistic(Linear):
    """Multinomial logistic regression with classes weighted equally.

    Parameters
    ----------
    strength:
        Inverse of the L2 penalty on scaled features; small, since features are many and labels few.
    """

    def __init__(self, classes: int, strength: float = 0.01) -> None:
        super().__init__(classes)
        self.strength = strength

    def _solve(self, z: Floats, y: Labels, classes: int) -> tuple[Floats, Floats]:
        model = LogisticRegression(C=self.strength, class_weight="balanced", max_iter=1000, tol=1e-3).fit(z, y)
        if classes > 2:
            return model.coef_, model.intercept_
        # scikit-learn keeps one row for two classes
        return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate(
            [-model.intercept_, model.intercept_]
        ) / 2


class _Wrapped:
    """Base of the probes that keep a fitted scikit-learn model."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def _spread(self, seen: Labels, proba: Floats) -> NDArray[np.float32]:
        """Columns of the classes seen → columns of all K classes."""
        out = np.zeros((len(proba), self.classes), np.float32)
        out[:, seen] = proba
        return out


class KNN(_Wrapped):
    """The share of each class among the nearest training samples, on scaled features."""

    def __init__(self, classes: int, neighbours: int = 5) -> None:
        super().__init__(classes)
        self.neighbours = neighbours

    def fit(self, x: Floats, y: Labels) -> Self:
        self.scaler = Scaler.of(x)
        self.model = KNeighborsClassifier(n_neighbors=min(self.neighbours, len(x)))
        self.model.fit(self.scaler(x), y)
        return self

    def predict_proba(self, x: Floats) -> NDArray[np.float32]:
        return self._spread(self.model.classes_, self.model.predict_proba(self.scaler(x)))


class RandomForest(_Wrapped):
    """A random forest with classes weighted equally.

    Parameters
    ----------
    seed:
        Of bootstrap and feature draws.
    """

    def __init__(self, classes: int, seed: int = 0, trees: int = 200) -> None:
        super().__init__(classes)
        self.seed = seed
        self.trees = trees

    def fit(self, x: Floats, y: Labels) -> Self:
        self.model = RandomForestClassifier(self.trees, class_weight="balanced", random_state=self.seed)
        self.model.fit(x, y)
        return self

    def predict_proba(self, x: Floats) -> NDArray[np.float32]:
        return self._spread(self.model.classes_, self.model.predict_proba(x))


def out_of_fold[P: Probe](
    make: Callable[[], P],
    x: Floats,
    y: Labels,
    groups: Labels,
    predict: Callable[[P, Floats], NDArray[np.float32]],
    *,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float32] | None:
    """What a probe says of samples whose group it has not seen: (N, K), or None with a single group.

    Parameters
    ----------
    groups:
        (N,) block of every sample: neighbours look alike, so a block is never on both sides.
    predict:
        Which output to take, for example ``Linear.logits``.
    """
    found = len(np.unique(groups))
    if found < 2:
        return None
    parts: list[tuple[Any, NDArray[np.float32]]] = []
    for train, test in GroupKFold(min(folds, found), shuffle=True, random_state=seed).split(x, y, groups):
        parts.append((test, predict(make().fit(x[train], y[train]), x[test])))
    out = np.empty((len(x), parts[0][1].shape[1]), np.float32)
    for test, values in parts:
        out[test] = values
    return out


def cross_validate(
    make: Callable[[], Probe], x: Floats, y: Labels, groups: Labels, *, folds: int = 5, seed: int = 0
) -> float:
    """Macro F1 of the pooled out-of-fold predictions; NaN where there is a single group."""
    proba = out_of_fold(make, x, y, groups, lambda probe, part: probe.predict_proba(part), folds=folds, seed=seed)
    if proba is None:
        return float("nan")
    return float(macro_f1(confusion(y, proba.argmax(axis=1), proba.shape[1])))


@dataclass(frozen=True)
class Tuned[P: Probe]:
    """The candidate that cross-validation liked best, fitted to all samples."""

    number: int
    """Which candidate; the first where there is nothing to choose by, or of equals."""
    probe: P
    score: float
    """Macro F1 of its out-of-fold predictions; NaN where there was a single group."""


def tuned[P: Probe](
    candidates: Sequence[Callable[[], P]], x: Floats, y: Labels, groups: Labels, *, seed: int = 0
) -> Tuned[P]:
    """The probe that :func:`choice` names, fitted to all samples."""
    best, score = choice(candidates, x, y, groups, seed=seed)
    return Tuned(best, candidates[best]().fit(x, y), score)


def choice(
    candidates: Sequence[Callable[[], Probe]], x: Floats, y: Labels, groups: Labels, *, seed: int = 0
) -> tuple[int, float]:
    """Which probe does best in cross-validation over groups, on at most :data:`CHOICE` samples, and its macro F1."""
    few = np.random.default_rng(seed).permutation(len(x))[:CHOICE]
    scores = [cross_validate(make, x[few], y[few], groups[few], seed=seed) for make in candidates]
    best = int(np.argmax(np.nan_to_num(scores, nan=-1.0)))
    return best, scores[best]


def ldas(classes: int) -> list[Callable[[], ShrinkageLDA]]:
    """LDA with the shrinkages that are tried."""
    return [functools.partial(ShrinkageLDA, classes, shrinkage) for shrinkage in SHRINKAGES]
