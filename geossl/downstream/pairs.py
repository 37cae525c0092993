"""Public sets of two images of a city with change marked pixel by pixel: what does a frozen encoder know of change?

How far the encoder's features moved between the dates, pixel by pixel, teaches a head that learns from some labelled
pixels of the cities of the set's own training split and is scored on those of its test split. The same encoder with
random weights, differences of the bands, and change vectors go through the very same steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geossl import probe
from geossl.bands import Sensor
from geossl.chips.split import TEST, TRAIN
from geossl.downstream import neighbourhood
from geossl.downstream.change import of_change
from geossl.downstream.data import Describe, Ground, LabelledTiles, Pixels
from geossl.downstream.describe import DIFFERENCE_SCALES, by_encoder_difference, by_statistics_difference
from geossl.downstream.evaluate import Evaluation
from geossl.downstream.floors import change_vector, random_encoder
from geossl.downstream.heldout import MEASURES, Contender, Decide, count, difference_rows, score_rows
from geossl.downstream.landcover import HEAD_PIXELS
from geossl.downstream.public import SETS, DatasetName, Half, columns, opened, restored, some
from geossl.downstream.settings import EvaluateSettings
from geossl.downstream.unlabelled import ANY
from geossl.errors import LabelError, StoreError
from geossl.legend import Legend
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.scores import best_threshold

SQUARE = 256
"""Side in pixels of the squares of a city that are resampled together. They are wide, since change comes in districts."""

_SUBSETS: dict[Half, int] = {"train": TRAIN, "test": TEST}

_SURE = 1e6  # a logit

Floats = NDArray[np.float32]


@dataclass
class Cities(LabelledTiles):
    """Both splits of a set on disk. A tile is a city, and all of it teaches or all of it judges.

    Masks are read once and kept, a byte a pixel; images are read when they are asked for.
    """

    dataset: DatasetName
    root: Path
    sensor: Sensor
    """Whose bands and stored numbers images come as."""
    index: Sequence[int]
    """Which of the set's bands each of the sensor's is."""
    limit: int | None = None
    """Most cities of a split."""
    tile_ids: list[str] = field(init=False)
    """Such as ``test/rio``."""

    def __post_init__(self) -> None:
        self._read: dict[str, tuple[Half, Any, int]] = {}
        self._labels: dict[str, NDArray[np.uint8]] = {}
        for split in _SUBSETS:
            dataset = opened(self.dataset, self.root, split)
            # in an order that is the same on every disk
            names = sorted((str(files["region"]), row) for row, files in enumerate(dataset.files))
            for i in some(len(names), self.limit):
                city, row = names[i]
                self._read[f"{split}/{city}"] = split, dataset, row
        self.tile_ids = list(self._read)

    @property
    def name(self) -> str:
        return self.dataset

    @property
    def legend(self) -> Legend:
        return ANY

    def origin(self, tile_id: str) -> tuple[int, int]:  # noqa: ARG002  # cities do not touch
        return 0, 0

    def ground(self, tile_id: str) -> Ground:
        if tile_id not in self._labels:
            self._sample(tile_id)
        label = self._labels[tile_id]
        row, col = (np.arange(side, dtype=np.int32) // SQUARE for side in label.shape)
        block = (self.tile_ids.index(tile_id) << 16) + (row[:, None] << 8) + col
        return Ground(tile_id, label, np.full(label.shape, _SUBSETS[self._read[tile_id][0]], np.uint8), block)

    def images(self, tile_id: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(2, C, H, W) float32 and (2, H, W); a pixel that is 0 in every band was not seen.

        It is scored all the same, as in published figures.
        """
        image = self._sample(tile_id)
        stored = restored(image[:, list(self.index)], self.sensor, SETS[self.dataset].sensor)
        return stored.numpy(), image.any(dim=1).numpy()

    def _sample(self, tile_id: str) -> torch.Tensor:
        """(2, bands of the set, H, W) as the set stores them; keeps the labels."""
        _, dataset, row = self._read[tile_id]
        try:
            found = dataset[row]
        except (OSError, ValueError) as error:  # bands of different shapes cannot be stacked
            raise StoreError(f"{tile_id} of {self.dataset} in {self.root} cannot be read: {error}") from error
        image: torch.Tensor = found["image"]
        label = found["mask"][0].numpy().astype(np.uint8)
        if label.shape != image.shape[-2:]:
            raise StoreError(
                f"{tile_id} of {self.dataset} in {self.root} has {' × '.join(map(str, image.shape[-2:]))} pixels, "
                f"and labels of {' × '.join(map(str, label.shape))}",
                "unpack it anew",
            )
        self._labels[tile_id] = label
        return image


