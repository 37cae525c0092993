"""Stopping and going on: a resumed run ends with the weights that an undisturbed one would have.

Three things make that so. A checkpoint is only written *between* steps, when weights, optimiser,
batch norm and loader agree. The loader's position is part of it. And the random numbers of a step
depend on seed, rank and step alone, so there is no generator's state to restore.

For Lightning every process runs one pass over the batches that are left: its own record of epochs
does not survive an interruption at an epoch's last batch.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, override

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from geossl.errors import TrainingError
from geossl.train.module import Pretraining

SAVE_EVERY = 300.0  # seconds; an epoch may be longer


class ChipBatches(Protocol):
    """A loader of chip batches that can stop and go on."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The batches from the current position to the epoch's end."""

    def set_epoch(self, epoch: int) -> None:
        """Go to the first batch of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """The position: the batch after the last one that was handed out."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""


class Remaining:
    """The batches that are left of a training, over all its epochs.

    Parameters
    ----------
    state:
        The loader's position after ``step`` steps; needed inside an epoch only.
    """

    def __init__(self, loader: ChipBatches, epochs: int, step: int, state: dict[str, Any] | None) -> None:
        self.loader = loader
        self.epochs = epochs
        self.step = step
        self.state = state

    def __len__(self) -> int:
        return self.epochs * len(self.loader) - self.step

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        first, inside = divmod(self.step, len(self.loader))
        for epoch in range(first, self.epochs):
            if epoch == first and inside and self.state is not None:
                self.loader.load_state_dict(self.state)
            else:
                self.loader.set_epoch(epoch)
            yield from self.loader


class Checkpoint(Callback):
    """One file, written after each epoch, every :data:`SAVE_EVERY` seconds, and when the run ends or is cut off.

    Parameters
    ----------
    saved:
        What :func:`load` found, to go on from.
    """

    def __init__(self, run: Pretraining, path: Path, loader: ChipBatches, saved: Mapping[str, Any] | None) -> None:
        self.run = run
        self.path = path
        self.loader = loader
        self.saved = saved
        self._time = time.monotonic()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved is not None:
            trainer.optimizers[0].load_state_dict(self.saved["optimizer"])
            self.saved = None

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        if self.run.step % self.run.batches == 0 or time.monotonic() - self._time > SAVE_EVERY:
            self._save(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # In the middle of a step batch norm has moved and the weights have not: then the last file stands.
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        # A run that has collapsed is not worth keeping.
        if batches.ready == batches.processed and self.run.step and not isinstance(exception, TrainingError):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._time = time.monotonic()
        if trainer.is_global_zero:
            aside = self.path.with_suffix(".partial")
            content = {
                "step": self.run.step,
                "seconds": self.run.seconds,
                "health": self.run.health.to_dict() if self.run.health else None,
                "method": self.run.method.state_dict(),
                "optimizer": trainer.optimizers[0].state_dict(),
                "loader": self.loader.state_dict(),
            }
            torch.save(content, aside)
            aside.replace(self.path)


class Interrupt(Callback):
    """Lets Ctrl-C wait for the end of the step; a second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self._asked = False
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    @override
    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def load(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint at ``path``, if it is of the run that ``identity`` (JSON-ready) describes.

    What another run left there is removed, and the identity is noted beside it for the next time.
    """
    fingerprint = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_name("run.json")
    if not note.exists() or json.loads(note.read_text(encoding="utf-8")).get("fingerprint") != fingerprint:
        path.unlink(missing_ok=True)
        note.write_text(json.dumps({"fingerprint": fingerprint, "run": identity}, indent=2) + "\n", encoding="utf-8")
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
