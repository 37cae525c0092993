"""What is measured: each model learns from the same draws of labels and is judged on the same test pixels."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import probe
from geossl.chips.split import TRAIN
from geossl.downstream import landcover, neighbourhood
from geossl.downstream.data import Describe, Pixels, TaskData
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.floors import FROM_NOTHING
from geossl.downstream.heldout import Counts
from geossl.downstream.settings import FinetuneSettings, LandcoverSettings
from geossl.files import aside
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.probe import softmax
from geossl.project import pool
from geossl.project.project import Project
from geossl.train.settings import PretrainSettings
from tests.benchmarks.recipes import pretraining
from tests.benchmarks.recipes.elsewhere import Training
from tests.benchmarks.recipes.landcover import lattice

from . import sets

LABELS = (20, 100, 500)
DRAWS = 2
METHOD, ENCODER, STEPS, BATCH, SEED = "dense", "unet-tiny", 200, 16, 0
TRAINED = FinetuneSettings(steps=100, batch_size=8, windows=128)
"""Short, since every row trains six networks."""

Floats = NDArray[np.float32]
Key = tuple[int, int]
"""Number of labels, draw."""

MAJORITY = "majority class"
HAND_LDA = "LDA, multi-scale statistics"
FEW = "few-label mode, pretrained"
FEW_RANDOM = "few-label mode, random encoder"
FULL = "fpn, full, pretrained"
SCRATCH = "fpn, full, from scratch"

NETWORKS: Mapping[str, tuple[bool, dict[str, Any]]] = {
    FULL: (True, {}),
    SCRATCH: (False, FROM_NOTHING),
    "linear, frozen, pretrained": (True, {"head": "linear", "encoder": "frozen"}),
    "linear, frozen, random encoder": (False, {"head": "linear", "encoder": "frozen"}),
}
"""Networks trained on windows: whether their encoder is the pretrained one, and what else is set."""


class Kept:
    """The counts of every model, set, number of labels and draw, in files: what is there is not measured again."""

    def __init__(self, name: str) -> None:
        self.folder = sets.OUT / name / "counts"

    def _file(self, model: str, key: Key) -> Path:
        return self.folder / f"{model.replace(', ', '-').replace(' ', '_')}-{key[0]}-{key[1]}.npz"

    def has(self, model: str, key: Key | None = None) -> bool:
        """Whether a draw, or every one, is there."""
        keys = [key] if key else [(n, draw) for n in LABELS for draw in range(DRAWS)]
        return all(self._file(model, each).exists() for each in keys)

    def put(self, model: str, key: Key, counts: Counts, **about: Any) -> None:
        arrays = {field.name: getattr(counts, field.name) for field in dataclasses.fields(counts)}
        with aside(self._file(model, key)) as partial:  # half a file would be taken for a measurement
            np.savez_compressed(partial, about=json.dumps(about), **arrays)

    def get(self, model: str, labels: int) -> list[Counts]:
        """All draws; empty where it was not measured."""
        if not self.has(model):
            return []
        draws = []
        for draw in range(DRAWS):
            with np.load(self._file(model, (labels, draw))) as file:
                draws.append(Counts(*(file[field.name] for field in dataclasses.fields(Counts))))
        return draws

    def about(self, model: str, labels: int) -> list[dict[str, Any]]:
        """What was noted of each draw."""
        found = []
        for draw in range(DRAWS):
            with np.load(self._file(model, (labels, draw))) as file:
                found.append(json.loads(str(file["about"])))
        return found


@dataclass
class Ground:
    """The pixels of a set that judge, and those that teach by number of labels and draw."""

    data: TaskData
    every: int

    def __post_init__(self) -> None:
        self.test = lattice(self.data, self.every)
        self.taught = {(n, d): self.data.sample(n, seed=d, subset=TRAIN) for n in LABELS for d in range(DRAWS)}

    def tables(self, describe: Describe) -> tuple[Floats, dict[Key, Floats]]:
        """Features of the test pixels and of each draw's, from one pass over the imagery."""
        table = self.data.gather(Pixels.join([self.test, *self.taught.values()]), describe)
        ends = np.cumsum([len(self.test), *(len(p) for p in self.taught.values())])
        test, *taught = np.split(table, ends[:-1])
        return test, dict(zip(self.taught, taught, strict=True))

    def counts(self, proba: Floats) -> Counts:
        """Block by block, in one order for all."""
        blocks = np.unique(self.test.block)
        masks = [self.test.block == block for block in blocks]
        return Counts.join([Counts.of(self.test.label[mask], proba[mask]) for mask in masks])


