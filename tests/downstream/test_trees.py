"""A stored forest is scikit-learn's: the same probabilities from arrays alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geossl import probe
from geossl.downstream import landcover
from geossl.downstream.data import TaskData
from geossl.downstream.describe import by_statistics
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.task import load_task, save_task
from geossl.downstream.trees import LEAST, Forest, ForestNetwork
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder


def samples(n: int, classes: int, seed: int, grid: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of which a class shifts some; on a coarse grid, thresholds lie on samples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, 12)) + y[:, None] * (np.arange(12) < 4)
    return (np.round(x, 1) if grid else x).astype(np.float32), y


@pytest.mark.parametrize("grid", [False, True])
def test_probabilities_are_scikit_learns(grid: bool) -> None:
    x, y = samples(400, 4, 0, grid)
    kept = y != 2  # one class has no samples
    fitted = probe.RandomForest(4, seed=1, trees=30).fit(x[kept], y[kept])
    forest = Forest.of(fitted.model, 4)
    unseen, _ = samples(3000, 4, 1, grid)
    ours = forest(torch.from_numpy(unseen.T.copy())).numpy()
    np.testing.assert_allclose(ours, fitted.predict_proba(unseen), atol=1e-6)
    assert (ours[:, 2] == 0).all()


def test_the_descent_by_torch_comes_to_the_same_leaves() -> None:
    """It is what a GPU does."""
    x, y = samples(400, 3, 0, grid=True)
    forest = Forest.of(probe.RandomForest(3, seed=1, trees=30).fit(x, y).model, 3)
    unseen = torch.from_numpy(samples(3000, 3, 1, grid=True)[0].T.copy())
    unseen[3, ::7] = torch.nan
    for root, leaves in zip(forest.root, forest._leaves(unseen), strict=True):
        assert torch.equal(forest._leaf(unseen, root), leaves)


def test_a_threshold_between_neighbouring_floats_stays_between() -> None:
    """Half-way between two float32, rounding to nearest would let the upper one through."""
    low = np.nextafter(np.float32(100), np.float32(200))  # nearer than 1e-7 scikit-learn would not split
    x = np.array([[low], [np.nextafter(low, np.float32(200))]] * 20, np.float32)
    y = np.arange(40) % 2
    fitted = probe.RandomForest(2, seed=0, trees=5).fit(x, y)
    ours = Forest.of(fitted.model, 2)(torch.from_numpy(x.T.copy())).numpy()
    np.testing.assert_allclose(ours, fitted.predict_proba(x), atol=1e-6)
    assert (ours.argmax(axis=1) == y).all()


def test_the_chosen_forest_survives_its_folder(
    landcover_data: TaskData, encoder: Encoder, card: Card, tmp_path: Path
) -> None:
    only = (("statistics", "forest"),)
    task = landcover.fit(landcover_data, encoder, card, LandcoverSettings(mode="few", labels=120), candidates=only)
    assert (task.card.head, task.card.features, task.card.encoder) == ("forest", "statistics", "")
    save_task(tmp_path, task)
    again = load_task(tmp_path)
    assert again.id == task.id
    image, valid = landcover_data.images(landcover_data.tile_ids[0])
    image, valid = image[:, :, :64, :64], valid[:, :64, :64]
    proba = again.describe(image, valid)
    assert (proba == task.describe(image, valid)).all()
    assert proba.sum(axis=0)[valid[0]] == pytest.approx(1, abs=1e-5)

    # the map's probabilities are the forest's, but for the least that a class taught gets
    pixels = landcover_data.sample(120, seed=0)
    table = landcover_data.gather(pixels, by_statistics(card.statistics))
    fitted = probe.RandomForest(3, 0, landcover.TREES).fit(table, pixels.label)
    features = by_statistics(card.statistics)(image, valid)
    expected = np.maximum(fitted.predict_proba(features.reshape(len(features), -1).T), LEAST)
    plain = dataclasses.replace(again, card=dataclasses.replace(again.card, temperature=1.0))
    ours = plain.describe(image, valid).reshape(3, -1).T
    known = valid[0].ravel()
    np.testing.assert_allclose(ours[known], (expected / expected.sum(axis=1, keepdims=True))[known], atol=1e-5)


def test_hypercolumns_come_before_statistics(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    features = sum(encoder.dims)
    x = rng.normal(size=(60, features + 22)).astype(np.float32)
    y = (x[:, features] > 0).astype(np.int64)  # the first band itself
    fitted = probe.RandomForest(2, seed=0, trees=40).fit(x, y)
    network = ForestNetwork(encoder, Forest.of(fitted.model, 2), statistics=True).eval()
    image = torch.randn(1, 1, 2, 32, 32, generator=torch.manual_seed(0))
    with torch.inference_mode():
        logits = network(image, torch.ones(1, 1, 32, 32, dtype=torch.bool))[0]
    rises = logits[1][image[0, 0, 0] > 0.5].mean() - logits[1][image[0, 0, 0] < -0.5].mean()
    assert rises > 0.2
