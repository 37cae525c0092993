"""Stopping and going on: a resumed run ends with the weights that an undisturbed one would have.

Three things make that so. A checkpoint is only written *between* steps, when weights, optimiser,
batch norm and loader agree. The loader's position is part of it. And the random numbers of a step
depend on seed, rank and step alone (:func:`step_seed`), so there is no generator state to restore.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from geossl.errors import TrainingError

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


class Epochs:
    """A :class:`ChipBatches` as Lightning wants it: it asks for the epoch only when an epoch begins."""

    def __init__(self, loader: ChipBatches) -> None:
        self.loader = loader
        self.trainer: Trainer | None = None
        self._resume: dict[str, Any] = {}
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        # A generator's body runs at the first batch: by then the trainer knows which epoch it is in.
        assert self.trainer is not None
        self._epoch = self.trainer.current_epoch
        if self._resume.get("epoch") == self._epoch:
            self.loader.load_state_dict(self._resume["loader"])
        else:
            self.loader.set_epoch(self._epoch)
        self._resume = {}
        yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "loader": self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state


class Checkpoint(LightningCheckpoint):
    """Writes one file after each epoch, every :data:`SAVE_EVERY` seconds, and when the run is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.strategy.broadcast(time.monotonic() - self._saved > SAVE_EVERY):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        # In the middle of a step batch norm has moved and the weights have not: the last file stands.
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        between_steps = batches.ready == batches.processed and trainer.global_step > 0
        # Saving is collective; only SIGTERM is known to reach every rank. A sick run is not worth keeping.
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        if between_steps and together and not isinstance(exception, TrainingError):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()


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

    def on_train_batch_end(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def step_seed(seed: int, rank: int, step: int) -> int:
    """The seed of all randomness in one step on one rank."""
    digest = hashlib.blake2b(f"{seed}/{rank}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def resumable(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """The checkpoint in ``folder`` to go on from, if it is of the run that ``identity`` (JSON-ready) describes.

    What another run left there is removed, and the identity is noted for the next time.
    """
    fingerprint = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    last, note = folder / "last.ckpt", folder / "run.json"
    if not note.exists() or json.loads(note.read_text(encoding="utf-8")).get("fingerprint") != fingerprint:
        last.unlink(missing_ok=True)
        note.write_text(json.dumps({"fingerprint": fingerprint, "run": identity}, indent=2) + "\n", encoding="utf-8")
    return last if last.exists() else None