def measure(name: str, words: Sequence[str]) -> None:
    """Whatever of a set is not measured yet: the models whose name holds one of the words, or all."""
    kept = Kept(name)

    def missing(model: str) -> bool:
        return not kept.has(model) and (not words or any(word in model for word in words))

    if not any(map(missing, models())):
        return
    project = sets.project(name)
    data = project.task_data("landcover")
    assert isinstance(data, TaskData)
    ground = Ground(data, sets.SETS[name].every)
    start = functools.partial(_start, project, name)
    hand = ground.tables(by_statistics(data.collection.statistics))  # type: ignore[arg-type]
    for model, fit in _floors(ground).items():
        if missing(model):
            for key in ground.taught:
                kept.put(model, key, ground.counts(fit(hand, key)))
            _say(name, model)
    for model, learnt in ((FEW_RANDOM, False), (FEW, True)):
        if missing(model):
            encoder, card = start(learnt)
            own = ground.tables(by_encoder(encoder, card.statistics))
            for key, pixels in ground.taught.items():
                proba, about = _few(own, hand, key, pixels, len(data.legend))
                kept.put(model, key, ground.counts(proba), **about)
            _say(name, model)
    for model, (learnt, changes) in NETWORKS.items():
        if missing(model):
            encoder, card = start(learnt)
            chosen = FinetuneSettings.model_validate(TRAINED.model_dump() | changes)
            for n, draw in ground.taught:
                if kept.has(model, (n, draw)):
                    continue
                settings = LandcoverSettings(mode="finetune", labels=n, seed=draw, finetune=chosen)
                task = landcover.fit(data, encoder, card, settings)
                kept.put(model, (n, draw), ground.counts(data.gather(ground.test, task.describe)))
            _say(name, model)


def _say(name: str, model: str) -> None:
    print(f"{name}: {model}", flush=True)


def _start(project: Project, name: str, learnt: bool) -> tuple[Encoder, Card]:
    """The pretrained encoder (of training blocks alone), or one as it begins."""
    scenes = project.scenes()
    assert scenes.statistics is not None
    chip, min_clear = sets.SETS[name].chip, sets.SETS[name].min_clear
    if not learnt:
        return pretraining.untrained(ENCODER, scenes.sensor, scenes.statistics, SEED, chip=chip)
    chosen = pretraining.settings(METHOD, ENCODER, SEED, chip=chip, batch_size=BATCH)
    chosen = PretrainSettings.model_validate(chosen.model_dump() | {"blocks": "train", "min_clear": min_clear})
    loader = pool.loader(project, chosen, [scenes])
    epochs = -(-STEPS // len(loader))
    chosen = PretrainSettings.model_validate(chosen.model_dump() | {"epochs": epochs})
    return pretraining.trained(
        Training(sets.OUT / name / "encoder", chosen, loader, scenes.sensor, scenes.statistics, scenes.snapshot)
    )


def _floors(ground: Ground) -> dict[str, Callable[[tuple[Floats, dict[Key, Floats]], Key], Floats]]:
    """By name: from the tables of multi-scale statistics and a draw to probabilities of the test pixels."""
    classes, bands = len(ground.data.legend), len(ground.data.sensor.bands)
    commonest = int(ground.data.counts(TRAIN).argmax())

    def majority(hand: tuple[Floats, dict[Key, Floats]], key: Key) -> Floats:
        return np.tile(np.eye(classes, dtype=np.float32)[commonest], (len(hand[0]), 1))

    def forest(width: int | None, hand: tuple[Floats, dict[Key, Floats]], key: Key) -> Floats:
        fitted = probe.RandomForest(classes, key[1]).fit(hand[1][key][:, :width], ground.taught[key].label)
        return fitted.predict_proba(hand[0][:, :width])

    def lda(hand: tuple[Floats, dict[Key, Floats]], key: Key) -> Floats:
        pixels = ground.taught[key]
        fitted = probe.tuned(probe.ldas(classes), hand[1][key], pixels.label, pixels.block, seed=key[1])
        return fitted.probe.predict_proba(hand[0])

    return {
        MAJORITY: majority,
        "random forest, pixel": functools.partial(forest, bands),
        "random forest, 3×3 and 5×5 statistics": functools.partial(forest, neighbourhood.count(bands, (3, 5))),
        "random forest, multi-scale statistics": functools.partial(forest, None),
        HAND_LDA: lda,
    }


def _few(
    own: tuple[Floats, dict[Key, Floats]],
    hand: tuple[Floats, dict[Key, Floats]],
    key: Key,
    pixels: Pixels,
    classes: int,
) -> tuple[Floats, dict[str, Any]]:
    """Probabilities of the test pixels by the head that cross-validation chose, and what it chose."""

    def columns(which: Callable[[tuple[Floats, dict[Key, Floats]]], Floats]) -> dict[Any, Floats]:
        encoder, statistics = which(own), which(hand)
        both = np.concatenate([encoder, statistics], axis=1)
        return {"encoder": encoder, "statistics": statistics, "encoder + statistics": both}

    chosen = landcover.choose(columns(lambda t: t[1][key]), pixels, classes, seed=key[1])
    test = columns(lambda t: t[0])[chosen.features]
    proba = softmax(landcover.logits(chosen.probe, test) / chosen.temperature)
    return proba, {"head": chosen.head, "features": chosen.features, "validation": chosen.score}


def models() -> Iterator[str]:
    """All, floors first."""
    yield from (MAJORITY, "random forest, pixel", "random forest, 3×3 and 5×5 statistics")
    yield from ("random forest, multi-scale statistics", HAND_LDA, FEW_RANDOM, FEW, *NETWORKS)
