"""Ranks that train over gloo, or on a GPU over NCCL, until they are told to stop, each in a process of its own.

Forked from one that has imported what takes seconds, as in :mod:`tests.train.processes`.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, override

import torch

from geossl.chips.course import Batch
from geossl.chips.dataset import DatasetLoader
from tests.methods.processes import hosts_of_one_gpu
from tests.train.processes import context

CHIPS, TOGETHER, EPOCHS = 67, 8, 2
"""The last three chips fill no batch."""
STEPS = EPOCHS * (CHIPS // TOGETHER)


class Numbered:
    """Smooth places, each with its number in its first pixel."""

    def __getitem__(self, key: int) -> dict[str, Any]:
        place = torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(key))
        image = (1500 + 600 * place + torch.zeros(3, 16, 16)).to(torch.int16)
        image[0, 0, 0] = key
        return {"image": image}


class Noted(DatasetLoader):
    """Remembers what it handed out."""

    def __init__(self, rank: int, world: int, chips: int = CHIPS) -> None:
        super().__init__(Numbered(), range(chips), TOGETHER // 2, rank=rank, world=world)
        self.seen: list[tuple[int, int, list[int]]] = []

    @override
    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        for number, batch in enumerate(super()._batches(epoch, first), first):
            self.seen.append((epoch, number, batch["image"][:, 0, 0, 0].tolist()))
            yield batch


def train(folder: Path, rank: int, world: int, stop: int, chips: int = CHIPS, **changes: Any) -> None:
    """Train as one of so many ranks, and end after step ``stop``; note what was handed out.

    The settings say half of :data:`TOGETHER` chips on each rank, whatever the number of ranks.
    """
    from geossl.train import history
    from geossl.train.pretrain import pretrain

    from . import synthetic

    history.EVERY = 1
    loader = Noted(rank, world, chips)
    try:
        pretrain(
            synthetic.settings(**MAE | changes, batch_size=TOGETHER // 2, epochs=EPOCHS),
            loader,
            sensor=synthetic.SENSOR,
            statistics=synthetic.STATISTICS,
            snapshot="SNAPSHOT",
            folder=folder,
            progress=lambda _, step, *__: os.kill(os.getpid(), signal.SIGTERM) if step == stop < STEPS else None,
        )
    finally:
        torch.save(loader.seen, folder / f"seen-{stop}-{rank}.pt")


MAE: dict[str, Any] = {"method": {"name": "mae"}, "encoder": {"name": "vit-tiny", "patch": 8}}


def gang(folder: Path, world: int, stop: int, **how: Any) -> list[tuple[int, int, list[int]]]:
    """Let so many ranks train together up to a step; what was handed out, (epoch, batch, chips of all ranks).

    They are processes of one machine; where there is a GPU, hosts with that one each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(world):
        if torch.cuda.is_available():
            environment = {"LOCAL_RANK": 0, "GROUP_RANK": rank, "NODE_RANK": rank, "LOCAL_WORLD_SIZE": 1}
            environment |= hosts_of_one_gpu(rank)
        else:
            environment = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        environment |= {"RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        process = context.Process(target=_as_rank, args=(environment, folder, rank, world, stop), kwargs=how)
        process.start()
        started.append(process)
    for process in started:
        process.join()
    assert {process.exitcode for process in started} == {0 if stop >= STEPS else 143}
    shares = [torch.load(folder / f"seen-{stop}-{rank}.pt") for rank in range(world)]
    return [(*parts[0][:2], [chip for part in parts for chip in part[2]]) for parts in zip(*shares, strict=True)]


def _as_rank(environment: dict[str, Any], folder: Path, rank: int, *about: Any, **how: Any) -> None:
    os.environ |= {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "127.0.0.1"}
    own = folder / f"host-{rank}"
    own.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(own)  # a host has locks of its own
    train(folder, rank, *about, **how)
