"""Scores against scikit-learn, intervals against known spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import softmax
from sklearn import metrics as oracle
from torchmetrics.functional.classification import multiclass_calibration_error

from geossl import scores

LABELS = hnp.arrays(np.uint8, st.integers(1, 60), elements=st.integers(0, 3))


@given(st.data())
def test_confusion_scores_match_sklearn(data: st.DataObject) -> None:
    truth = data.draw(LABELS)
    predicted = data.draw(hnp.arrays(np.uint8, len(truth), elements=st.integers(0, 3)))
    counts = scores.confusion(truth, predicted, 4)
    present = np.unique(truth)
    assert (counts == oracle.confusion_matrix(truth, predicted, labels=range(4))).all()
    assert scores.accuracy(counts) == pytest.approx(oracle.accuracy_score(truth, predicted))
    for ours, theirs in ((scores.f1, oracle.f1_score), (scores.iou, oracle.jaccard_score)):
        per_class = theirs(truth, predicted, labels=present, average=None, zero_division=0)
        assert ours(counts)[present] == pytest.approx(per_class)
        assert scores.macro(ours(counts), counts) == pytest.approx(per_class.mean())


def test_no_label_and_no_data_are_left_out() -> None:
    counts = scores.confusion([0, 255, 1, 1], [0, 0, 255, 1], 2)
    assert counts.tolist() == [[1, 0], [0, 1]]


def test_classes_absent_from_the_truth_do_not_enter_the_mean() -> None:
    counts = scores.confusion([0, 0, 1, 1], [0, 0, 1, 2], 4)
    assert scores.macro_f1(counts) == pytest.approx((1 + 2 / 3) / 2)


def test_scores_of_nothing_are_nan() -> None:
    nothing = np.zeros((2, 2), np.int64)
    assert all(math.isnan(metric(nothing)) for metric in scores.METRICS.values())
    assert math.isnan(scores.average_precision([0, 0], [0.1, 0.2]))
    assert math.isnan(scores.average_precision([], []))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1).filter(lambda rows: any(t for t, _ in rows)))
def test_average_precision_matches_sklearn(rows: list[tuple[bool, int]]) -> None:
    truth, score = zip(*rows, strict=True)
    assert scores.average_precision(truth, score) == pytest.approx(oracle.average_precision_score(truth, score))


def test_binned_average_precision_is_close_to_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.03
    score = 1 / (1 + np.exp(-(rng.normal(size=20_000) + 2.5 * truth - 3)))
    binned = scores.average_precision_of(scores.histogram(truth, score))
    assert binned == pytest.approx(oracle.average_precision_score(truth, score), abs=1e-3)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1).filter(lambda rows: any(t for t, _ in rows)))
def test_best_threshold_is_the_best_of_all(rows: list[tuple[bool, int]]) -> None:
    truth, score = (np.array(column) for column in zip(*rows, strict=True))
    threshold = scores.best_threshold(truth, score)
    every = [oracle.f1_score(truth, score >= t) for t in range(21)]
    assert oracle.f1_score(truth, score >= threshold) == pytest.approx(max(every))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 4)), min_size=1).filter(
        lambda rows: any(t for t, _, _ in rows)
    )
)
def test_a_sample_that_stands_for_several_counts_as_often(rows: list[tuple[bool, int, int]]) -> None:
    truth, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    repeated = scores.best_threshold(np.repeat(truth, weight), np.repeat(score, weight))
    assert scores.best_threshold(truth, score, weight) == repeated


def test_no_threshold_without_positives() -> None:
    with pytest.raises(ValueError, match="without a positive"):
        scores.best_threshold([0, 0], [0.1, 0.2])


def test_no_interval_is_claimed_under_twelve_blocks() -> None:
    blocks = np.tile(np.array([[5, 1], [2, 4]]), (12, 1, 1))
    assert scores.block_bootstrap(blocks, scores.accuracy).low is not None
    assert scores.block_bootstrap(blocks[:11], scores.accuracy).mean == pytest.approx(0.75)
    assert scores.block_bootstrap(blocks[:11], scores.accuracy).low is None
    blocks[0] = 0  # a block without a labelled pixel is no block
    assert scores.block_bootstrap(blocks, scores.accuracy).low is None


def test_interval_covers_as_often_as_it_says() -> None:
    """Accuracy over 40 blocks of one pixel each is a binomial share: the truth lies inside about 95 % of the time."""
    rng = np.random.default_rng(2)
    inside = 0
    for trial in range(200):
        right = rng.random(40) < 0.7
        blocks = np.zeros((40, 2, 2), np.int64)
        blocks[:, 0, 0], blocks[:, 0, 1] = right, ~right
        interval = scores.block_bootstrap(blocks, scores.accuracy, n=400, seed=trial)
        assert interval.mean == pytest.approx(right.mean())
        inside += interval.low <= 0.7 <= interval.high  # type: ignore[operator]  # 40 blocks have bounds
    assert 0.87 < inside / 200 < 0.99


def test_a_rare_class_keeps_its_score_in_draws_without_it() -> None:
    """One of 20 blocks has all of it: left out of a draw, a map of one class would have more than 1/3."""
    blocks = np.zeros((20, 3, 3), np.int64)
    blocks[:, 0, 0], blocks[:, 1, 1], blocks[0, 2, 2] = 50, 50, 5
    perfect = scores.block_bootstrap(blocks, scores.macro_f1)
    assert (perfect.mean, perfect.low, perfect.high) == pytest.approx((1, 1, 1))
    constant = np.zeros_like(blocks)
    constant[:, :, 0] = blocks.sum(axis=2)
    interval = scores.block_bootstrap(constant, scores.macro_f1)
    assert interval.mean == pytest.approx(scores.f1(constant.sum(axis=0))[0] / 3)
    assert interval.high == pytest.approx(interval.mean, abs=0.02)
    difference = scores.paired_bootstrap(blocks, constant, scores.macro_f1)
    assert difference.high == pytest.approx(difference.mean, abs=0.02)


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    """Blocks differ a lot, the models by a little everywhere: only the paired difference is certain."""
    rng = np.random.default_rng(3)
    right = rng.integers(10, 90, 30)
    a, b = (np.zeros((30, 2, 2), np.int64) for _ in range(2))
    a[:, 0, 0], a[:, 0, 1] = right + 3, 97 - right
    b[:, 0, 0], b[:, 0, 1] = right, 100 - right
    apart = [scores.block_bootstrap(x, scores.accuracy) for x in (a, b)]
    assert apart[1].high > apart[0].low  # type: ignore[operator]  # 30 blocks have bounds
    difference = scores.paired_bootstrap(a, b, scores.accuracy)
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.03, 0.03, 0.03))
    assert scores.verdict(difference) == "gain"
    assert scores.verdict(scores.paired_bootstrap(b, a, scores.accuracy)) == "loss"
    assert scores.verdict(difference, by_seed=[0.1, -0.01]) == "no gain"
    assert scores.verdict(scores.paired_bootstrap(a[:11], b[:11], scores.accuracy)) == "too few blocks"


def test_bootstrap_is_the_same_under_one_seed() -> None:
    blocks = np.random.default_rng(4).integers(0, 50, (20, 3, 3))
    assert scores.block_bootstrap(blocks, scores.macro_f1, seed=7) == scores.block_bootstrap(
        blocks, scores.macro_f1, seed=7
    )


def sure_and_right(n: int, bias: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Truth drawn from probabilities of three classes, and probabilities that are surer by ``bias`` of logits."""
    rng = np.random.default_rng(6)
    logits = rng.normal(scale=1.5, size=(n, 3))
    proba = softmax(logits, axis=1)
    truth = (proba.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return truth, softmax(logits * np.exp(bias), axis=1)


def test_calibration_error_is_torchmetrics() -> None:
    truth, proba = sure_and_right(5_000, bias=0.7)
    ours = scores.calibration_error(scores.reliability(truth, proba))
    theirs = multiclass_calibration_error(
        torch.from_numpy(proba), torch.from_numpy(truth), num_classes=3, n_bins=scores.CONFIDENCES
    )
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
    assert ours > 0.1


def test_true_probabilities_are_calibrated_and_parts_add_up() -> None:
    truth, proba = sure_and_right(60_000)
    parts = np.stack([scores.reliability(truth[part], proba[part]) for part in np.array_split(np.arange(60_000), 20)])
    assert parts.sum(axis=0) == pytest.approx(scores.reliability(truth, proba))
    assert parts[..., 0].sum() == 60_000
    found = scores.block_bootstrap(parts, scores.calibration_error)
    assert found.mean < 0.01
    assert found.low is not None
    assert found.low <= found.mean <= found.high  # type: ignore[operator]
    assert scores.block_bootstrap(parts[:11], scores.calibration_error).low is None


def test_certainty_falls_into_the_last_step() -> None:
    counts = scores.reliability([0, 1], np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert counts[-1].tolist() == [2, 2, 1]
    assert scores.calibration_error(counts) == pytest.approx(0.5)
    assert np.isnan(scores.calibration_error(np.zeros((scores.CONFIDENCES, 3))))


def test_recall_and_precision_are_scikit_learns() -> None:
    rng = np.random.default_rng(7)
    truth, said = rng.integers(0, 3, (2, 500))
    counts = scores.confusion(truth, said, 4)
    assert scores.recall(counts)[:3] == pytest.approx(oracle.recall_score(truth, said, average=None))
    assert scores.precision(counts)[:3] == pytest.approx(oracle.precision_score(truth, said, average=None))
    assert np.isnan(scores.recall(counts)[3])
