"""How good is a map? Counts per block, scores from counts, and intervals over blocks.

Everything starts from counts that add up: a confusion matrix, or a histogram of scores, one per
block on the ground. A score is a function of the summed counts, so resampling *blocks* gives
intervals that respect the likeness of neighbouring pixels. All functions of counts work over any
leading axes, which is what makes a bootstrap of a thousand draws one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

MINIMUM_BLOCKS = 12
"""With fewer blocks than this no interval is claimed."""

BINS = 2048
"""Resolution of score histograms: enough that binning moves average precision by less than 0.001."""

Counts = NDArray[Any]
Metric = Callable[[Counts], NDArray[np.float64]]
"""From counts (..., *count axes) to scores (...)."""


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count pairs of truth (row) and prediction (column) into a (K, K) matrix.

    Pairs of which either side is not a position 0 … K−1 (unlabelled, no-data) are left out.
    """
    t, p = np.asarray(truth).ravel().astype(np.int64), np.asarray(predicted).ravel().astype(np.int64)
    known = (t >= 0) & (t < classes) & (p >= 0) & (p < classes)
    return np.bincount(t[known] * classes + p[known], minlength=classes * classes).reshape(classes, classes)


def _divide(a: Counts, b: Counts) -> NDArray[np.float64]:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b != 0)


def accuracy(counts: Counts) -> NDArray[np.float64]:
    """Share of pixels that are right: (..., K, K) → (...)."""
    return _divide(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))


def iou(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union of every class: (..., K, K) → (..., K), NaN where neither side has it."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    return _divide(hit, counts.sum(-1) + counts.sum(-2) - hit)


def f1(counts: Counts) -> NDArray[np.float64]:
    """Harmonic mean of recall and precision of every class: (..., K, K) → (..., K), NaN where neither side has it."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    return _divide(2 * hit, counts.sum(-1) + counts.sum(-2))


def recall(counts: Counts) -> NDArray[np.float64]:
    """Share of each true class that is found, its producer's accuracy: (..., K, K) → (..., K)."""
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def precision(counts: Counts) -> NDArray[np.float64]:
    """Share of what is called a class that is it, its user's accuracy: (..., K, K) → (..., K)."""
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-2))


