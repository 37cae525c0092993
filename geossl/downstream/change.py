"""Change between two dates: one encoder on both images, and a head on the two sets of features."""

from __future__ import annotations

import copy
import datetime as dt

import numpy as np
import torch
from numpy.typing import NDArray

import geossl
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import TaskData
from geossl.downstream.finetune import finetune, labelled_chips, temperature
from geossl.downstream.networks import ChangeNetwork
from geossl.downstream.settings import ChangeSettings
from geossl.downstream.task import TRAINED, TaskCard, TrainedTask
from geossl.errors import LabelError
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.scores import average_precision, best_threshold


def fit(
    data: TaskData, encoder: Encoder, card: Card, settings: ChangeSettings, *, progress: Progress = silent
) -> TrainedTask:
    """Learn a two-date change model from the labels in training blocks.

    Validation blocks stop the training and set the threshold; test blocks are never read. The second
    class of the legend is change.

    Parameters
    ----------
    encoder, card:
        The pretrained encoder (it stays as it is) and its card, whose statistics normalise images.

    Raises
    ------
    LabelError
        The labels in training or validation blocks lack one of the two classes.
    RadiometryError
        The encoder was made for other imagery than the collection's.
    """
    require_same_radiometry(
        card.sensor, data.sensor, us=f"the encoder {card.id}", them=f"the collection {data.collection.name}"
    )
    require_change(data)
    data.require_labels(TRAIN)
    data.require_labels(VAL)
    torch.manual_seed(settings.seed)
    network = ChangeNetwork(copy.deepcopy(encoder), 2, settings.finetune.head)
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
    threshold = best_threshold(trained.truth, _logit(trained.logits))
    shifted = trained.logits - np.array([0, threshold], np.float32)
    taught = np.bincount(train.label.ravel(), minlength=256)[:2]
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
            labels=dict(zip(data.legend.names, map(int, taught), strict=True)),
            snapshot=data.collection.snapshot,
            settings=settings.model_dump(mode="json"),
            validation=trained.score,
            temperature=temperature(shifted, trained.truth),
            threshold=threshold,
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        network,
    )


def require_change(data: TaskData) -> None:
    """Refuse data that are not two dates with two classes."""
    if len(data.dates) != 2 or None in data.dates or len(data.legend) != 2:
        raise LabelError(
            f"labels {data.labels.name!r} have {len(data.dates)} dates and {len(data.legend)} classes; "
            "change needs a date before, a date after, and the classes no change and change"
        )


def score(truth: NDArray[np.uint8], logits: NDArray[np.float32]) -> float:
    """Average precision of change: (N,) and (N, 2)."""
    return average_precision(truth == 1, _logit(logits))


def _logit(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits[:, 1] - logits[:, 0]
