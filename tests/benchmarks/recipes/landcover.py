"""Land cover of held-out blocks from few labels: floors, and frozen encoders with closed-form heads.

A repetition is a seed of everything: of the split into blocks, the labelled pixels, the encoder's
first weights and its pretraining. Within one, several draws of labels are averaged.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import probe, scores
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.settings import PoolSettings
from geossl.chips.split import TEST, TRAIN
from geossl.cube.collection import Collection
from geossl.downstream import landcover, neighbourhood
from geossl.downstream.data import Describe, Pixels, TaskData
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.settings import FinetuneSettings, LandcoverSettings
from geossl.errors import SettingsError
from geossl.legend import NO_LABEL
from geossl.nets.encoder import Encoder
from geossl.project import pool
from geossl.project.project import Project
from geossl.train.kinds import Kind
from geossl.train.settings import PretrainSettings

from . import pretraining, sets
from .elsewhere import Training
from .pretraining import Length
from .rows import AT_RATE, FLOOR, INDUCTIVE, POOLED, RANDOM, SCRATCH, TRANSDUCTIVE, Ledger, Measured

LABELS = (20, 100, 500)
DRAWS = 3
EVERY = {"zion": 3, "rstoolbox": 1}
"""Every so-many-th test pixel in both directions is scored."""

CHIP = {"zion": (64, 32), "rstoolbox": (32, 16)}
"""Side of a chip, so that some lie wholly in a block, and chips a batch."""

Floats = NDArray[np.float32]
Fit = Callable[[Floats, Pixels, int], probe.Probe]


@dataclass
class Ground:
    """One repetition's pixels: those that judge, and for each number of labels and draw those that teach."""

    name: str
    data: TaskData
    seed: int

    def __post_init__(self) -> None:
        self.test = lattice(self.data, EVERY[self.name])
        draws = [(n, 100 * self.seed + d) for n in LABELS for d in range(DRAWS)]
        self.taught = {(n, d): self.data.sample(n, seed=d, subset=TRAIN) for n, d in draws}

    def tables(self, describe: Describe) -> tuple[Floats, dict[tuple[int, int], Floats]]:
        """Features of the test pixels and of each draw's, from one pass over the imagery."""
        table = self.data.gather(Pixels.join([self.test, *self.taught.values()]), describe)
        ends = np.cumsum([len(self.test), *(len(p) for p in self.taught.values())])
        test, *taught = np.split(table, ends[:-1])
        return test, dict(zip(self.taught, taught, strict=True))

    def measured(self, labels: int, proba: Sequence[Floats], **about: Any) -> Iterator[Measured]:
        """Scores averaged over draws, from each one's probabilities (N, K) of the test pixels."""
        counts = [scores.confusion(self.test.label, p.argmax(axis=1), len(self.data.legend)) for p in proba]
        for metric in ("macro_f1", "accuracy"):
            value = float(np.mean([scores.METRICS[metric](c) for c in counts]))
            yield Measured(
                set=self.name, labels=labels, metric=metric, repetition=f"seed {self.seed}", value=value, **about
            )

    def probes(self, model: str, fit: Fit, parts: Sequence[tuple[Floats, Any]], **about: Any) -> Iterator[Measured]:
        """Fit to every draw and score; ``parts`` are tables whose columns stand side by side."""
        test = np.concatenate([part[0] for part in parts], axis=1)
        for n in LABELS:
            proba = []
            for (labels, draw), pixels in self.taught.items():
                if labels == n:
                    x = np.concatenate([part[1][labels, draw] for part in parts], axis=1)
                    proba.append(fit(x, pixels, draw).predict_proba(test))
            yield from self.measured(n, proba, model=model, **about)


