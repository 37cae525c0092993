"""The floors: what any pretrained model has to beat, one list for the whole project.

A score says nothing without them: a random network already separates much, and hand-made
statistics more.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from geossl import probe
from geossl.bands import Statistics
from geossl.chips.split import TRAIN, VAL
from geossl.downstream import change, landcover, neighbourhood, unlabelled
from geossl.downstream.data import Describe, TaskData
from geossl.downstream.describe import by_statistics, normalized
from geossl.downstream.finetune import labelled_chips
from geossl.downstream.heldout import Contender, Decide
from geossl.downstream.relative import UnlabelledNetwork, sees_vegetation
from geossl.downstream.settings import ChangeSettings, LandcoverSettings, UnlabelledMethod
from geossl.downstream.task import TRAINED, TrainedTask
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.progress import Progress, silent
from geossl.scores import best_threshold

SCRATCH = "same network from scratch"
RANDOM = "random encoder, same head"

FROM_NOTHING = {"encoder": "full", "encoder_rate": 1.0, "layer_decay": 1.0}
"""How a network that knows nothing is trained: every layer alike."""


def contender(name: str, task: TrainedTask) -> Contender:
    """A trained task as a contender."""
    return Contender(name, task.describe, lambda proba: proba)


def landcover_floors(
    data: TaskData, task: TrainedTask, card: Card, settings: LandcoverSettings, *, progress: Progress = silent
) -> list[Contender]:
    """Everything that a land-cover model has to beat, taught by the same labels.

    Parameters
    ----------
    task, card, settings:
        The model to beat, the card of its encoder, and how it was learnt.
    """
    classes = len(data.legend)
    pixels = data.sample(min(settings.labels or landcover.HEAD_PIXELS, landcover.HEAD_PIXELS), seed=settings.seed)
    describe = by_statistics(card.statistics)
    table = data.gather(pixels, describe)
    # statistics of small windows come first in the table
    columns = {
        "pixel": len(data.sensor.bands),
        "3×3 and 5×5 statistics": neighbourhood.count(len(data.sensor.bands), (3, 5)),
        "multi-scale statistics": table.shape[1],
    }
    floors = [_majority(data, describe)]
    for done, (name, width) in enumerate(columns.items()):
        progress("floors", done, len(columns) + 2)
        forest = probe.RandomForest(classes, settings.seed).fit(table[:, :width], pixels.label)
        floors.append(Contender(f"random forest, {name}", describe, _on_first(width, forest)))
    lda = probe.tuned(probe.ldas(classes), table, pixels.label, pixels.block, seed=settings.seed).probe
    floors.append(Contender("LDA, multi-scale statistics", describe, lda.predict_proba))
    encoder, unlearnt = random_encoder(card, settings.seed)
    progress("floors", len(columns), len(columns) + 2)
    if task.card.head in TRAINED.values():
        head_only = settings.finetune.model_copy(update={"encoder": "frozen"})
        same = settings.model_copy(update={"mode": "finetune", "finetune": head_only})
        frozen = landcover.fit(data, encoder, unlearnt, same, progress=progress)
    else:
        same = settings.model_copy(update={"mode": "few"})
        # a head that chose statistics alone is matched by its random twin with both
        features = "encoder + statistics" if task.card.features == "statistics" else task.card.features
        frozen = landcover.fit(
            data, encoder, unlearnt, same, candidates=((features, task.card.head),), progress=progress
        )
    floors.append(contender(RANDOM, frozen))
    progress("floors", len(columns) + 1, len(columns) + 2)
    whole = settings.finetune.model_copy(update=FROM_NOTHING)
    scratch = settings.model_copy(update={"mode": "finetune", "finetune": whole})
    if (data.counts(VAL) > 0).sum() >= 2:  # without them no network can be trained
        floors.append(contender(SCRATCH, landcover.fit(data, encoder, unlearnt, scratch, progress=progress)))
    return floors


def change_floors(
    data: TaskData, encoder: Encoder | None, card: Card, settings: ChangeSettings, *, progress: Progress = silent
) -> list[Contender]:
    """Everything that a change model has to beat: with the same labels, and without any.

    Parameters
    ----------
    encoder:
        The pretrained one, whose distance is among the maps without labels; None: it is not.
    """
    lengths = _lengths if len(data.legend) == 2 else _forests  # of more classes than two, a length tells none
    floors = lengths(data, card, settings, progress)
    scratch, unlearnt = random_encoder(card, settings.seed)
    whole = settings.finetune.model_copy(update=FROM_NOTHING)
    same = settings.model_copy(update={"finetune": whole})
    floors.append(contender(SCRATCH, change.fit(data, scratch, unlearnt, same, progress=progress)))
    if len(data.legend) == 2:
        floors += _without_labels(data, encoder, card, settings, progress)
    return [_majority(data, floors[0].describe), *floors]


def _lengths(data: TaskData, card: Card, settings: ChangeSettings, progress: Progress) -> list[Contender]:
    """Lengths of change vectors, with thresholds from the labels in validation blocks."""
    _, judges = labelled_chips(data, settings.finetune, labels=settings.labels, seed=settings.seed)
    known = judges.label != NO_LABEL
    variates = unlabelled.fit(data, None, card, ChangeSettings(method="irmad", of="any"), progress=progress)
    describes = {
        "CVA": change_vector(card.statistics, 1),
        "CVA, 5×5 means": change_vector(card.statistics, 5),
        "IR-MAD": _distance(variates),
    }
    floors = []
    for done, (name, describe) in enumerate(describes.items()):
        progress("floors", done, len(describes))
        magnitude = np.stack(
            [describe(image, valid)[0] for image, valid in zip(judges.image, judges.valid, strict=True)]
        )
        threshold = best_threshold(judges.label[known] == 1, magnitude[known])
        floors.append(Contender(name, describe, _from_threshold(threshold)))
    return floors


def _forests(data: TaskData, card: Card, settings: ChangeSettings, progress: Progress) -> list[Contender]:
    """Random forests on the bands of both dates, and on their means of 5 × 5 pixels as well."""
    pixels = data.sample(min(settings.labels or landcover.HEAD_PIXELS, landcover.HEAD_PIXELS), seed=settings.seed)
    describe = both_dates(card.statistics, 5)
    table = data.gather(pixels, describe)
    floors: list[Contender] = []
    for name, width in (("pixel", table.shape[1] // 2), ("5×5 means", table.shape[1])):
        progress("floors", len(floors), 2)
        forest = probe.RandomForest(len(data.legend), settings.seed).fit(table[:, :width], pixels.label)
        floors.append(Contender(f"random forest, {name}", describe, _on_first(width, forest)))
    return floors


def _without_labels(
    data: TaskData, encoder: Encoder | None, card: Card, settings: ChangeSettings, progress: Progress
) -> list[Contender]:
    """The maps that nobody labelled anything for, as they would be published."""
    of = settings.of if sees_vegetation(data.sensor) else "any"
    found = []
    for method in get_args(UnlabelledMethod):
        if method != "embedding" or encoder is not None:
            chosen = ChangeSettings(method=method, of=of)
            found.append(
                contender(f"no labels, {method}", unlabelled.fit(data, encoder, card, chosen, progress=progress))
            )
    return found


def _distance(task: TrainedTask) -> Describe:
    """(1, H, W) how far each pixel moved, as a task without labels tells it."""
    network = task.network
    assert isinstance(network, UnlabelledNetwork)

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        with torch.inference_mode():
            relative = network.relative(torch.from_numpy(normalized(image, valid, task.statistics))[None])
            return np.where(valid.all(axis=0), network.distance(relative)[0].numpy(), np.float32(0))[None]

    return describe


def random_encoder(card: Card, seed: int) -> tuple[Encoder, Card]:
    """The same architecture with random weights, and a card that says so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(card.architecture, card.sensor.bands).eval()
    return encoder, dataclasses.replace(card, id="", method="random", weights="", scores=(), health={})


