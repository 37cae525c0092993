"""Change between two dates: one encoder on both images, and a head on the two sets of features.

The first class of the legend is no change, every other one a change: simply change, or from what to what.
"""

from __future__ import annotations

import copy
import datetime as dt

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

import geossl
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import TaskData, class_counts
from geossl.downstream.finetune import finetune, labelled_chips, temperature
from geossl.downstream.networks import ChangeNetwork
from geossl.downstream.settings import ChangeSettings
from geossl.downstream.task import TRAINED, TaskCard, TrainedTask
from geossl.errors import LabelError
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.scores import average_precision, best_threshold, confusion, macro_f1


def fit(
    data: TaskData, encoder: Encoder, card: Card, settings: ChangeSettings, *, progress: Progress = silent
) -> TrainedTask:
    """Learn a two-date change model from the labels in training blocks.

    Validation blocks stop the training and set the threshold between no change and change of any class; test
    blocks are never read.

    Parameters
    ----------
    encoder, card:
        The pretrained encoder (it stays as it is) and its card, whose statistics normalise images.

    Raises
    ------
    LabelError
        The labels in training or validation blocks are all of one class.
    RadiometryError
        The encoder was made for other imagery than the collection's.
    """
    require_same_radiometry(
        card.sensor, data.sensor, us=f"the encoder {card.id}", them=f"the collection {data.collection.name}"
    )
    require_change(data)
    counts = data.require_labels(TRAIN)
    data.require_labels(VAL)
    names = data.legend.names
    notes = [f"no training label is {n!r}: it is not learnt" for n, c in zip(names, counts, strict=True) if not c]
    torch.manual_seed(settings.seed)
    classes = len(data.legend)
    network = ChangeNetwork(copy.deepcopy(encoder), classes, settings.finetune.head)
    train, judges = labelled_chips(data, settings.finetune, labels=settings.labels, seed=settings.seed)
    trained = finetune(
        network,
        network.encoder,
        Normalize.from_statistics(card.statistics),
        train,
        judges,
        score,
        settings.finetune,
        seed=settings.seed,
        progress=progress,
    )
    threshold = best_threshold(trained.truth > 0, of_change(trained.logits)) if (trained.truth > 0).any() else 0.0
    shifted = trained.logits - np.array([0, *[threshold] * (classes - 1)], np.float32)
    taught = class_counts(train.label, classes)
    return TrainedTask.create(
        TaskCard(
            task="change",
            legend=data.legend,
            sensor=data.sensor,
            statistics=card.statistics,
            architecture=card.architecture,
            head=TRAINED[settings.finetune.head],
            features="encoder",
            encoder=card.id,
            labels=dict(zip(names, map(int, taught), strict=True)),
            snapshot=data.collection.snapshot,
            settings=settings.model_dump(mode="json"),
            validation=trained.score,
            temperature=temperature(shifted, trained.truth),
            threshold=threshold,
            notes=tuple(notes),
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        network,
    )


def require_change(data: TaskData) -> None:
    """Refuse data that are not two dates with labels of change."""
    if len(data.dates) != 2 or None in data.dates or data.labels.task != "change":
        raise LabelError(
            f"labels {data.labels.name!r} have {len(data.dates)} date(s) and are of {data.labels.task}; change needs a"
            " date before and a date after",
            "let the task's `kind` be change, with `before` and `after`",
        )


def score(truth: NDArray[np.uint8], logits: NDArray[np.float32]) -> float:
    """What stops a training, of (N,) and (N, K): average precision of change, or macro F1 of more classes than two."""
    if logits.shape[1] == 2:
        return average_precision(truth == 1, of_change(logits))
    return float(macro_f1(confusion(truth, logits.argmax(axis=1), logits.shape[1])))


def of_change(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K) → (N,) the logit of change of any class against no change."""
    return logsumexp(logits[:, 1:], axis=1) - logits[:, 0]
