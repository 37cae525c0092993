"""What is on a whole image: BigEarthNet patches, several of 19 classes each, tiles of the grid left out.

There are 60 patches here, so labels are few whatever one does: 20 patches, or all that teach (about 40).
A repetition is a seed of everything. Tiles are left out as wholes, since patches of one tile are
neighbours of one day.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from geossl import bands, probe, scores
from geossl.bands import Sensor, Statistics
from geossl.chips.dataset import DatasetLoader
from geossl.downstream import neighbourhood
from geossl.downstream.describe import normalized
from geossl.features import hypercolumns
from geossl.nets.encoder import Encoder

from . import pretraining, sets
from .elsewhere import Training
from .pretraining import Length
from .rows import FLOOR, RANDOM, TRANSDUCTIVE, Ledger, Measured

LABELS = (20, 40)
CHIP, BATCH = 120, 16
LEAST = 3
"""Patches of a class that must teach and that must judge, or it is left out."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """All patches, and which of them teach in one repetition."""

    image: NDArray[np.int16]
    """(N, 4, 120, 120) reflectance × 10,000."""
    classes: NDArray[np.bool_]
    """(N, K) whether a patch shows a class."""
    teaches: NDArray[np.bool_]
    """(N,)"""
    seed: int

    @classmethod
    def of(cls, seed: int) -> Patches:
        folder = sets.DATA / "bigearthnet-v2-patches"
        with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        images = []
        for row in rows:
            with rasterio.open(folder / "s2" / f"{row['patch_id']}.tif") as patch:
                images.append(patch.read().astype(np.int16))
        names = sorted({name for row in rows for name in row["labels19"].split("|")})
        classes = np.array([[name in row["labels19"].split("|") for name in names] for row in rows])
        tiles = sorted({row["tile"] for row in rows})
        order = np.random.default_rng(seed).permutation(len(tiles))
        count = {tile: sum(row["tile"] == tile for row in rows) for tile in tiles}
        teach: set[str] = set()
        for each in order:  # whole tiles, until two thirds of the patches teach
            if sum(count[tile] for tile in teach) < len(rows) * 2 / 3:
                teach.add(tiles[each])
        return cls(np.stack(images), classes, np.array([row["tile"] in teach for row in rows]), seed)

    def __getitem__(self, key: int) -> dict[str, Any]:
        return {"image": torch.from_numpy(self.image[key])}

    @property
    def statistics(self) -> Statistics:
        """Of the patches that teach."""
        pixels = self.image[self.teaches].astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
        found = [pixels.mean(1), pixels.std(1), pixels.min(1), pixels.max(1), *np.percentile(pixels, (2, 98), axis=1)]
        return Statistics((pixels.shape[1],) * 4, *(tuple(map(float, each)) for each in found))

    def features(self, describe: Callable[[Floats], Floats]) -> Floats:
        """(N, 2 F) mean and deviation of each feature over each patch."""
        seen = np.ones((1, CHIP, CHIP), bool)
        rows = []
        for image in self.image:
            found = describe(normalized(image[None], seen, self.statistics)[0])
            rows.append(np.concatenate([found.mean(axis=(1, 2)), found.std(axis=(1, 2))]))
        return np.stack(rows)

    def measured(self, x: Floats, make: Callable[[], probe.Probe], **about: Any) -> Iterator[Measured]:
        """Average precision of each class, averaged over classes."""
        test = ~self.teaches
        for n in LABELS:
            taught = np.random.default_rng(self.seed).permutation(np.flatnonzero(self.teaches))[:n]
            found = []
            for y in self.classes.T:
                # the same classes whatever the number of labels
                if min(y[self.teaches].sum(), y[test].sum()) < LEAST or not 0 < y[taught].sum() < len(taught):
                    continue
                fitted = make().fit(x[taught], y[taught].astype(np.int64))
                found.append(scores.average_precision(y[test], fitted.predict_proba(x[test])[:, 1]))
            yield Measured(
                set="bigearthnet",
                labels=n,
                metric="mean_average_precision",
                repetition=f"seed {self.seed}",
                value=float(np.mean(found)),
                **about,
            )


def sensor() -> Sensor:
    """Four bands of 10 m."""
    return bands.sensor("sentinel-2-l2a").subset(["B02", "B03", "B04", "B08"])


def measure(method: str | None, encoder: str, length: Length, seeds: int, ledger: Ledger, *, protocol: str) -> None:
    """All rows of a method (None: of floors and random encoders alone)."""
    row: dict[str, Any] = {
        "protocol": protocol,
        "method": method,
        "encoder": encoder,
        **asdict(length),
    }
    floor = {"protocol": "-", "method": FLOOR, "encoder": "-", "minutes": 0.0}
    random = {"protocol": "-", "method": RANDOM, "encoder": encoder, "minutes": 0.0}
    for seed in range(seeds):
        patches = Patches.of(seed)
        what = {"set": "bigearthnet", "repetition": f"seed {seed}"}
        if not ledger.has(**what, **floor):
            ledger.add(_floors(patches, floor))
        if not ledger.has(**what, **random):
            chosen, _ = pretraining.untrained(encoder, sensor(), patches.statistics, seed, chip=CHIP)
            ledger.add(_frozen(patches, chosen, random))
        if method is not None and not ledger.has(**what, **row):
            with ledger.training([what["repetition"]], set=what["set"], **row):
                chosen, _ = pretraining.trained(training(patches, method, encoder, length, protocol=protocol))
                ledger.add(_frozen(patches, chosen, row))


def training(patches: Patches, method: str, encoder: str, length: Length, *, protocol: str) -> Training:
    """On the patches that teach, or (transductive) on all."""
    chosen = pretraining.settings(method, encoder, patches.seed, chip=CHIP, batch_size=BATCH)
    keys = range(len(patches.image)) if protocol == TRANSDUCTIVE else np.flatnonzero(patches.teaches).tolist()
    loader = DatasetLoader(patches, keys, BATCH, seed=patches.seed)
    return Training(
        sets.OUT / "bigearthnet" / "encoders" / f"{method}-{encoder}-{length}-{len(keys)}-{patches.seed}",
        length.of(chosen, len(loader)),
        loader,
        sensor(),
        patches.statistics,
    )


def _multi_scale(image: Floats) -> Floats:
    return neighbourhood.multi_scale(image, np.ones(image.shape[1:], bool))


def _floors(patches: Patches, about: dict[str, Any]) -> Iterator[Measured]:
    for shown, describe in (("bands", lambda image: image), ("multi-scale", _multi_scale)):
        x = patches.features(describe)
        yield from patches.measured(x, lambda: probe.Logistic(2), model=f"linear, {shown}", **about)
        forest = lambda: probe.RandomForest(2, patches.seed)  # noqa: E731
        yield from patches.measured(x, forest, model=f"random forest, {shown}", **about)


def _frozen(patches: Patches, encoder: Encoder, about: dict[str, Any]) -> Iterator[Measured]:
    def describe(image: Floats) -> Floats:
        with torch.inference_mode():
            return hypercolumns(encoder, torch.from_numpy(image)[None])[0].numpy()

    own = patches.features(describe)
    both = np.concatenate([own, patches.features(_multi_scale)], axis=1)
    yield from patches.measured(own, lambda: probe.Logistic(2), model="linear, encoder", **about)
    yield from patches.measured(own, lambda: probe.KNN(2), model="kNN-5, encoder", **about)
    yield from patches.measured(both, lambda: probe.Logistic(2), model="linear, encoder + multi-scale", **about)