def change_vector(statistics: Statistics, side: int) -> Describe:
    """Change vector analysis: length of the difference of two normalised dates, averaged over side × side pixels."""

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        before, after = normalized(image, valid, statistics)
        difference = neighbourhood.window_mean(after - before, valid.all(axis=0), side)
        return np.sqrt((difference**2).sum(axis=0, keepdims=True))

    return describe


def both_dates(statistics: Statistics, side: int) -> Describe:
    """The normalised bands of both dates, then their means over side × side pixels."""

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        dates = normalized(image, valid, statistics)
        means = [neighbourhood.window_mean(date, seen, side) for date, seen in zip(dates, valid, strict=True)]
        return np.concatenate([*dates, *means])

    return describe


def _from_threshold(threshold: float) -> Decide:
    """Magnitudes (N, 1) → probabilities (N, 2) that cross 0.5 at the threshold; the order stays."""
    scale = max(threshold, 1e-6)

    def decide(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
        changed = magnitude / (magnitude + scale)
        return np.concatenate([1 - changed, changed], axis=1)

    return decide


def _majority(data: TaskData, describe: Describe) -> Contender:
    """Always the commonest class of the training blocks."""
    always = np.eye(len(data.legend), dtype=np.float32)[int(data.counts(TRAIN).argmax())]
    return Contender("majority class", describe, lambda features: np.tile(always, (len(features), 1)))


def _on_first(width: int, fitted: probe.Probe) -> Decide:
    """A decision on the first columns of a feature table."""
    return lambda features: fitted.predict_proba(features[:, :width])