def macro(per_class: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Mean over the classes that the *truth* has: (..., K) → (...), NaN where it has none."""
    present = counts.sum(-1) > 0
    return _divide(np.where(present, per_class, 0.0).sum(-1), present.sum(-1))


def macro_f1(counts: Counts) -> NDArray[np.float64]:
    """F1 averaged over the classes that the truth has: (..., K, K) → (...)."""
    return macro(f1(counts), counts)


def macro_iou(counts: Counts) -> NDArray[np.float64]:
    """IoU averaged over the classes that the truth has: (..., K, K) → (...)."""
    return macro(iou(counts), counts)


def average_precision(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function; NaN without a positive.

    Parameters
    ----------
    truth:
        (N,) whether each sample is positive.
    score:
        (N,) the higher, the likelier positive. Equal scores are one step.
    """
    positive, s = np.asarray(truth).ravel().astype(bool), np.asarray(score).ravel()
    if not positive.any():
        return float("nan")
    _, rank = np.unique(s, return_inverse=True)
    counts = np.stack(
        [
            np.bincount(rank[~positive], minlength=rank.max() + 1),
            np.bincount(rank[positive], minlength=rank.max() + 1),
        ]
    )
    return float(average_precision_of(counts))


def histogram(truth: ArrayLike, score: ArrayLike) -> NDArray[np.int64]:
    """Count scores in 0 … 1 into (2, BINS): row 0 negatives, row 1 positives, low scores first."""
    positive, s = np.asarray(truth).ravel().astype(bool), np.asarray(score).ravel()
    bins = np.clip((s * BINS).astype(np.int64), 0, BINS - 1)
    return np.stack([np.bincount(bins[positive == side], minlength=BINS) for side in (False, True)])


def average_precision_of(counts: Counts) -> NDArray[np.float64]:
    """Average precision from histograms of scores: (..., 2, bins) → (...)."""
    # cumulated from the highest score down: what would be called positive at each threshold
    false, true = np.moveaxis(np.cumsum(counts[..., ::-1], axis=-1), -2, 0)
    precision = np.nan_to_num(_divide(true, true + false))
    return _divide((precision * counts[..., 1, ::-1]).sum(-1), true[..., -1])


def best_threshold(truth: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The threshold with the highest F1 of the positives, midway to the next lower score.

    Parameters
    ----------
    truth, score:
        (N,) whether each sample is positive, and how much it looks so.
    weight:
        (N,) how many samples each stands for, where positives are more or fewer here than where the threshold is
        to be used; None: itself.

    Raises
    ------
    ValueError
        There is no positive.
    """
    positive, s = np.asarray(truth).ravel().astype(bool), np.asarray(score, np.float64).ravel()
    if not positive.any():
        raise ValueError("without a positive no threshold is better than another")
    order = np.argsort(-s, kind="stable")
    many = np.ones(len(s)) if weight is None else np.asarray(weight, np.float64).ravel()[order]
    falling, true = s[order], np.cumsum(positive[order] * many)
    # of equal scores all or none are called positive
    last = np.append(falling[1:] != falling[:-1], True)
    f = np.where(last, 2 * true / (np.cumsum(many) + true[-1]), -1.0)
    best = int(np.argmax(f))
    return float(falling[best] if best + 1 == len(s) else (falling[best] + falling[best + 1]) / 2)


CONFIDENCES = 15
"""Equal steps of confidence that calibration is judged by, as in Guo et al. 2017."""


def reliability(truth: ArrayLike, proba: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Pixels, summed confidence and pixels that are right, by how sure the map is: counts that add up.

    Parameters
    ----------
    truth:
        (N,) positions.
    proba:
        (N, K) probabilities. The likeliest class's is the confidence.

    Returns
    -------
    (CONFIDENCES, 3), the least sure first.
    """
    sure = proba.max(axis=1).astype(np.float64)
    right = proba.argmax(axis=1) == np.asarray(truth)
    step = np.clip(np.ceil(sure * CONFIDENCES).astype(np.int64) - 1, 0, CONFIDENCES - 1)
    columns = (None, sure, right.astype(np.float64))
    return np.stack([np.bincount(step, weights, CONFIDENCES) for weights in columns], axis=1).astype(np.float64)


def calibration_error(counts: Counts) -> NDArray[np.float64]:
    """Expected calibration error: how far confidence is from the share that is right: (..., CONFIDENCES, 3) → (...).

    Guo et al. 2017, "On calibration of modern neural networks", equation 5: the difference in each step of
    confidence, weighted by its pixels. NaN without a pixel.
    """
    pixels, sure, right = np.moveaxis(counts, -1, 0)
    return _divide(np.abs(sure - right).sum(-1), pixels.sum(-1))


METRICS: dict[str, Metric] = {"macro_f1": macro_f1, "macro_iou": macro_iou, "accuracy": accuracy}
"""What is reported of a confusion matrix."""

ERRORS = ("calibration_error",)
"""Names of scores of which less is better."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A score over all blocks together, with the 95 % percentile interval over resampled blocks."""

    mean: float
    """The score over all blocks; NaN where it is not defined (no labelled pixel)."""
    low: float | None = None
    """None: under :data:`MINIMUM_BLOCKS` blocks."""
    high: float | None = None


def _bootstrap(blocks: Counts, metric: Metric, n: int, seed: int) -> NDArray[np.float64] | None:
    """The metric of ``n`` resamplings of the blocks (axis 0) that hold any count: (n,)."""
    flat = blocks.reshape(len(blocks), -1).astype(np.float64)
    flat = flat[flat.any(axis=1)]
    if len(flat) < MINIMUM_BLOCKS:
        return None
    all_along = _of_all(blocks)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=n)
    # in parts: a histogram per draw would otherwise be tens of megabytes at once
    parts = [
        metric((part @ flat + all_along).reshape(-1, *blocks.shape[1:]))
        for part in np.array_split(weights, max(1, n // 100))
    ]
    return np.concatenate(parts)


def _of_all(blocks: Counts) -> Counts:
    """What is added to every draw of confusions: next to nothing of all blocks' counts, flat.

    A class that no drawn block has keeps by it the score that it has over all blocks. Were it left out, the mean over
    classes would be of fewer of them, most often without the rare ones, and so too high; were it 0, a perfect map would
    not be. What tells two classes alone apart has counts of other shapes, and is not defined without both.
    """
    confusions = blocks.shape[-2] == blocks.shape[-1]
    return 1e-9 * blocks.sum(axis=0, dtype=np.float64).ravel() if confusions else np.zeros(1)


def _interval(point: float, draws: NDArray[np.float64] | None) -> Interval:
    if draws is None or np.isnan(draws).all():
        return Interval(point)
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    # errors of calibration grow when blocks are drawn again, so all draws may lie above the point
    return Interval(point, min(float(low), point), max(float(high), point))


def block_bootstrap(blocks: Counts, metric: Metric, *, n: int = 1000, seed: int = 0) -> Interval:
    """A score with its interval over blocks.

    Parameters
    ----------
    blocks:
        (blocks, ...) counts, for example (B, K, K) confusions or (B, 2, bins) histograms.
    metric:
        From summed counts to a score.
    """
    return _interval(float(metric(blocks.sum(axis=0))), _bootstrap(blocks, metric, n, seed))


def paired_bootstrap(a: Counts, b: Counts, metric: Metric, *, n: int = 1000, seed: int = 0) -> Interval:
    """How much better ``a`` scores than ``b`` on the same blocks, with its interval over blocks.

    Parameters
    ----------
    a, b:
        (blocks, ...) counts of the same blocks in the same order.
    """
    if a.shape != b.shape:
        raise ValueError(f"counts of the same blocks have one shape, not {a.shape} and {b.shape}")
    # one array of both, so that every draw takes the same blocks from each side
    both = np.stack([a, b], axis=1)

    def difference(counts: Counts) -> NDArray[np.float64]:
        first, second = np.moveaxis(counts, -a.ndim, 0)
        return metric(first) - metric(second)

    return block_bootstrap(both, difference, n=n, seed=seed)


Verdict = Literal["gain", "no gain", "loss", "too few blocks"]


def verdict(difference: Interval, by_seed: Sequence[float] = ()) -> Verdict:
    """What a difference allows to claim: nothing, where its interval holds 0 or the seeds disagree in sign."""
    if difference.low is None or difference.high is None:
        return "too few blocks"
    if difference.low > 0 and all(d > 0 for d in by_seed):
        return "gain"
    if difference.high < 0 and all(d < 0 for d in by_seed):
        return "loss"
    return "no gain"


def score_row(*, task: str, split: str, labels: int, model: str, metric: str, interval: Interval) -> dict[str, Any]:
    """One line of a score table, as cards, reports and the registry hold it."""
    return {
        "task": task,
        "split": split,
        "labels": labels,
        "model": model,
        "metric": metric,
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
    }