def measure(
    name: str, method: str | None, encoder: str, length: Length, seeds: int, ledger: Ledger, *, protocol: str
) -> None:
    """All rows of a method (None: of floors and random encoders alone)."""
    folder = sets.landcover(name)
    for seed in range(seeds):
        data = Project.load(folder, [f"split.seed={seed}"]).task_data("landcover")
        assert isinstance(data, TaskData)
        what = {"set": name, "repetition": f"seed {seed}"}
        row = {"protocol": protocol, "method": method, "encoder": encoder, **asdict(length)}
        unmeasured = [
            not ledger.has(**what, method=FLOOR),
            not ledger.has(**what, method=RANDOM, encoder=encoder),
            method is not None and not ledger.has(**what, **row),
        ]
        if not any(unmeasured):
            continue
        ground = Ground(name, data, seed)
        statistics = data.collection.statistics
        assert statistics is not None
        hand = ground.tables(by_statistics(statistics))
        if unmeasured[0]:
            ledger.add(_floors(ground, hand))
        if unmeasured[1]:
            chosen, _ = pretraining.untrained(encoder, data.sensor, statistics, seed, chip=CHIP[name][0])
            about = {"protocol": "-", "method": RANDOM, "encoder": encoder, "minutes": 0.0}
            ledger.add(_frozen(ground, chosen, statistics, hand, about))
        if unmeasured[2] and method is not None:
            what_for = training(name, method, encoder, length, seed, protocol=protocol)
            with ledger.training([what["repetition"]], set=name, **row):
                chosen, _ = pretraining.trained(what_for)
                ledger.add(_frozen(ground, chosen, statistics, hand, row))


def measure_whole(
    name: str, method: str | None, encoder: str, length: Length, seeds: int, ledger: Ledger, *, rate: float = 1
) -> None:
    """The whole network from 500 labels: from an inductively pretrained encoder, or from scratch (None).

    Its encoder learns at ``rate`` times the head's learning rate; with 0 it stays as it is.
    """
    model = "whole network" + (f"{AT_RATE} {rate:g}" if rate != 1 else "")
    for seed in range(seeds):
        protocol, how = ("-", SCRATCH) if method is None else (INDUCTIVE, method)
        about = {"protocol": protocol, "method": how, "encoder": encoder, **asdict(length if method else Length())}
        if ledger.has(set=name, repetition=f"seed {seed}", model=model, **about):
            continue
        data = Project.load(sets.landcover(name), [f"split.seed={seed}"]).task_data("landcover")
        assert isinstance(data, TaskData)
        assert data.collection.statistics is not None
        ground = Ground(name, data, seed)
        if method is None:
            start = pretraining.untrained(encoder, data.sensor, data.collection.statistics, seed, chip=CHIP[name][0])
        else:
            start = pretraining.trained(training(name, method, encoder, length, seed))
        chosen = LandcoverSettings(
            mode="finetune", labels=500, seed=100 * seed, finetune=FinetuneSettings(encoder_rate=rate)
        )
        task = landcover.fit(data, *start, chosen)
        proba = data.gather(ground.test, task.describe)
        ledger.add(ground.measured(500, [proba], model=model, **about))


def training(name: str, method: str, encoder: str, length: Length, seed: int, *, protocol: str = INDUCTIVE) -> Training:
    """On chips of training blocks, of all (transductive), or of training blocks and the other sets that are cubes."""
    project = Project.load(sets.landcover(name), [f"split.seed={seed}"])
    chip, batch_size = CHIP[name]
    plain = pretraining.settings(method, encoder, seed, chip=chip, batch_size=batch_size).model_dump()
    chosen = PretrainSettings.model_validate(plain | {"blocks": "all" if protocol == TRANSDUCTIVE else "train"})
    scenes = project.scenes()
    assert scenes.statistics is not None
    loader, kinds, what = pool.loader(project, chosen, [scenes]), [], str(chosen.blocks)
    if protocol == POOLED:
        loader, kinds = _with_other_sets(name, PretrainSettings.model_validate(plain), loader, scenes)
        what = "pool"
    return Training(
        sets.OUT / name / "encoders" / f"{method}-{encoder}-{length}-{what}-{seed}",
        length.of(chosen, len(loader)),
        loader,
        scenes.sensor,
        scenes.statistics,
        scenes.snapshot,
        kinds,
    )


