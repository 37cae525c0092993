"""Stopping and going on: a resumed run ends with the weights that an undisturbed one would have.

Three things make that so. A checkpoint is only written *between* steps, when weights, optimiser,
batch norm and loader agree. The loader's position is part of it. And the random numbers of a step
depend on seed, rank and step alone, so there is no generator's state to restore.

For Lightning every process runs one pass over the batches that are left: its own record of epochs
does not survive an interruption at an epoch's last batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self, override

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from geossl.errors import StoreError, TrainingError
from geossl.files import read_json, write_json
from geossl.train.copies import Copies
from geossl.train.launch import rank, wait_for_ranks
from geossl.train.module import Pretraining

SAVE_EVERY = 300.0  # seconds; an epoch may be longer
_LOCK_WAIT = 60.0  # seconds; the processes of a run that was killed may take a while to end


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
        """Go to a position, which another number of ranks may have left: then with batches of the size that they
        had on all ranks together."""


class Remaining:
    """The batches that are left of a training, over all its epochs.

    Parameters
    ----------
    loader:
        At its position after ``step`` steps.
    """

    def __init__(self, loader: ChipBatches, epochs: int, step: int) -> None:
        self.loader = loader
        self.epochs = epochs
        self.step = step
        self.waited = 0.0
        """Seconds for which there was no batch when one was wanted."""

    def __len__(self) -> int:
        return self.epochs * len(self.loader) - self.step

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        first, inside = divmod(self.step, len(self.loader))
        for epoch in range(first, self.epochs):
            if epoch > first or not inside:
                self.loader.set_epoch(epoch)
            batches = iter(self.loader)
            while (batch := self._next(batches)) is not None:
                yield batch

    def _next(self, batches: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        began = time.perf_counter()
        batch = next(batches, None)
        self.waited += time.perf_counter() - began
        return batch


class Checkpoint(Callback):
    """One file, written after each epoch, every :data:`SAVE_EVERY` seconds, and when the run ends or is cut off.

    Parameters
    ----------
    saved:
        What :func:`load` found, to go on from.
    copies:
        Where each one is copied to, beside its place on disk.
    """

    def __init__(
        self,
        run: Pretraining,
        path: Path,
        loader: ChipBatches,
        saved: Mapping[str, Any] | None,
        copies: Copies | None = None,
    ) -> None:
        self.run = run
        self.path = path
        self.loader = loader
        self.saved = saved
        self.copies = copies
        self._time = time.monotonic()
        self._broken = False

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _require_same_step(trainer, self.run.step)
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
        keep = not self._broken and not isinstance(exception, TrainingError)
        if batches.ready == batches.processed and self.run.step and keep:
            self._save(trainer)
        if self.copies is not None:
            self.copies.wait()

    def _save(self, trainer: Trainer) -> None:
        self._time = time.monotonic()
        if trainer.is_global_zero:
            content = {
                "step": self.run.step,
                "seconds": self.run.seconds,
                "health": self.run.health.to_dict() if self.run.health else None,
                "method": self.run.method.state_dict(),
                "average": None if self.run.average is None else self.run.average.state_dict(),
                "optimizer": trainer.optimizers[0].state_dict(),
                "loader": self.loader.state_dict(),
                "batches": self.run.batches,
            }
            try:
                write(self.path, content)
            except (OSError, RuntimeError) as error:
                self._broken = True
                raise StoreError(
                    f"the checkpoint {self.path} cannot be written at step {self.run.step}: {_reason(error)}",
                    "free disk, or make it writable; the same command goes on from the last checkpoint",
                ) from error
            if self.copies is not None:
                self.copies.put(self.path, self.run.step)


class Interrupt(Callback):
    """Lets Ctrl-C, SIGTERM and SIGUSR1 wait for the end of the step, on all ranks the same; a second Ctrl-C does not wait.

    In a thread, where no signal arrives, it does nothing.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self._asked: int | None = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main:
            self._before = {number: signal.getsignal(number) for number in self._SIGNALS}
            self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    @override
    def on_train_start(self, *_: Any, **__: Any) -> None:
        # Lightning has put its own handler for SIGTERM in between. That one broadcasts from within the handler,
        # in the middle of whatever the ranks are saying to each other.
        if self._main:
            self._listen()

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        asked = self._asked or 0
        if trainer.world_size > 1:  # each rank hears it at another moment, or only one does
            here = torch.tensor(asked, device=trainer.strategy.root_device)
            asked = int(trainer.strategy.reduce(here, reduce_op="max"))
        if asked == signal.SIGINT:
            raise KeyboardInterrupt
        if asked:
            raise SystemExit(128 + asked)  # what a shell says of a process that a signal ended

    def _listen(self) -> None:
        for number in self._SIGNALS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one run at a time train in a folder; a lock that the system frees when its process ends, however it ends.

    Raises
    ------
    TrainingError
        Another process trains there, on this machine or another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=_LOCK_WAIT)
    if rank() == 0:  # the first rank stands for all
        try:
            lock.acquire()
        except Timeout:
            raise TrainingError(f"another process trains in {folder}", "wait for it, or end it") from None
    try:
        wait_for_ranks()  # none reads a checkpoint that an earlier process may still replace
        yield
    finally:
        lock.release()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a checkpoint in one move: whoever reads finds the old or the new one, never a part.

    Raises
    ------
    OSError, RuntimeError
        It cannot be written; the old one stands.
    """
    partial = path.with_suffix(".partial")  # always the same name: one that a kill left is written over
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint at ``path``, if it is of the run that ``identity`` (JSON-ready) describes.

    What another run left there is removed, and the identity is noted beside it for the next time.
    """
    note = path.with_name("run.json")
    if (read_json(note) or {}).get("fingerprint") != fingerprint(identity):
        path.unlink(missing_ok=True)
        write_json(note, {"fingerprint": fingerprint(identity), "run": identity})
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def reached(path: Path, identity: Mapping[str, Any]) -> int:
    """The step of the checkpoint that :func:`load` would find; 0 where there is none.

    One of another run is removed, so that what is fetched into its place is taken for what it is.
    """
    saved = load(path, identity)
    return 0 if saved is None else int(saved["step"])


def fingerprint(identity: Mapping[str, Any]) -> str:
    """A short name for what a run is."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()


def go_on(loader: ChipBatches, saved: Mapping[str, Any], path: Path) -> None:
    """Bring a loader to where the checkpoint ``saved`` was written, be it by another number of ranks.

    From here on an epoch has as many batches as it had there, each of as many chips on all ranks together.

    Raises
    ------
    SettingsError
        Those batches cannot be shared out to this many ranks.
    TrainingError
        The loader has other chips.
    """
    loader.load_state_dict(saved["loader"])
    if len(loader) != saved["batches"]:
        raise TrainingError(
            f"the training of {path} had {saved['batches']} batches an epoch, and the loader has {len(loader)}",
            "give it the chips that it had, or train in another folder",
        )


def _require_same_step(trainer: Trainer, step: int) -> None:
    """Ranks that go on from different steps would wait for each other forever, or mix their weights."""
    if trainer.world_size > 1:
        here = torch.tensor([-step, step], device=trainer.strategy.root_device)
        first, last = trainer.strategy.reduce(here, reduce_op="max").tolist()
        if -first != last:
            raise TrainingError(
                f"one rank goes on from step {-first}, another from step {last}",
                "put the store on a file system that all machines share",
            )


def _reason(error: BaseException) -> str:
    """What the system said; torch wraps it in a message about its own file format."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return str(error) if cause is None else cause.strerror or str(cause)
