"""The record of a training: one CSV row every few steps, written as it goes.

Beside loss, health and speed it may hold what watchers say of the encoder now and then, such as its
accuracy on labels. They only look: no weight, no random number and no decision follows from them.
"""

from __future__ import annotations

import csv
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, override

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from geossl.files import aside
from geossl.nets.encoder import Encoder
from geossl.progress import Progress
from geossl.train.checkpoint import Remaining
from geossl.train.health import HealthMonitor
from geossl.train.module import Pretraining

COLUMNS = (
    *("step", "epoch", "loss", "learning_rate", "std", "rank", "uniformity", "alignment"),
    *("chips_per_s", "waiting", "memory_mb"),
)
"""``waiting`` is the share of the time in which there was no batch yet; ``memory_mb`` the most that was taken so far,
of the GPU where there is one."""

EVERY = 10  # steps between two rows
WATCH_EVERY = 100  # steps between two looks of the watchers

Watch = Callable[[Encoder], float]
"""What is to be known of an encoder (in evaluation mode, without gradients) while it learns."""

Log = Callable[[Mapping[str, Any]], None]
"""Told each row as it is written; a resumed run tells some again."""


def ignored(_row: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


class History(Callback):
    """Tells progress, observes health, and writes ``history.csv`` on the first rank.

    Parameters
    ----------
    watch:
        Column of the record → what it holds, before the first step, every :data:`WATCH_EVERY` steps
        and at the end.
    batches:
        Which the training is fed with.
    log:
        Who else wants to know the rows.
    """

    def __init__(
        self,
        run: Pretraining,
        path: Path,
        monitor: HealthMonitor,
        progress: Progress,
        watch: Mapping[str, Watch],
        batches: Remaining,
        log: Log,
    ) -> None:
        self.run = run
        self.path = path
        self.monitor = monitor
        self.progress = progress
        self.watch = watch
        self.batches = batches
        self.tell = log
        self.columns = (*COLUMNS, *watch)
        self._since = (0, 0.0, 0.0)  # step, time, and time waited, at the last row
        self._latest: tuple[Any, int] | None = None  # outputs and chips of the last step
        self._note = ""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._keep(self.run.step)
            if self.run.step == 0 and self.watch:
                self._write({"step": 0, "epoch": 0, **self._look()})
        self._since = (self.run.step, time.perf_counter(), self.batches.waited)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        self._latest = outputs, len(batch["image"])
        step = self.run.step
        if step % EVERY == 0 or step == self.run.max_steps:
            self._observe(trainer)
        if trainer.is_global_zero:
            self.progress("pretraining", step, self.run.max_steps, self._note)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # the clock may stop a training between two rows
        if self._since[0] < self.run.step:
            self._observe(trainer, last=True)

    def _observe(self, trainer: Trainer, *, last: bool = False) -> None:
        assert self._latest is not None
        (outputs, chips), run, step = self._latest, self.run, self.run.step
        loss = float(outputs["loss"])
        health = self.monitor.observe(step, loss, outputs["views"])
        run.health = health or run.health
        before, then, waited = self._since
        now = time.perf_counter()
        speed = (step - before) * chips * trainer.world_size / (now - then)
        waiting = (self.batches.waited - waited) / (now - then)
        memory = memory_mb(run.device)
        self._note = f"{speed:,.0f} chips/s, {waiting:.0%} of the time without a batch, {memory:,.0f} MB"
        row = {
            "step": step,
            "epoch": (step - 1) // run.batches,
            "loss": loss,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            **(health.to_dict() if health else {}),
            "chips_per_s": round(speed, 1),
            "waiting": round(waiting, 4),
            "memory_mb": round(memory),
        }
        if trainer.is_global_zero:
            if last or step % WATCH_EVERY == 0 or step == run.max_steps:
                row |= self._look()
            self._write(row)
        self._since = step, time.perf_counter(), self.batches.waited

    def _look(self) -> dict[str, float]:
        """What the watchers say; the training does not notice that they were there."""
        encoder = self.run.method.encoder
        modes = [(module, module.training) for module in encoder.modules()]
        device = self.run.device
        encoder.eval()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
                return {name: round(watch(encoder), 4) for name, watch in self.watch.items()}
        finally:
            for module, training in modes:
                module.training = training

    def _write(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self.tell(row)

    def _keep(self, step: int) -> None:
        """Begin the file, or drop the rows that a resumed run writes again."""
        rows: list[dict[str, str]] = []
        if step and self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= step]
        with aside(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            # other watchers than before are no fault
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def memory_mb(device: torch.device) -> float:
    """The most memory so far: on a GPU what tensors took there, else what the process did."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6  # macOS counts bytes
