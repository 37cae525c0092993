"""Land cover from few labels: a closed-form head on fixed features, or the whole network fine-tuned."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import geossl
from geossl import probe
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import Pixels, TaskData, class_counts
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.finetune import finetune, labelled_chips, predict_chips, temperature
from geossl.downstream.networks import LandcoverNetwork, LinearNetwork
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.task import TRAINED, FeatureSet, Head, TaskCard, TrainedTask
from geossl.downstream.trees import Forest, ForestNetwork, log_probabilities
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
    ("encoder + statistics", "forest"),
    ("statistics", "forest"),
)
"""What the few-label mode chooses from; the first where there is nothing to choose by."""

TREES = 100
"""Of a random forest: its maps cost time in proportion."""

FewHead = probe.Linear | probe.RandomForest


def heads(head: Head, classes: int, seed: int) -> Sequence[Callable[[], FewHead]]:
    """The probes that a kind of few-label head is chosen from."""
    if head == "lda":
        return probe.ldas(classes)
    if head == "forest":
        return [functools.partial(probe.RandomForest, classes, seed, TREES)]
    return [functools.partial(probe.Logistic, classes)]


def logits(head: FewHead, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What its softmax is taken of, (N, K)."""
    if isinstance(head, probe.Linear):
        return head.logits(x)
    share = torch.from_numpy(np.isin(np.arange(head.classes), head.model.classes_)[None].astype(np.float32))
    return log_probabilities(torch.from_numpy(head.predict_proba(x).T), share).T.numpy()


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
    if mode != "few":
        judged = data.require_labels(VAL) if mode == "finetune" else data.counts(VAL)
        unjudged = (counts > 0) & (judged == 0)
    if mode == "auto" and (judged > 0).sum() < 2:
        mode = "few"
        notes.append("validation blocks hold no two labelled classes: the network was not fine-tuned")
    elif mode != "few":
        notes += [
            f"no validation label is {n!r}: neither the end of the training nor the temperature heeds it"
            for n, missing in zip(names, unjudged, strict=True)
            if missing
        ]

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
    network: LinearNetwork | ForestNetwork | LandcoverNetwork
    head: Head
    features: FeatureSet
    validation: float
    temperature: float
    taught: NDArray[np.int64]
    """(K,) labelled pixels that were learnt from."""


@dataclass(frozen=True)
class Chosen:
    """The few-label head that cross-validation over training blocks liked best."""

    features: FeatureSet
    head: Head
    probe: FewHead
    score: float
    """Macro F1 of its out-of-fold predictions; NaN where all labels lie in one block."""
    temperature: float


def choose(
    table: Mapping[FeatureSet, NDArray[np.float32]],
    pixels: Pixels,
    classes: int,
    candidates: Sequence[tuple[FeatureSet, Head]] = CANDIDATES,
    *,
    seed: int,
    progress: Progress = silent,
) -> Chosen:
    """Compare candidates on labelled pixels, and fit the best.

    Parameters
    ----------
    table:
        Features (N, F) of the pixels for every set that a candidate looks at.
    """
    judged: dict[tuple[FeatureSet, Head], tuple[int, float]] = {}
    for done, (features, head) in enumerate(candidates):
        progress("choose a head", done, len(candidates))
        judged[features, head] = probe.choice(
            heads(head, classes, seed), table[features], pixels.label, pixels.block, seed=seed
        )
    progress("choose a head", len(candidates), len(candidates))
    features, head = max(candidates, key=lambda c: np.nan_to_num(judged[c][1], nan=-1.0))
    number, reached = judged[features, head]
    make = heads(head, classes, seed)[number]
    held_out = probe.out_of_fold(make, table[features], pixels.label, pixels.block, logits, seed=seed)
    sure = 1.0 if held_out is None else temperature(held_out, pixels.label)
    return Chosen(features, head, make().fit(table[features], pixels.label), reached, sure)


def _few(
    data: TaskData,
    encoder: Encoder,
    card: Card,
    settings: LandcoverSettings,
    candidates: tuple[tuple[FeatureSet, Head], ...],
    progress: Progress,
) -> _Result:
    """The best few-label head as a network."""
    classes = len(data.legend)
    pixels = data.sample(min(settings.labels or HEAD_PIXELS, HEAD_PIXELS), seed=settings.seed)
    table = feature_table(data, pixels, encoder, card, {features for features, _ in candidates})
    chosen = choose(table, pixels, classes, candidates, seed=settings.seed, progress=progress)
    seen = None if chosen.features == "statistics" else copy.deepcopy(encoder)
    statistics = chosen.features != "encoder"
    network: LinearNetwork | ForestNetwork
    if isinstance(chosen.probe, probe.Linear):
        network = LinearNetwork(seen, classes, bands=len(data.sensor.bands), statistics=statistics)
        network.set_head(chosen.probe.weight, chosen.probe.bias)
    else:
        network = ForestNetwork(seen, Forest.of(chosen.probe.model, classes), statistics=statistics)
    return _Result(
        network=network.eval(),
        head=chosen.head,
        features=chosen.features,
        validation=chosen.score,
        temperature=chosen.temperature,
        taught=class_counts(pixels.label, classes),
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
    network = LandcoverNetwork(copy.deepcopy(encoder), classes, settings.finetune.head)
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
        head=TRAINED[settings.finetune.head],
        features="encoder",
        validation=trained.score,
        temperature=temperature(trained.logits, trained.truth),
        taught=class_counts(train.label, classes),
    )
