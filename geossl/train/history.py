"""The record of a training: one CSV row every few steps, written as it goes."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, override

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from geossl.files import aside
from geossl.progress import Progress
from geossl.train.health import HealthMonitor
from geossl.train.module import Pretraining

COLUMNS = ("step", "epoch", "loss", "learning_rate", "std", "rank", "uniformity", "alignment", "chips_per_s")
EVERY = 10  # steps between two rows


class History(Callback):
    """Tells progress, observes health, and writes ``history.csv`` on the first rank."""

    def __init__(self, run: Pretraining, path: Path, monitor: HealthMonitor, progress: Progress) -> None:
        self.run = run
        self.path = path
        self.monitor = monitor
        self.progress = progress
        self._since = (0, 0.0)  # step and time of the last row

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = (self.run.step, time.perf_counter())
        if trainer.is_global_zero:
            self._keep(self.run.step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        run, step = self.run, self.run.step
        if step % EVERY == 0 or step == run.max_steps:
            loss = float(outputs["loss"])
            run.health = self.monitor.observe(step, loss, outputs["views"])
            before, then = self._since
            self._since = step, time.perf_counter()
            chips = (step - before) * len(batch["image"]) * trainer.world_size
            row = {
                "step": step,
                "epoch": (step - 1) // run.batches,
                "loss": loss,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "chips_per_s": round(chips / (self._since[1] - then), 1),
                **run.health.to_dict(),
            }
            if trainer.is_global_zero:
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    csv.DictWriter(file, COLUMNS).writerow(row)
        if trainer.is_global_zero:
            self.progress("pretraining", step, run.max_steps)

    def _keep(self, step: int) -> None:
        """Begin the file, or drop the rows that a resumed run writes again."""
        rows: list[dict[str, str]] = []
        if step and self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= step]
        with aside(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
