"""Public sets of labelled images, as torchgeo reads them from disk: what does a frozen encoder know of them?

An image becomes the mean of each of the encoder's maps, and beside it what can be said of its bands
without an encoder; heads learn from images of the set's own training split and are scored on its own test
split. The same encoder with random weights goes through the very same steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl import probe, scores
from geossl.augment import Normalize
from geossl.downstream.evaluate import Evaluation
from geossl.downstream.finetune import device
from geossl.downstream.floors import random_encoder
from geossl.downstream.heldout import MEASURES, Counts, Measure, difference_rows, score_rows
from geossl.downstream.public import SETS, DatasetName, Half, PublicSet, columns, opened, restored, some
from geossl.downstream.settings import EvaluateSettings
from geossl.errors import SettingsError
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent

_BATCH, _READERS = 32, 4
_GROUPS = 24  # of tiles, over which scores of several classes an image are resampled
_QUANTILES = (0.1, 0.5, 0.9)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """One split of a set on disk, or some of it."""

    public: PublicSet
    dataset: Any
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, name: DatasetName, root: Path, split: Half, *, limit: int | None = None) -> Images:
        """All images of a split, or ``limit`` of them drawn at random, the same every time.

        Raises
        ------
        StoreError
            The set is not in that folder, or a package that reads it is not installed; nothing is downloaded.
        """
        dataset = opened(name, root, split)
        return cls(SETS[name], dataset, some(len(dataset), limit))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def blocks(self) -> NDArray[np.int64]:
        """(N,) which images are resampled together: those of one tile where the set says so, else each alone."""
        if not self.public.several:
            return np.arange(len(self))
        # S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57
        tiles = [str(patch).split("_")[5] for patch in self.dataset.metadata_df["patch_id"].iloc[self.rows]]
        found: NDArray[np.int64] = np.unique(tiles, return_inverse=True)[1] % _GROUPS
        return found

    def batches(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """Images (B, C, H, W) as stored, and their labels: (B,) positions, or (B, K) 0 and 1."""
        with ThreadPoolExecutor(_READERS, "geossl-image") as pool:
            for start in range(0, len(self), _BATCH):
                samples = list(pool.map(self.dataset.__getitem__, self.rows[start : start + _BATCH].tolist()))
                labels = np.stack([np.asarray(sample["label"], np.int64) for sample in samples])
                yield torch.stack([sample["image"] for sample in samples]), labels


def evaluate_dataset(
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
    """Score the frozen encoder, the same with random weights, and statistics of the bands.

    Parameters
    ----------
    root:
        Folder of the set, in its own layout.
    settings:
        ``labels`` and ``draws``: how many labelled images heads learn from, beside all of them once.
    mapping:
        Which of the set's bands some of the encoder's are; the others go by name.
    limit:
        At most so many images of each split.

    Raises
    ------
    RadiometryError
        The images have not all of the encoder's bands, or other units.
    StoreError
        The set is not there.
    """
    public = SETS[name]
    index = columns(card.sensor, public.sensor, mapping or {})
    train, test = (Images.of(name, root, split, limit=limit) for split in ("train", "test"))
    encoders = [encoder, random_encoder(card, seed=0)[0]]
    normalize = Normalize.from_statistics(card.statistics)

    def table(images: Images, before: int) -> tuple[dict[str, Floats], NDArray[np.int64]]:
        """Features by name, each (N, F), and labels."""
        rows, labels = [], []
        for image, label in images.batches():
            rows.append(_describe(encoders, normalize, restored(image[:, index], card.sensor, public.sensor)))
            labels.append(label)
            progress("images", before := before + len(label), len(train) + len(test))
        found = [np.concatenate(each) for each in zip(*rows, strict=True)]
        return dict(zip((_ENCODER, _RANDOM, _STATISTICS), found, strict=True)), np.concatenate(labels)

    teach, labels = table(train, 0)
    judge, truth = table(test, len(train))
    heads = _Heads(labels, truth, test.blocks, several=public.several)
    result = Evaluation([], [], {})
    for n in sorted({n for n in settings.labels if n < len(train)} | {len(train)}):
        results: dict[str, list[Counts]] = {}
        for seed in range(settings.draws if n < len(train) else 1):
            taught = heads.sample(n, seed)
            for model, names, make in _MODELS:
                x, y = (np.concatenate([side[name] for name in names], axis=1) for side in (teach, judge))
                results.setdefault(model, []).append(heads.count(x[taught], taught, y, make))
            if not public.several:
                results.setdefault("majority class", []).append(heads.majority(taught))
        about = {"task": name, "split": public.protocol, "labels": n}
        result.rows.extend(score_rows(heads.measures, results, **about))
        for model, others in _AGAINST.items():
            result.differences.extend(difference_rows(heads.measures, results, model, others, **about))
        if not public.several:
            for model, draws in results.items():
                result.confusions[f"{model}, {n} labels"] = np.sum([c.confusion.sum(axis=0) for c in draws], axis=0)
    return result


_ENCODER, _RANDOM, _STATISTICS = "encoder", "random encoder", "band statistics"

_MODELS: tuple[tuple[str, tuple[str, ...], Callable[[int], probe.Probe]], ...] = (
    ("kNN-5, pretrained", (_ENCODER,), probe.KNN),
    ("kNN-5, random encoder", (_RANDOM,), probe.KNN),
    ("linear, pretrained", (_ENCODER,), probe.Logistic),
    ("linear, random encoder", (_RANDOM,), probe.Logistic),
    ("linear, band statistics", (_STATISTICS,), probe.Logistic),
    ("linear, pretrained + band statistics", (_ENCODER, _STATISTICS), probe.Logistic),
)
"""Name, features, head."""

_AGAINST = {
    "kNN-5, pretrained": ["kNN-5, random encoder"],
    "linear, pretrained": ["linear, random encoder", "linear, band statistics"],
    "linear, pretrained + band statistics": ["linear, band statistics"],
}

_PRECISION = Measure(
    "mean_average_precision",
    lambda counts: counts.histogram,
    lambda histogram: np.nanmean(scores.average_precision_of(histogram), axis=-1),
)


def _describe(encoders: Sequence[Encoder], normalize: Normalize, image: Tensor) -> list[Floats]:
    """Of stored images (B, C, H, W): what each encoder says, (B, sum of dims), and statistics of the bands (B, 5 C).

    Sides that an encoder's stride does not divide are cut on all of them alike.
    """
    where = device()
    step = max(max(encoder.strides) for encoder in encoders)
    height, width = (side // step * step for side in image.shape[-2:])
    if not height or not width:
        raise SettingsError(
            f"images of {image.shape[-2]} × {image.shape[-1]} pixels are smaller than the encoder's stride of {step}",
            "evaluate an encoder with smaller patches",
        )
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    seen = image.isfinite().all(dim=1)
    whole = normalize(image, seen)
    x = whole[..., top : top + height, left : left + width].to(where)
    found: list[Floats] = []
    with torch.inference_mode():
        for encoder in encoders:
            maps = encoder.to(where).eval()(x).maps
            found.append(torch.cat([each.float().mean(dim=(2, 3)) for each in maps], dim=1).cpu().numpy())
    flat = whole.flatten(2)
    quantiles = torch.quantile(flat, torch.tensor(_QUANTILES), dim=2)
    found.append(torch.cat([flat.mean(dim=2), flat.std(dim=2), *quantiles], dim=1).numpy())
    return found


@dataclass(frozen=True)
class _Heads:
    """Heads are fitted to images of one class each, or to one class after the other where an image has several."""

    train: NDArray[np.int64]
    """(N,) positions or (N, K) 0 and 1."""
    test: NDArray[np.int64]
    block: NDArray[np.int64]
    """(M,) of the test images."""
    several: bool

    @property
    def measures(self) -> Sequence[Measure]:
        return (_PRECISION,) if self.several else MEASURES["landcover"]

    @property
    def classes(self) -> int:
        return self.train.shape[1] if self.several else int(max(self.train.max(), self.test.max())) + 1

    def sample(self, n: int, seed: int) -> NDArray[np.int64]:
        """Rows of the training split: as many of each class as there are, or where images have several, any."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        if self.several or n >= len(order):
            return order[:n]
        # the first of every class, then the second …
        label = self.train[order]
        place = np.empty(len(order), np.int64)
        for k in np.unique(label):
            place[label == k] = np.arange((label == k).sum())
        return order[np.argsort(place, kind="stable")[:n]]

    def count(self, x: Floats, taught: NDArray[np.int64], test: Floats, make: Callable[[int], probe.Probe]) -> Counts:
        if not self.several:
            return self._counts(make(self.classes).fit(x, self.train[taught]).predict_proba(test))
        proba = [make(2).fit(x, y).predict_proba(test)[:, 1] for y in self.train[taught].T]
        return self._counts(np.stack(proba, axis=1))

    def majority(self, taught: NDArray[np.int64]) -> Counts:
        common = np.bincount(self.train[taught], minlength=self.classes).argmax()
        return self._counts(np.tile(np.eye(self.classes, dtype=np.float32)[common], (len(self.test), 1)))

    def _counts(self, proba: Floats) -> Counts:
        """(M, K) probabilities → counts of each block."""
        parts = []
        for number in np.unique(self.block):
            here = self.block == number
            truth = self.test[here]
            if self.several:
                pairs = zip(truth.T, proba[here].T, strict=True)
                of_each = np.stack([scores.histogram(one, score) for one, score in pairs])
                parts.append(dataclasses.replace(_NOTHING, histogram=of_each[None]))
            else:
                parts.append(Counts.of(truth.astype(np.uint8), proba[here]))
        return Counts.join(parts)


_NOTHING = Counts.of(np.zeros(0, np.uint8), np.zeros((0, 1), np.float32))
"""Counts of no image: where images have several classes, no two of them are confused."""