def _with_other_sets(
    name: str, chosen: PretrainSettings, own: ChipLoader | PoolLoader, scenes: Collection
) -> tuple[PoolLoader, list[Kind]]:
    """Batches of all sets, of each as many as of our own, and what they are of; the other sets with all their ground."""
    assert isinstance(own, ChipLoader)
    loaders, weights, found = [own], [1.0], [scenes]
    for folders in sets.besides(name):
        filled = []
        for project in map(Project.load, folders):
            with contextlib.suppress(SettingsError):  # a city may be too small for one batch
                filled.append((pool.loader(project, chosen, [project.scenes()]), project.scenes()))
        for loader, others in filled:
            assert isinstance(loader, ChipLoader)
            loaders.append(loader)
            weights.append(1 / len(filled))
            found.append(others)
    members = chosen.model_copy(update={"pool": [PoolSettings(collection=each.name) for each in found[1:]]})
    return PoolLoader(loaders, weights, seed=chosen.seed), pool.kinds(members, found)


def _floors(ground: Ground, hand: tuple[Floats, Any]) -> Iterator[Measured]:
    classes, bands = len(ground.data.legend), len(ground.data.sensor.bands)
    about = {"protocol": "-", "method": FLOOR, "encoder": "-", "minutes": 0.0}
    commonest = np.eye(classes, dtype=np.float32)[int(ground.data.counts(TRAIN).argmax())]
    for n in LABELS:
        yield from ground.measured(n, [np.tile(commonest, (len(ground.test), 1))], model="majority class", **about)

    def forest(x: Floats, pixels: Pixels, draw: int) -> probe.Probe:
        return probe.RandomForest(classes, draw).fit(x, pixels.label)

    # statistics of small windows come first in the table
    for shown, width in (("pixel", bands), ("3×3 and 5×5", neighbourhood.count(bands, (3, 5))), ("multi-scale", None)):
        part = hand[0][:, :width], {key: table[:, :width] for key, table in hand[1].items()}
        yield from ground.probes(f"random forest, {shown}", forest, [part], **about)
    yield from ground.probes("LDA, multi-scale", functools.partial(_lda, classes), [hand], **about)


def _frozen(
    ground: Ground, encoder: Encoder, statistics: Any, hand: tuple[Floats, Any], about: dict[str, Any]
) -> Iterator[Measured]:
    classes = len(ground.data.legend)
    own = ground.tables(by_encoder(encoder, statistics))
    lda = functools.partial(_lda, classes)

    def knn(x: Floats, pixels: Pixels, draw: int) -> probe.Probe:
        return probe.KNN(classes).fit(x, pixels.label)

    def linear(x: Floats, pixels: Pixels, draw: int) -> probe.Probe:
        return probe.Logistic(classes).fit(x, pixels.label)

    yield from ground.probes("kNN-5, encoder", knn, [own], **about)
    yield from ground.probes("linear, encoder", linear, [own], **about)
    yield from ground.probes("LDA, encoder", lda, [own], **about)
    yield from ground.probes("LDA, encoder + multi-scale", lda, [own, hand], **about)


def _lda(classes: int, x: Floats, pixels: Pixels, draw: int) -> probe.Probe:
    """Its shrinkage chosen by cross-validation over training blocks."""
    return probe.tuned(probe.ldas(classes), x, pixels.label, pixels.block, seed=draw).probe


def lattice(data: TaskData, every: int) -> Pixels:
    """Every so-many-th labelled pixel of the test blocks."""
    parts = []
    for position, ground in data.grounds():
        wanted = (ground.subset == TEST) & (ground.label != NO_LABEL)
        top, left = data.collection.tile(ground.tile_id).pixel_origin
        wanted &= ((np.arange(wanted.shape[0]) + top) % every == 0)[:, None]
        wanted &= ((np.arange(wanted.shape[1]) + left) % every == 0)[None, :]
        row, col = (axis.astype(np.int32) for axis in np.nonzero(wanted))
        tile = np.full(len(row), position, np.int32)
        parts.append(Pixels(tile, row, col, ground.label[row, col], ground.block[row, col]))
    return Pixels.join(parts)
