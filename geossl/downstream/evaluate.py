"""Scores on held-out ground, with intervals over blocks, for a model and everything it has to beat."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import probe
from geossl.chips.split import TRAIN
from geossl.downstream.data import Pixels, TaskData
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.floors import change_floors, contender, landcover_floors, random_encoder
from geossl.downstream.heldout import (
    MEASURES,
    Contender,
    Counts,
    Decide,
    class_rows,
    count,
    difference_rows,
    score_rows,
)
from geossl.downstream.settings import ChangeSettings, EvaluateSettings, LandcoverSettings
from geossl.downstream.task import TrainedTask
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent

PRETRAINED = "pretrained"
"""The model under test where it looks through the pretrained encoder."""

WITHOUT_ENCODER = "chosen model, without the encoder"
"""The model under test where hand-made statistics alone did better on the training blocks: it says nothing of pretraining."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of one task."""

    rows: list[dict[str, Any]]
    """task, split, labels, model, metric, mean, low, high; JSON-ready."""
    differences: list[dict[str, Any]]
    """The same, with against and verdict: how much better ``model`` is than ``against``."""
    confusions: dict[str, NDArray[np.int64]]
    """Model → (K, K) over all test blocks, truth in rows."""
    reliability: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Model → (steps of confidence, 3): pixels, summed confidence, pixels that are right."""
    classes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The model under test → rows of every class, with intervals."""


def evaluate_task(
    data: TaskData,
    task: TrainedTask,
    card: Card,
    fitted_with: LandcoverSettings | ChangeSettings,
    settings: EvaluateSettings,
    *,
    name: str,
    encoder: Encoder | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Score a trained task and its floors on test blocks.

    Parameters
    ----------
    card, fitted_with:
        The card of the encoder that the task started from, and the settings that it was fitted with.
    name:
        What the task is called in the rows.
    encoder:
        The one that the task started from; with it a change map by its distance alone is among the floors.
    """
    ours = PRETRAINED if task.card.encoder else WITHOUT_ENCODER
    contenders = [contender(ours, task)]
    if settings.floors and isinstance(fitted_with, ChangeSettings):
        contenders += change_floors(data, encoder, card, fitted_with, progress=progress)
    elif settings.floors and isinstance(fitted_with, LandcoverSettings):
        contenders += landcover_floors(data, task, card, fitted_with, progress=progress)
    counts = count(data, contenders, every=settings.every, progress=progress)
    found = _evaluation(
        "from-to change" if task.dates == 2 and len(data.legend) > 2 else task.card.task,
        {model: [c] for model, c in counts.items()},
        {ours: [other.name for other in contenders[1:]]},
        task=name,
        split=split_name(data),
        labels=sum(task.card.labels.values()),
    )
    return replace(found, classes={ours: class_rows(data.legend.names, [counts[ours]])})


def evaluate_encoder(
    data: TaskData, encoder: Encoder, card: Card, settings: EvaluateSettings, *, name: str, progress: Progress = silent
) -> Evaluation:
    """Score frozen features of one date, beside a random encoder's and hand-made statistics.

    For each number of labels several draws are scored; their counts are added up, and a gain is
    claimed only where every draw shows it.
    """
    data.require_labels(TRAIN)
    classes = len(data.legend)
    pretrained = by_encoder(encoder, card.statistics)
    unlearnt = by_encoder(random_encoder(card, seed=0)[0], card.statistics)
    statistics = by_statistics(card.statistics)

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        # statistics after each encoder, so that every model's columns are a slice and need no copy
        by_hand = statistics(image, valid)
        return np.concatenate([pretrained(image, valid), by_hand, unlearnt(image, valid), by_hand])

    draws = {(n, seed): data.sample(n, seed=seed) for n in settings.labels for seed in range(settings.draws)}
    table = data.gather(Pixels.join(list(draws.values())), describe)  # one pass over the imagery for all draws
    width = sum(encoder.dims)
    half = table.shape[1] // 2
    learnt, hand, random = slice(width), slice(width, half), slice(half, half + width)
    ldas = probe.ldas(classes)
    models: dict[str, tuple[slice, Sequence[Callable[[], probe.Probe]]]] = {
        "kNN-5, pretrained": (learnt, [functools.partial(probe.KNN, classes)]),
        "linear, pretrained": (learnt, [functools.partial(probe.Logistic, classes)]),
        "LDA, pretrained": (learnt, ldas),
        "LDA, random encoder": (random, ldas),
        "LDA, multi-scale statistics": (hand, ldas),
        "LDA, pretrained + statistics": (slice(half), ldas),
        "LDA, random encoder + statistics": (slice(half, None), ldas),
    }
    against = {
        "LDA, pretrained": ["LDA, random encoder", "LDA, multi-scale statistics"],
        "LDA, pretrained + statistics": ["LDA, multi-scale statistics", "LDA, random encoder + statistics"],
    }
    contenders, start = [], 0
    for (n, seed), pixels in draws.items():
        rows = slice(start, start := start + len(pixels))
        for model, (columns, candidates) in models.items():
            x = table[rows, columns]
            if len(candidates) == 1:  # nothing to choose
                fitted = candidates[0]().fit(x, pixels.label)
            else:
                fitted = probe.tuned(candidates, x, pixels.label, pixels.block, seed=seed).probe
            contenders.append(Contender(_draw(model, n, seed), describe, _on(columns, fitted)))
    counts = count(data, contenders, every=settings.every, progress=progress)

    result = Evaluation([], [], {})
    for n in settings.labels:
        of_draws = {model: [counts[_draw(model, n, seed)] for seed in range(settings.draws)] for model in models}
        one = _evaluation("landcover", of_draws, against, task=name, split=split_name(data), labels=n)
        result.rows.extend(one.rows)
        result.differences.extend(one.differences)
        result.confusions.update({f"{model}, {n} labels": matrix for model, matrix in one.confusions.items()})
    return result


def split_name(data: TaskData) -> str:
    """The split as score rows name it, such as ``block-128 buffer-16 seed-0``."""
    s = data.split.settings
    return f"block-{s.block} buffer-{s.buffer} seed-{s.seed}"


def _evaluation(kind: str, results: dict[str, list[Counts]], against: dict[str, list[str]], **about: Any) -> Evaluation:
    """Rows of all models, differences of some, from their draws."""
    measures = MEASURES[kind]
    differences: list[dict[str, Any]] = []
    for model, others in against.items():
        differences += difference_rows(measures, results, model, others, **about)
    confusions = {
        model: np.sum([draw.confusion.sum(axis=0) for draw in draws], axis=0) for model, draws in results.items()
    }
    reliability = {
        model: np.sum([draw.reliability.sum(axis=0) for draw in draws], axis=0) for model, draws in results.items()
    }
    return Evaluation(score_rows(measures, results, **about), differences, confusions, reliability)


def _draw(model: str, labels: int, seed: int) -> str:
    return f"{model}, {labels} labels, draw {seed}"


def _on(columns: slice, fitted: probe.Probe) -> Decide:
    return lambda features: fitted.predict_proba(features[:, columns])
