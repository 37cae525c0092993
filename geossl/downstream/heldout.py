"""Count what contenders get right on held-out pixels, block by block, and turn counts into rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import scores
from geossl.chips.split import TEST
from geossl.downstream.data import CONTEXT, CORE, Describe, LabelledTiles, windows
from geossl.errors import LabelError
from geossl.legend import NO_LABEL
from geossl.progress import Progress, silent

Decide = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From the features (N, F) of pixels to class probabilities (N, K)."""


@dataclass(frozen=True)
class Contender:
    """Anything that can be scored: features of a window, then a decision on single pixels.

    The two are apart so that contenders with the same features share the work.
    """

    name: str
    describe: Describe
    decide: Decide


@dataclass(frozen=True)
class Counts:
    """What one contender got right and wrong, block by block; the blocks are the same for all."""

    confusion: NDArray[np.int64]
    """(blocks, K, K), truth in rows."""
    histogram: NDArray[np.int64]
    """(blocks, 2, bins) of the second class's probability, row 1 where it is the truth; no bins but for two classes."""
    reliability: NDArray[np.float64]
    """(blocks, steps of confidence, 3): pixels, summed confidence, pixels that are right."""

    @classmethod
    def of(cls, truth: NDArray[np.uint8], proba: NDArray[np.float32]) -> Counts:
        """Counts of one block: (N,) positions and (N, K) probabilities."""
        classes = proba.shape[1]
        confusion = scores.confusion(truth, proba.argmax(axis=1), classes)
        histogram = scores.histogram(truth == 1, proba[:, 1]) if classes == 2 else np.zeros((2, 0), np.int64)
        return cls(confusion[None], histogram[None], scores.reliability(truth, proba)[None])

    @classmethod
    def join(cls, parts: Sequence[Counts]) -> Counts:
        """Counts of several blocks, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __add__(self, other: Counts) -> Counts:
        names = [field.name for field in dataclasses.fields(self)]
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))


def count(
    data: LabelledTiles,
    contenders: Sequence[Contender],
    *,
    every: int = 1,
    subset: int = TEST,
    progress: Progress = silent,
) -> dict[str, Counts]:
    """Run contenders over the labelled pixels of a subset, all on the same pixels, in one pass.

    Parameters
    ----------
    every:
        Take every so-many-th pixel of the grid's lattice in both directions.

    Raises
    ------
    LabelError
        No pixel there is labelled.
    """
    found: dict[int, dict[str, Counts]] = {}
    for position, ground in data.grounds():
        progress("score", position, len(data.tile_ids))
        top, left = data.origin(ground.tile_id)
        wanted = (ground.subset == subset) & (ground.label != NO_LABEL)
        wanted &= ((np.arange(wanted.shape[0]) + top) % every == 0)[:, None]
        wanted &= ((np.arange(wanted.shape[1]) + left) % every == 0)[None, :]
        if not wanted.any():
            continue
        image, valid = data.images(ground.tile_id)
        for window in windows(image, valid, wanted):
            core = slice(window.row, window.row + CORE), slice(window.col, window.col + CORE)
            row, col = np.nonzero(wanted[core])
            truth, block = ground.label[core][row, col], ground.block[core][row, col]
            features: dict[Describe, NDArray[np.float32]] = {}
            for each in contenders:
                if each.describe not in features:
                    described = each.describe(window.image, window.valid)
                    features[each.describe] = described[:, row + CONTEXT, col + CONTEXT].T
                proba = each.decide(features[each.describe])
                for number in np.unique(block):
                    here = block == number
                    counted = Counts.of(truth[here], proba[here])
                    blocks = found.setdefault(int(number), {})
                    blocks[each.name] = blocks[each.name] + counted if each.name in blocks else counted
    progress("score", len(data.tile_ids), len(data.tile_ids))
    if not found:
        raise LabelError(
            f"no clear pixel in the test blocks is labelled in {data.name!r}",
            "label more ground, or use smaller blocks under `split`",
        )
    in_order = [found[number] for number in sorted(found)]
    return {each.name: Counts.join([blocks[each.name] for blocks in in_order]) for each in contenders}


@dataclass(frozen=True)
class Measure:
    """A score, and of which counts."""

    name: str
    counts: Callable[[Counts], NDArray[Any]]
    metric: scores.Metric

    def total(self, draws: Sequence[Counts]) -> NDArray[Any]:
        """The counts (blocks, ...) of all draws together."""
        return np.sum([self.counts(draw) for draw in draws], axis=0)


CALIBRATION = Measure("calibration_error", lambda c: c.reliability, scores.calibration_error)


def _of_any_change(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(..., K, K) → (..., 2, 2): no change, and change of any class."""
    rows = np.stack([counts[..., :1, :].sum(-2), counts[..., 1:, :].sum(-2)], axis=-2)
    return np.stack([rows[..., :1].sum(-1), rows[..., 1:].sum(-1)], axis=-1)


