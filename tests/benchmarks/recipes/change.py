"""Change in cities that nothing was learnt from: OSCD, some cities left out at a time.

Each city is a cube of its own, and the split is by city: in a city that teaches every pixel is
training ground, in one that judges every pixel is test ground, and :func:`city_data` checks that it
is so. Pretraining sees the cities without labels and those that teach, both dates of each, and never
(inductive) or also (transductive) the ones left out. A repetition is a city left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geossl import probe, scores
from geossl.augment import Normalize
from geossl.bands import Statistics
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.split import TEST, TRAIN, VAL
from geossl.downstream import change
from geossl.downstream.data import Chips, Describe, Pixels, TaskData
from geossl.downstream.describe import by_encoder_difference, by_statistics_difference
from geossl.downstream.finetune import finetune
from geossl.downstream.floors import change_vector
from geossl.downstream.networks import ChangeNetwork
from geossl.downstream.settings import FinetuneSettings
from geossl.nets.encoder import Encoder
from geossl.project import pool
from geossl.project.project import Project

from . import pretraining, sets
from .elsewhere import Training
from .landcover import lattice
from .pretraining import Length
from .rows import COLLAPSED, FLOOR, RANDOM, SCRATCH, TRANSDUCTIVE, Ledger, Measured

FOLDS = (
    (("aguasclaras", "rennes"), "nantes"),
    (("bercy", "paris"), "rennes"),  # neighbours: where one judges, the other must not teach
    (("bordeaux", "hongkong", "nantes"), "bercy"),
)
"""Cities left out together, and the one whose labels stop a training of that fold."""

LABELS = (100, 500)
"""Labelled pixels of all cities that teach together, half of them changed."""

EVERY = 3
CHIP, BATCH = 64, 12
"""Side of a chip, and pairs a batch: the smallest city has 12."""

WHOLE = FinetuneSettings(encoder_rate=1, windows=256)
"""How whole networks are trained, pretrained or not: at one learning rate."""

Floats = NDArray[np.float32]
Fit = Callable[[Floats, NDArray[Any], NDArray[Any], int], probe.Probe]
"""From features, classes, blocks and a seed."""

Tables = tuple[dict[str, Floats], dict[int, Floats]]
"""Features of the pixels of each city that judges, and of all cities that teach for each number of labels."""


def city_data(city: str, subset: int) -> TaskData:
    """A labelled city of which all ground belongs to one subset."""
    fractions = [float(subset == each) for each in (TRAIN, VAL, TEST)]
    data = Project.load(sets.city(city), [f"split.fractions={fractions}"]).task_data("change")
    assert isinstance(data, TaskData)
    for each in (TRAIN, VAL, TEST):
        if data.counts(each).any() != (each == subset):
            raise AssertionError(f"the split by city does not hold in {city}")
    return data


@dataclass(frozen=True)
class Fold:
    """Some cities left out: the others teach."""

    number: int
    taught: tuple[TaskData, ...]
    stops: TaskData
    judges: dict[str, TaskData]
    seen: tuple[Project, ...]
    """Every city that pretraining may see, inductively."""
    statistics: Statistics
    """Of those cities' bands."""

    @classmethod
    def of(cls, number: int) -> Fold:
        out, stop = FOLDS[number]
        teach = [c for c in sets.LABELLED if c not in out and c != stop]
        seen = tuple(Project.load(sets.city(c)) for c in (*sets.UNLABELLED, *teach, stop))
        return cls(
            number,
            tuple(city_data(c, TRAIN) for c in teach),
            city_data(stop, VAL),
            {c: city_data(c, TEST) for c in out},
            seen,
            statistics(seen),
        )

    def pixels(self, labels: int) -> list[Pixels]:
        """The pixels that teach, city by city."""
        return [data.sample(labels // len(self.taught), seed=self.number, subset=TRAIN) for data in self.taught]

    def tables(self, describe: Describe) -> Tables:
        """Features of the pixels that judge and of those that teach, from one pass over the imagery each."""
        judge = {city: data.gather(lattice(data, EVERY), describe) for city, data in self.judges.items()}
        found = []
        for data, *parts in zip(self.taught, *(self.pixels(n) for n in LABELS), strict=True):
            ends = np.cumsum([len(p) for p in parts])
            found.append(np.split(data.gather(Pixels.join(parts), describe), ends[:-1]))
        return judge, {n: np.concatenate([city[i] for city in found]) for i, n in enumerate(LABELS)}

    def measured(self, labels: int, found: Mapping[str, Floats], **about: Any) -> Iterator[Measured]:
        """Average precision in each city left out, of scores (N,) of its pixels."""
        for city, data in self.judges.items():
            value = scores.average_precision(lattice(data, EVERY).label == 1, found[city])
            yield Measured(set="oscd", labels=labels, metric="average_precision", repetition=city, value=value, **about)

    def probed(self, parts: Sequence[Tables], fit: Fit, **about: Any) -> Iterator[Measured]:
        """Fit to tables whose columns stand side by side, and score."""
        for n in LABELS:
            pixels = self.pixels(n)
            y = np.concatenate([p.label for p in pixels])
            # a block of one city is none of another's
            block = np.concatenate([p.block.astype(np.int64) + (i << 32) for i, p in enumerate(pixels)])
            fitted = fit(np.concatenate([taught[n] for _, taught in parts], axis=1), y, block, self.number)
            found = {
                city: fitted.predict_proba(np.concatenate([judge[city] for judge, _ in parts], axis=1))[:, 1]
                for city in self.judges
            }
            yield from self.measured(n, found, **about)


def measure(method: str | None, encoder: str, length: Length, ledger: Ledger, *, protocol: str, whole: bool) -> None:
    """All rows of a method (None: of floors, random encoders and, with ``whole``, from scratch)."""
    for number, (out, _) in enumerate(FOLDS):
        rows: list[dict[str, Any]] = [
            {"protocol": "-", "method": FLOOR, "encoder": "-", "minutes": 0.0},
            {"protocol": "-", "method": RANDOM, "encoder": encoder, "minutes": 0.0},
            {"protocol": "-", "method": SCRATCH, "encoder": encoder, "minutes": 0.0},
            {"protocol": protocol, "method": method, "encoder": encoder, **asdict(length)},
        ]
        wanted = [row for row in rows if row["method"] is not None and (whole or row["method"] != SCRATCH)]
        todo = [row for row in wanted if not all(ledger.has(set="oscd", repetition=city, **row) for city in out)]
        network = {"model": "whole network, siamese"}
        late = method is not None and whole and not ledger.has(set="oscd", repetition=out[0], **rows[3], **network)
        if not todo and not late:
            continue
        fold = Fold.of(number)
        for row in todo:
            if row["method"] == FLOOR:
                ledger.add(_floors(fold, row))
            elif row["method"] in (RANDOM, SCRATCH):
                chosen, _ = pretraining.untrained(encoder, fold.taught[0].sensor, fold.statistics, number, chip=CHIP)
                ledger.add((_frozen if row["method"] == RANDOM else _whole)(fold, chosen, row))
            else:
                with ledger.training(out, set="oscd", **row):
                    chosen, _ = pretraining.trained(training(fold, str(method), encoder, length, protocol=protocol))
                    ledger.add(_frozen(fold, chosen, row))
        if late and not ledger.has(set="oscd", repetition=out[0], **rows[3], model=COLLAPSED):
            chosen, _ = pretraining.trained(training(fold, str(method), encoder, length, protocol=protocol))
            ledger.add(_whole(fold, chosen, rows[3]))


def training(fold: Fold, method: str, encoder: str, length: Length, *, protocol: str) -> Training:
    """On the cities that the fold may see, or (transductive) on all."""
    projects = [*fold.seen]
    if protocol == TRANSDUCTIVE:
        projects += [Project.load(sets.city(city)) for city in fold.judges]
    what = f"{'all' if protocol == TRANSDUCTIVE else 'seen'}-{fold.number}"
    return over(projects, what, method, encoder, length, seed=fold.number, statistics=fold.statistics)


def over(
    projects: Sequence[Project],
    what: str,
    method: str,
    encoder: str,
    length: Length,
    *,
    seed: int,
    statistics: Statistics,
) -> Training:
    """On all imagery of some cities, each with as many batches as it fills; ``what`` they are stands in the folder."""
    chosen = pretraining.settings(method, encoder, seed, chip=CHIP, batch_size=BATCH)
    loaders = [pool.loader(project, chosen, [project.scenes()]) for project in projects]
    filled = [each for each in loaders if isinstance(each, ChipLoader) and len(each)]
    loader = PoolLoader(filled, [len(each) for each in filled], seed=seed)
    return Training(
        sets.OUT / "oscd" / "encoders" / f"{method}-{encoder}-{length}-{what}",
        length.of(chosen, len(loader)),
        loader,
        projects[0].sensor,
        statistics,
    )


def statistics(projects: Sequence[Project]) -> Statistics:
    """Of the bands of all these cities."""
    return pretraining.pooled([found for project in projects if (found := project.scenes().statistics) is not None])


def _floors(fold: Fold, about: dict[str, Any]) -> Iterator[Measured]:
    for shown, side in (("CVA", 1), ("CVA, 5×5 means", 5)):
        magnitude, _ = fold.tables(change_vector(fold.statistics, side))
        for n in LABELS:  # it learns nothing from them
            yield from fold.measured(n, {city: x[:, 0] for city, x in magnitude.items()}, model=shown, **about)
    hand = fold.tables(by_statistics_difference(fold.statistics))
    for shown, fit in (("random forest", _forest), ("LDA", _lda), ("linear", _linear)):
        yield from fold.probed([hand], fit, model=f"{shown}, neighbourhood differences", **about)


def _frozen(fold: Fold, encoder: Encoder, about: dict[str, Any]) -> Iterator[Measured]:
    own = fold.tables(by_encoder_difference(encoder, fold.statistics))
    hand = fold.tables(by_statistics_difference(fold.statistics))
    yield from fold.probed([own], _lda, model="LDA, encoder differences", **about)
    yield from fold.probed([own], _linear, model="linear, encoder differences", **about)
    yield from fold.probed([own, hand], _lda, model="LDA, encoder + neighbourhood differences", **about)
    yield from fold.probed([own, hand], _linear, model="linear, encoder + neighbourhood differences", **about)


def _whole(fold: Fold, encoder: Encoder, about: dict[str, Any]) -> Iterator[Measured]:
    """One encoder on both dates and a head, trained together on the labels."""
    normalize = Normalize.from_statistics(fold.statistics)
    n = LABELS[-1]
    torch.manual_seed(fold.number)
    network = ChangeNetwork(encoder, 2)
    teach = [
        data.chips(TRAIN, WHOLE.window, limit=WHOLE.windows // len(fold.taught), seed=fold.number, only=pixels)
        for data, pixels in zip(fold.taught, fold.pixels(n), strict=True)
    ]
    judges = fold.stops.chips(
        VAL, WHOLE.window, limit=32, seed=fold.number, only=fold.stops.sample(n // 2, seed=fold.number, subset=VAL)
    )
    finetune(network, network.encoder, normalize, joined(teach), judges, change.score, WHOLE, seed=fold.number)

    def logit(image: NDArray[Any], valid: NDArray[np.bool_]) -> Floats:
        seen = torch.from_numpy(valid)[None]
        with torch.inference_mode():
            found = network(normalize(torch.from_numpy(image)[None], seen), seen)[0]
        return (found[1] - found[0]).numpy()[None]

    found = {city: data.gather(lattice(data, EVERY), logit)[:, 0] for city, data in fold.judges.items()}
    yield from fold.measured(n, found, model="whole network, siamese", **about)


def _forest(x: Floats, y: NDArray[Any], block: NDArray[Any], seed: int) -> probe.Probe:
    return probe.RandomForest(2, seed).fit(x, y)


def _linear(x: Floats, y: NDArray[Any], block: NDArray[Any], seed: int) -> probe.Probe:
    return probe.Logistic(2).fit(x, y)


def _lda(x: Floats, y: NDArray[Any], block: NDArray[Any], seed: int) -> probe.Probe:
    return probe.tuned(probe.ldas(2), x, y, block, seed=seed).probe


def joined(parts: Sequence[Chips]) -> Chips:
    """Windows of several cities."""
    return Chips(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "valid", "label")))