def evaluate_pairs(
    name: DatasetName,
    root: Path,
    encoder: Encoder,
    card: Card,
    settings: EvaluateSettings,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Score the frozen encoder on change, the same with random weights, and differences of the bands.

    Intervals are over squares of the test cities, so they speak of these cities and not of others.
    Thresholds know, beside the labelled pixels, which share of the training cities changed; no test label is used.

    Parameters
    ----------
    root:
        Folder of the set, in its own layout.
    settings:
        ``labels`` and ``draws``: how many labelled pixels of all training cities heads learn from, half of them
        changed, beside as many as a head may ever learn from, once; ``every``: which pixels are scored.
    mapping:
        Which of the set's bands some of the encoder's are; the others go by name.
    limit:
        At most so many cities of each split.

    Raises
    ------
    LabelError
        The cities of a split are all changed or all unchanged, or so few labels are asked for that those drawn are.
    RadiometryError
        The images have not all of the encoder's bands, or other units.
    StoreError
        The set is not there.
    """
    public = SETS[name]
    data = Cities(name, root, card.sensor, columns(card.sensor, public.sensor, mapping or {}), limit)
    known = data.counts(TRAIN)
    for split, of_split in (("training", known), ("test", data.counts(TEST))):
        if not of_split.all():
            raise LabelError(f"no pixel of the {split} cities of {name} is {ANY.names[int(of_split.argmin())]!r}")
    most = min(HEAD_PIXELS, int(known.sum()))
    budgets = {n: settings.draws for n in sorted(settings.labels) if n < most} | {most: 1}
    draws = {(n, seed): data.sample(n, seed=seed) for n, many in budgets.items() for seed in range(many)}
    describe, features = _features(encoder, card)
    table = data.gather(Pixels.join(list(draws.values())), describe)  # one pass over the imagery for all draws

    contenders: list[Contender] = []
    start = 0
    for (n, seed), pixels in draws.items():
        progress("heads", len(contenders) // len(_MODELS), len(draws))
        rows = slice(start, start := start + len(pixels))
        if (drawn := np.bincount(pixels.label, minlength=2)).min() == 0:
            raise LabelError(
                f"of {n} labelled pixels of {name} all are {ANY.names[int(drawn.argmax())]!r}",
                "let `labels` under `evaluate` be 2 or more",
            )
        weight = (known / drawn)[pixels.label]
        for model, (looks_at, candidates) in _MODELS.items():
            decide = _decision(candidates, features[looks_at], table[rows], pixels, weight, seed)
            contenders.append(Contender(_draw(model, n, seed), describe, decide))
    counts = count(data, contenders, every=settings.every, progress=progress)

    result = Evaluation([], [], {})
    for n, many in budgets.items():
        results = {model: [counts[_draw(model, n, seed)] for seed in range(many)] for model in _MODELS}
        about = {"task": name, "split": public.protocol, "labels": n}
        result.rows.extend(score_rows(_MEASURES, results, **about))
        for model, others in _AGAINST.items():
            result.differences.extend(difference_rows(_MEASURES, results, model, others, **about))
        for model, each in results.items():
            result.confusions[f"{model}, {n} labels"] = np.sum([c.confusion.sum(axis=0) for c in each], axis=0)
    return result


_MEASURES = [measure for measure in MEASURES["change"] if measure.name in ("average_precision", "f1")]
"""Thresholds are for F1, so that what crosses 0.5 there is no probability, and its calibration says nothing."""

_Candidates = Sequence[Callable[[], probe.Linear]]

_LINEAR: _Candidates = [functools.partial(probe.Logistic, 2)]
_LDA: _Candidates = probe.ldas(2)

_MODELS: dict[str, tuple[str, _Candidates]] = {
    "linear, pretrained": ("encoder", _LINEAR),
    "linear, random encoder": ("random encoder", _LINEAR),
    "linear, band differences": ("bands", _LINEAR),
    "LDA, pretrained": ("encoder", _LDA),
    "LDA, random encoder": ("random encoder", _LDA),
    "LDA, band differences": ("bands", _LDA),
    "LDA, pretrained + band differences": ("encoder + bands", _LDA),
    "LDA, random encoder + band differences": ("random encoder + bands", _LDA),
    "CVA": ("length", ()),
    "CVA, 5×5 means": ("length of means", ()),
    "no change anywhere": ("nothing", ()),
}
"""Name → features, and heads of which cross-validation over cities chooses; a length is a score as it is."""

_AGAINST = {
    "linear, pretrained": ["linear, random encoder", "linear, band differences", "CVA", "CVA, 5×5 means"],
    "LDA, pretrained": ["LDA, random encoder", "LDA, band differences", "CVA", "CVA, 5×5 means"],
    "LDA, pretrained + band differences": ["LDA, band differences", "LDA, random encoder + band differences"],
}


def _draw(model: str, n: int, seed: int) -> str:
    return f"{model}, {n} labels, draw {seed}"


def _features(encoder: Encoder, card: Card) -> tuple[Describe, dict[str, slice]]:
    """Everything that models look at, side by side, and where each of it stands."""
    learnt = by_encoder_difference(encoder, card.statistics)
    unlearnt = by_encoder_difference(random_encoder(card, seed=0)[0], card.statistics)
    differences = by_statistics_difference(card.statistics)
    lengths = [change_vector(card.statistics, side) for side in (1, 5)]

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> Floats:
        # differences after each encoder, so that every model's columns are a slice and need no copy
        by_hand = differences(image, valid)
        return np.concatenate(
            [
                learnt(image, valid),
                by_hand,
                unlearnt(image, valid),
                by_hand,
                *(length(image, valid) for length in lengths),
            ]
        )

    width = sum(encoder.dims)
    half = width + neighbourhood.count(len(card.sensor.bands), DIFFERENCE_SCALES)
    return describe, {
        "encoder": slice(width),
        "bands": slice(width, half),
        "encoder + bands": slice(half),
        "random encoder": slice(half, half + width),
        "random encoder + bands": slice(half, 2 * half),
        "length": slice(2 * half, 2 * half + 1),
        "length of means": slice(2 * half + 1, 2 * half + 2),
        "nothing": slice(0),
    }


def _decision(
    candidates: _Candidates, columns: slice, table: Floats, pixels: Pixels, weight: NDArray[np.float64], seed: int
) -> Decide:
    """A head taught by pixels, and its threshold.

    Heads are taught by as many changed pixels as others, and of a city little is changed. So the threshold is the one
    of the highest F1 on pixels of cities that the head has not seen, each pixel weighted by how many of its class it
    stands for in the training cities: 0.5 of balanced classes would call many times what has changed.

    Parameters
    ----------
    table:
        (N, F) all features of the pixels.
    weight:
        (N,)
    """
    x = table[:, columns]
    if not x.shape[1]:
        return lambda features: np.tile(np.eye(2, dtype=np.float32)[0], (len(features), 1))
    if not candidates:
        threshold = best_threshold(pixels.label == 1, x[:, 0], weight)
        return lambda features: _crossing(features[:, columns][:, 0], threshold, float(x.std()))
    best = probe.choice(candidates, x, pixels.label, pixels.tile, seed=seed)[0] if len(candidates) > 1 else 0
    fitted = candidates[best]().fit(x, pixels.label)
    own = of_change(fitted.logits(x))
    elsewhere = probe.out_of_fold(
        candidates[best], x, pixels.label, pixels.tile, lambda head, part: head.logits(part), seed=seed
    )
    # a head that met one class alone is infinitely sure of it
    score = own if elsewhere is None else of_change(elsewhere).clip(-_SURE, _SURE)
    threshold = best_threshold(pixels.label == 1, score, weight)
    return lambda features: _crossing(of_change(fitted.logits(features[:, columns])), threshold, float(own.std()))


def _crossing(score: Floats, threshold: float, spread: float) -> Floats:
    """Scores (N,) → (N, 2) that cross 0.5 at the threshold; the order stays, and far ones are not one and the same."""
    away = (score - threshold) / max(spread, 1e-6)
    changed = 0.5 + 0.5 * away / (1 + np.abs(away))
    return np.stack([1 - changed, changed], axis=1).astype(np.float32)
