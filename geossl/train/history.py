"""The record of a training: one CSV row every few steps, written as it goes.

Beside loss and health it may hold what watchers say of the encoder now and then, such as its
accuracy on labels. They only look: no weight, no random number and no decision follows from them.
"""

from __future__ import annotations

import csv
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
from geossl.train.health import HealthMonitor
from geossl.train.module import Pretraining

COLUMNS = ("step", "epoch", "loss", "learning_rate", "std", "rank", "uniformity", "alignment", "chips_per_s")
EVERY = 10  # steps between two rows
WATCH_EVERY = 100  # steps between two looks of the watchers

Watch = Callable[[Encoder], float]
"""What is to be known of an encoder (in evaluation mode, without gradients) while it learns."""


class History(Callback):
    """Tells progress, observes health, and writes ``history.csv`` on the first rank.

    Parameters
    ----------
    watch:
        Column of the record → what it holds, before the first step, every :data:`WATCH_EVERY` steps
        and at the end.
    """

    def __init__(
        self, run: Pretraining, path: Path, monitor: HealthMonitor, progress: Progress, watch: Mapping[str, Watch]
    ) -> None:
        self.run = run
        self.path = path
        self.monitor = monitor
        self.progress = progress
        self.watch = watch
        self.columns = (*COLUMNS, *watch)
        self._since = (0, 0.0)  # step and time of the last row
        self._latest: tuple[Any, int] | None = None  # outputs and chips of the last step

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._keep(self.run.step)
            if self.run.step == 0 and self.watch:
                self._write({"step": 0, "epoch": 0, **self._look()})
        self._since = (self.run.step, time.perf_counter())

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        self._latest = outputs, len(batch["image"])
        step = self.run.step
        if step % EVERY == 0 or step == self.run.max_steps:
            self._observe(trainer)
        if trainer.is_global_zero:
            self.progress("pretraining", step, self.run.max_steps)

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
        before, then = self._since
        now = time.perf_counter()
        row = {
            "step": step,
            "epoch": (step - 1) // run.batches,
            "loss": loss,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "chips_per_s": round((step - before) * chips * trainer.world_size / (now - then), 1),
            **(health.to_dict() if health else {}),
        }
        if trainer.is_global_zero:
            if last or step % WATCH_EVERY == 0 or step == run.max_steps:
                row |= self._look()
            self._write(row)
        self._since = step, time.perf_counter()

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
