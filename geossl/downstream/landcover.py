"""Land cover from few labels: a closed-form head on fixed features, or the whole network fine-tuned."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import geossl
from geossl import probe
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import Pixels, TaskData
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.finetune import finetune, labelled_chips, predict_chips, temperature
from geossl.downstream.networks import LandcoverNetwork, LinearNetwork
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.task import FeatureSet, Head, TaskCard, TrainedTask
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.scores import confusion, macro_f1

HEAD_PIXELS = 5_000
"""Most labelled pixels that a closed-form head is fitted to: more change little."""

CANDIDATES: tuple[tuple[FeatureSet, Head], ...] = (
    ("encoder + statistics", "lda"),
    ("statistics", "lda"),
    ("encoder", "lda"),
    ("encoder + statistics", "logistic"),
    ("statistics", "logistic"),
)
"""What the few-label mode chooses from; the first where there is nothing to choose by."""


def heads(head: Head, classes: int) -> Sequence[Callable[[], probe.Linear]]:
    """The probes that a kind of closed-form head is chosen from."""
    return probe.ldas(classes) if head == "lda" else [functools.partial(probe.Logistic, classes)]


def fit(
    data: TaskData,
    encoder: Encoder,
    card: Card,
    settings: LandcoverSettings,
    *,
    candidates: tuple[tuple[FeatureSet, Head], ...] = CANDIDATES,
    progress: Progress = silent,
) -> TrainedTask:
    """Learn a land-cover model from the labels in training blocks.

    Validation blocks stop the training and choose between the modes; test blocks are never read.

    Parameters
    ----------
    encoder, card:
        The pretrained encoder (it stays as it is) and its card, whose statistics normalise images.
    candidates:
        Feature sets and heads that the few-label mode may use.

    Raises
    ------
    LabelError
        The labels in training blocks, or for ``finetune`` in validation blocks, are none or of one class.
    RadiometryError
        The encoder was made for other imagery than the collection's.
    """
    require_same_radiometry(
        card.sensor, data.sensor, us=f"the encoder {card.id}", them=f"the collection {data.collection.name}"
    )
    counts = data.require_labels(TRAIN)
    names = data.legend.names
    notes = [f"no training label is {n!r}: it is never predicted" for n, c in zip(names, counts, strict=True) if not c]
    mode = settings.mode
    if mode == "auto" and (data.counts(VAL) > 0).sum() < 2:
        mode = "few"
        notes.append("validation blocks hold no two labelled classes: the network was not fine-tuned")
    if mode == "finetune":
        data.require_labels(VAL)

    torch.manual_seed(settings.seed)
    results = []
    if mode in ("few", "auto"):
        results.append(_few(data, encoder, card, settings, candidates, progress))
    if mode in ("finetune", "auto"):
        results.append(_dense(data, encoder, card, settings, progress))
    if mode == "auto":
        # both on the same pixels of the validation blocks
        _, judges = labelled_chips(data, settings.finetune, labels=settings.labels, seed=settings.seed)
        normalize = Normalize.from_statistics(card.statistics)
        for i, result in enumerate(results):
            reached = score(*predict_chips(result.network, normalize, judges))
            results[i] = dataclasses.replace(result, validation=reached)
        notes.append(", ".join(f"{r.head} {r.validation:.3f}" for r in results) + " macro F1 on validation blocks")
    best = max(results, key=lambda result: result.validation)
    return TrainedTask.create(
        TaskCard(
            task="landcover",
            legend=data.legend,
            sensor=data.sensor,
            statistics=card.statistics,
            architecture=card.architecture,
            head=best.head,
            features=best.features,
            encoder=card.id if best.network.encoder is not None else "",
            labels=dict(zip(names, map(int, best.taught), strict=True)),
            snapshot=data.collection.snapshot,
            settings=settings.model_dump(mode="json"),
            validation=best.validation,
            temperature=best.temperature,
            notes=tuple(notes),
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        best.network,
    )


def score(truth: NDArray[np.uint8], logits: NDArray[np.float32]) -> float:
    """Macro F1 of the likeliest class: (N,) and (N, K)."""
    return float(macro_f1(confusion(truth, logits.argmax(axis=1), logits.shape[1])))


@dataclass(frozen=True)
class _Result:
    network: LinearNetwork | LandcoverNetwork
    head: Head
    features: FeatureSet
    validation: float
    temperature: float
    taught: NDArray[np.int64]
    """(K,) labelled pixels that were learnt from."""


def _few(
    data: TaskData,
    encoder: Encoder,
    card: Card,
    settings: LandcoverSettings,
    candidates: tuple[tuple[FeatureSet, Head], ...],
    progress: Progress,
) -> _Result:
    """The best closed-form head, chosen by cross-validation over training blocks."""
    classes = len(data.legend)
    pixels = data.sample(min(settings.labels or HEAD_PIXELS, HEAD_PIXELS), seed=settings.seed)
    table = feature_table(data, pixels, encoder, card, {features for features, _ in candidates})
    tuned: dict[tuple[FeatureSet, Head], probe.Tuned[probe.Linear]] = {}
    for done, (features, head) in enumerate(candidates):
        progress("choose a head", done, len(candidates))
        tuned[features, head] = probe.tuned(
            heads(head, classes), table[features], pixels.label, pixels.block, seed=settings.seed
        )
    progress("choose a head", len(candidates), len(candidates))
    features, head = max(candidates, key=lambda c: np.nan_to_num(tuned[c].score, nan=-1.0))
    best = tuned[features, head]
    held_out = probe.out_of_fold(
        heads(head, classes)[best.number],
        table[features],
        pixels.label,
        pixels.block,
        lambda p, x: p.logits(x),
        seed=settings.seed,
    )
    network = LinearNetwork(
        None if features == "statistics" else copy.deepcopy(encoder),
        classes,
        bands=len(data.sensor.bands),
        statistics=features != "encoder",
    )
    network.set_head(best.probe.weight, best.probe.bias)
    return _Result(
        network=network.eval(),
        head=head,
        features=features,
        validation=best.score,
        temperature=1.0 if held_out is None else temperature(held_out, pixels.label),
        taught=np.bincount(pixels.label, minlength=classes),
    )


def feature_table(
    data: TaskData, pixels: Pixels, encoder: Encoder, card: Card, wanted: set[FeatureSet]
) -> dict[FeatureSet, NDArray[np.float32]]:
    """The features (N, F) of pixels for every wanted set."""
    table: dict[FeatureSet, NDArray[np.float32]] = {}
    if wanted != {"encoder"}:
        table["statistics"] = data.gather(pixels, by_statistics(card.statistics))
    if wanted != {"statistics"}:
        table["encoder"] = data.gather(pixels, by_encoder(encoder, card.statistics))
    if "encoder + statistics" in wanted:
        table["encoder + statistics"] = np.concatenate([table["encoder"], table["statistics"]], axis=1)
    return table


def _dense(data: TaskData, encoder: Encoder, card: Card, settings: LandcoverSettings, progress: Progress) -> _Result:
    """The whole network, trained on windows."""
    classes = len(data.legend)
    network = LandcoverNetwork(copy.deepcopy(encoder), classes)
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
    return _Result(
        network=network,
        head="dense",
        features="encoder",
        validation=trained.score,
        temperature=temperature(trained.logits, trained.truth),
        taught=np.bincount(train.label.ravel(), minlength=256)[:classes],
    )