MEASURES: dict[str, tuple[Measure, ...]] = {
    "landcover": (
        *(Measure(name, lambda c: c.confusion, metric) for name, metric in scores.METRICS.items()),
        CALIBRATION,
    ),
    "change": (
        Measure("average_precision", lambda c: c.histogram, scores.average_precision_of),
        Measure("f1", lambda c: c.confusion, lambda counts: scores.f1(counts)[..., 1]),
        CALIBRATION,
    ),
    "from-to change": (
        *(Measure(name, lambda c: c.confusion, metric) for name, metric in scores.METRICS.items()),
        Measure("f1_of_change", lambda c: c.confusion, lambda counts: scores.f1(_of_any_change(counts))[..., 1]),
        CALIBRATION,
    ),
}
"""What is reported of each kind of task; change of more classes than two is from-to change."""


def score_rows(
    measures: Sequence[Measure], results: Mapping[str, Sequence[Counts]], **about: Any
) -> list[dict[str, Any]]:
    """One row for each model and measure.

    Parameters
    ----------
    results:
        Model → its draws, which are added up.
    about:
        task, split and labels of the rows.
    """
    return [
        scores.score_row(**about, model=model, metric=m.name, interval=scores.block_bootstrap(m.total(draws), m.metric))
        for model, draws in results.items()
        for m in measures
    ]


CLASS_MEASURES: dict[str, scores.Metric] = {
    "f1": scores.f1,
    "iou": scores.iou,
    "recall": scores.recall,
    "precision": scores.precision,
}
"""What is reported of every class."""


def class_rows(names: Sequence[str], draws: Sequence[Counts]) -> list[dict[str, Any]]:
    """For every class: its name, and for each measure mean, low and high over blocks; None where it is not defined."""
    blocks = np.sum([draw.confusion for draw in draws], axis=0)
    rows = []
    for k, name in enumerate(names):
        row: dict[str, Any] = {"name": name}
        for measure, metric in CLASS_MEASURES.items():
            found = scores.block_bootstrap(blocks, _of_class(metric, k))
            row[measure] = None if np.isnan(found.mean) else {"mean": found.mean, "low": found.low, "high": found.high}
        rows.append(row)
    return rows


def _of_class(metric: scores.Metric, k: int) -> scores.Metric:
    """A score of every class as that of one: (..., K, K) → (...)."""
    return lambda counts: metric(counts)[..., k]


def difference_rows(
    measures: Sequence[Measure],
    results: Mapping[str, Sequence[Counts]],
    model: str,
    others: Sequence[str],
    **about: Any,
) -> list[dict[str, Any]]:
    """How much better a model is than others on the same blocks, and whether that may be called a gain.

    Of errors no difference is taken: a gain is always upwards.

    Returns
    -------
    Rows of task, split, labels, model, against, metric, mean, low, high, verdict.
    """
    rows = []
    for other in others:
        for m in measures:
            if m.name in scores.ERRORS:
                continue
            interval = scores.paired_bootstrap(m.total(results[model]), m.total(results[other]), m.metric)
            by_draw = [
                float(m.metric(m.total([a]).sum(axis=0)) - m.metric(m.total([b]).sum(axis=0)))
                for a, b in zip(results[model], results[other], strict=True)
            ]
            row = scores.score_row(**about, model=model, metric=m.name, interval=interval)
            rows.append(row | {"against": other, "verdict": scores.verdict(interval, by_draw)})
    return rows
