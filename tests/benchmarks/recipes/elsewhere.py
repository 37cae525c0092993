"""``python -m tests.benchmarks.recipes.elsewhere JOBS``: pretrain on a machine that has a GPU, torch and no imagery.

``--pack JOBS`` of the runner writes what it would train: chips, settings, statistics. Here they are trained, several
side by side, since networks as small leave most of a GPU idle; each leaves its encoder in its own folder, for
``out/recipes`` of the machine that asked. Batches are those of chips in memory, in an order of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import override

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.bands import Sensor, Statistics
from geossl.chips.course import Batch, Course
from geossl.nets.weights import CARD
from geossl.train.checkpoint import ChipBatches
from geossl.train.kinds import Kind
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings

JOB = "job.json"
AT_ONCE = os.cpu_count() or 1
"""Trainings side by side."""
_EPOCHS = 8
"""How often the loader is gone through: an epoch leaves out what fills no batch, each time something else."""


@dataclass(frozen=True)
class Training:
    """One pretraining."""

    folder: Path
    """Of the encoder."""
    settings: PretrainSettings
    loader: ChipBatches
    sensor: Sensor
    statistics: Statistics
    snapshot: str | None = None
    kinds: Sequence[Kind] = ()
    """Of the members of a pool of several sensors."""


def pack(training: Training, folder: Path) -> None:
    """Write into a folder what is to be trained, and beside it the chips (N, [T,] C, S, S) that the loader shows.

    Of one sensor: chips of several have no shape in common.
    """
    assert not training.kinds, "a pool of several sensors cannot be packed"
    found: dict[bytes, dict[str, Tensor]] = {}
    shared: dict[str, Tensor] = {}
    for epoch in range(_EPOCHS):
        training.loader.set_epoch(epoch)
        for batch in training.loader:
            shared = {name: value.clone() for name, value in batch.items() if name == "wavelengths"}
            each = {name: value for name, value in batch.items() if name not in (*shared, "member")}
            for row in range(len(batch["image"])):
                chip = {name: value[row].clone() for name, value in each.items()}
                found.setdefault(chip["image"].numpy().tobytes(), chip)
    chips = {name: torch.stack([chip[name] for chip in found.values()]).numpy() for name in next(iter(found.values()))}
    folder.mkdir(parents=True, exist_ok=True)
    name = f"chips-{hashlib.blake2b(b''.join(sorted(found)), digest_size=8).hexdigest()}.npz"
    if not (folder.parent / name).exists():  # methods share them
        np.savez_compressed(folder.parent / name, **chips, **{name: value.numpy() for name, value in shared.items()})
    job = {
        "chips": name,
        "settings": training.settings.model_dump(mode="json"),
        "sensor": training.sensor.to_dict(),
        "statistics": training.statistics.to_dict(),
        "snapshot": training.snapshot,
    }
    (folder / JOB).write_text(json.dumps(job))


class InMemory(Course):
    """Full batches of chips in memory, in a new order each epoch."""

    def __init__(self, chips: Mapping[str, Tensor], batch_size: int, seed: int) -> None:
        super().__init__()
        self.chips = dict(chips)
        self.shared = {name: self.chips.pop(name) for name in ("wavelengths",) if name in chips}
        self.batch_size, self.seed = batch_size, seed

    @override
    def __len__(self) -> int:
        return len(self.chips["image"]) // self.batch_size

    @override
    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.chips["image"]))

    @override
    def load(self, epoch: int, number: int) -> Batch:
        rows = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        return {name: value[rows] for name, value in self.chips.items()} | self.shared


def train(folder: Path) -> str:
    """Train what a folder holds; what is to be said of it."""
    torch.set_num_threads(1)
    job = json.loads((folder / JOB).read_text())
    chosen = PretrainSettings.model_validate(job["settings"])
    with np.load(folder.parent / job["chips"]) as file:
        chips = {name: torch.from_numpy(file[name]) for name in file.files}
    loader = InMemory(chips, chosen.batch_size, chosen.seed)
    start = time.perf_counter()
    pretrain(
        chosen,
        loader,
        sensor=Sensor.from_dict(job["sensor"]),
        statistics=Statistics.from_dict(job["statistics"]),
        snapshot=job["snapshot"],
        folder=folder,
    )
    taken = time.perf_counter() - start
    return f"{folder}: {len(chips['image'])} chips, {chosen.epochs * len(loader):,} steps in {taken:.0f} s"


def _share_the_gpu() -> None:
    """Give this process locks of its own, or one training would wait for another."""
    tempfile.tempdir = tempfile.mkdtemp(prefix="geossl-")


def main() -> None:
    folders = [path.parent for path in sorted(Path(sys.argv[1]).rglob(JOB)) if not (path.parent / CARD).exists()]
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn"), _share_the_gpu, max_tasks_per_child=1) as pool:
        running = {pool.submit(train, folder): folder for folder in folders}
        for done in as_completed(running):
            try:
                print(done.result(), flush=True)
            except Exception as error:  # the others go on
                print(f"{running[done]}: {error!r}", flush=True)


if __name__ == "__main__":
    main()
