"""Closed forms against scikit-learn, and the promises that every probe makes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from geossl import probe

MAKERS: dict[str, Callable[[int], probe.Probe]] = {
    "knn": probe.KNN,
    "lda": probe.ShrinkageLDA,
    "logistic": probe.Logistic,
    "forest": lambda classes: probe.RandomForest(classes, trees=30),
}


def clouds(n: int, classes: int, seed: int, apart: float = 3.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian clouds around class means on a circle, in 6 features of very different scale."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    angle = 2 * np.pi * y / classes
    x = rng.normal(size=(n, 6))
    x[:, 0] += apart * np.cos(angle)
    x[:, 1] += apart * np.sin(angle)
    return (x * [1e4, 1e-2, 1, 1, 100, 1] + 500).astype(np.float32), y


@pytest.mark.parametrize("name", MAKERS)
def test_separable_clouds_are_told_apart(name: str) -> None:
    x, y = clouds(200, 3, seed=0)
    unseen, truth = clouds(300, 3, seed=1)
    proba = MAKERS[name](3).fit(x, y).predict_proba(unseen)
    assert proba.shape == (300, 3)
    assert proba.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (proba.argmax(axis=1) == truth).mean() > 0.93


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kept", [[0, 2], [2]])
def test_a_class_without_samples_gets_probability_zero(name: str, kept: list[int]) -> None:
    x, y = clouds(60, 3, seed=0)
    part = np.isin(y, kept)
    proba = MAKERS[name](4).fit(x[part], y[part]).predict_proba(x)
    absent = [c for c in range(4) if c not in kept]
    assert proba.shape == (60, 4)
    assert (proba[:, absent] == 0).all()
    assert proba.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (proba[part].argmax(axis=1) == y[part]).mean() > 0.9


@pytest.mark.parametrize("name", MAKERS)
def test_constant_features_and_single_samples_do_no_harm(name: str) -> None:
    x, y = clouds(21, 3, seed=0, apart=8.0)
    x = np.concatenate([x, np.full((21, 2), 7.0, np.float32)], axis=1)
    lone = np.concatenate([[0], np.flatnonzero(y != 0)])
    proba = MAKERS[name](3).fit(x[lone], y[lone]).predict_proba(x)
    assert np.isfinite(proba).all()


def test_lda_is_scikit_learns_with_plentiful_data() -> None:
    """With many balanced samples shrinkage vanishes, and both are the same Gaussian model."""
    x, y = clouds(9000, 3, seed=0, apart=1.0)
    ours = probe.ShrinkageLDA(3).fit(x, y).predict_proba(x[:500])
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x.astype(np.float64), y).predict_proba(x[:500])
    assert ours == pytest.approx(theirs, abs=0.01)


@pytest.mark.parametrize("make", [probe.ShrinkageLDA, probe.Logistic])
def test_linear_probes_do_not_care_about_units(make: type[probe.ShrinkageLDA]) -> None:
    x, y = clouds(100, 3, seed=0)
    scaled = x * np.float32(20) + 3
    assert make(3).fit(scaled, y).predict_proba(scaled) == pytest.approx(make(3).fit(x, y).predict_proba(x), abs=5e-3)


def test_forest_is_the_same_under_one_seed() -> None:
    x, y = clouds(100, 3, seed=0, apart=0.5)
    first, second = (probe.RandomForest(3, seed=4, trees=20).fit(x, y).predict_proba(x) for _ in range(2))
    assert (first == second).all()


def test_cross_validation_keeps_a_group_on_one_side() -> None:
    """Every group has its own fingerprint that gives its labels away: only a leak would score above chance."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    y = rng.integers(0, 2, 40)[groups]
    x = rng.normal(size=(40, 8))[groups] + 0.01 * rng.normal(size=(400, 8))
    assert probe.cross_validate(lambda: probe.KNN(2), x, y, groups) < 0.7
    assert probe.cross_validate(lambda: probe.KNN(2), x, y, np.arange(400)) > 0.9


def test_with_one_group_there_is_nothing_to_cross_validate() -> None:
    x, y = clouds(30, 3, seed=0)
    score = probe.cross_validate(lambda: probe.ShrinkageLDA(3), x, y, np.zeros(30, np.int64))
    assert np.isnan(score)


def test_tuning_takes_the_best_and_the_first_of_equals() -> None:
    x, y = clouds(200, 3, seed=0, apart=1.5)
    weak: Callable[[], probe.Probe] = functools.partial(probe.KNN, 3, 1)
    strong: Callable[[], probe.Probe] = functools.partial(probe.ShrinkageLDA, 3)
    blocks = np.arange(200) // 5
    number, score = probe.choice([weak, strong, strong], x, y, blocks)
    assert (number, score) == (1, pytest.approx(probe.cross_validate(strong, x, y, blocks)))
    assert probe.choice([weak, strong], x, y, np.zeros(200, np.int64))[0] == 0
