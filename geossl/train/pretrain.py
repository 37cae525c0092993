"""Pretraining: an encoder from unlabelled chips.

Read :func:`pretrain` from top to bottom. The loop, devices and precision are Lightning's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

import geossl
from geossl.augment import Normalize
from geossl.bands import Sensor, Statistics
from geossl.errors import TrainingError
from geossl.methods.method import Method
from geossl.methods.registry import build_method
from geossl.nets.card import Card
from geossl.nets.encoder import build_encoder
from geossl.nets.weights import load_card, save_encoder
from geossl.progress import Progress, silent
from geossl.train.checkpoint import Checkpoint, ChipBatches, Epochs, Interrupt, resumable, step_seed
from geossl.train.health import HealthMonitor
from geossl.train.history import History
from geossl.train.launch import placement, quiet_lightning, threads
from geossl.train.settings import PretrainSettings

_MAY_CHANGE = {"minutes", "threads"}  # a run that differs in these alone goes on from its checkpoint
_CLIP = 1.0  # norm of the gradient


def pretrain(
    settings: PretrainSettings,
    loader: ChipBatches,
    *,
    sensor: Sensor,
    statistics: Statistics,
    snapshot: str | None,
    folder: Path,
    progress: Progress = silent,
) -> Card:
    """Train an encoder and write it, with its card, into ``folder``.

    A run that was cut off goes on from ``folder/checkpoints/last.ckpt`` when it is called again with
    the same settings and imagery, and ends with the weights that it would have had anyway.
    ``folder/history.csv`` grows while it runs.

    Parameters
    ----------
    loader:
        Chip batches of stored numbers: ``image`` (B, C, H, W), or (B, 2, C, H, W) for a method that
        wants pairs of dates, and ``valid`` (B, [2,] H, W). They are normalised here, on the device.
    statistics:
        Per band, in stored units; travels with the encoder.
    snapshot:
        Cube snapshot that the chips come from.

    Raises
    ------
    TrainingError
        The chips do not fit the method or sensor, or the training collapsed.
    """
    if len(loader) == 0:
        raise TrainingError("there are no chips to train on", "lower min_clear or batch_size, or ingest more scenes")
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "settings": settings.model_dump(mode="json", exclude=_MAY_CHANGE),
        "sensor": sensor.to_dict(),
        "statistics": statistics.to_dict(),
        "snapshot": snapshot,
        "batches": len(loader),
    }
    checkpoint = resumable(folder / "checkpoints", identity)
    with torch.random.fork_rng(devices=[]), threads(settings.threads), quiet_lightning(), Interrupt() as interrupt:
        torch.manual_seed(settings.seed)
        architecture = settings.encoder.model_copy(update={"image": settings.encoder.image or settings.chip})
        encoder = build_encoder(architecture, len(sensor.bands))
        timer = Timer(timedelta(minutes=settings.minutes) if settings.minutes else None, verbose=False)
        module = Pretraining(settings, build_method(settings.method, encoder), Normalize.from_statistics(statistics))
        history = History(folder / "history.csv", HealthMonitor(), progress)
        epochs = Epochs(loader)
        epochs.trainer = trainer = Trainer(
            max_epochs=settings.epochs,
            gradient_clip_val=_CLIP,
            callbacks=[timer, history, interrupt, Checkpoint(folder / "checkpoints" / "last.ckpt")],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **placement(settings.precision),
        )
        _fit(trainer, module, epochs, checkpoint)
        card = Card(
            architecture=architecture,
            sensor=sensor,
            statistics=statistics,
            method=settings.method.name,
            settings=settings.model_dump(mode="json"),
            snapshot=snapshot,
            code_version=geossl.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            health=history.health.to_dict() if history.health else {},
        )
        if trainer.is_global_zero:
            save_encoder(folder, encoder, card)
        trainer.strategy.barrier("saved")
    return load_card(folder)


class Pretraining(LightningModule):
    """A method as Lightning trains it: normalising, randomness, optimiser and schedule."""

    def __init__(self, settings: PretrainSettings, method: Method, normalize: Normalize) -> None:
        super().__init__()
        self.settings = settings
        # channels last is a fifth faster for convolutions on CPUs, and what tensor cores want
        self.method = method.to(memory_format=torch.channels_last)
        self.normalize = normalize

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [p for p in self.method.parameters() if p.requires_grad],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        image = batch["image"]
        dates, bands = (2 if self.method.wants_pairs else 1), len(self.normalize.mean)
        if image.ndim != 3 + dates or image.shape[-3] != bands or (dates == 2 and image.shape[1] != 2):
            raise TrainingError(
                f"the chips have shape {tuple(image.shape)}; {self.settings.method.name} wants {dates} date(s) of {bands} bands",
                "ask the loader for pairs where the method compares dates, and for the sensor's bands",
            )
        return batch | {"image": self.normalize(image, batch["valid"])}

    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        step = self.trainer.global_step
        torch.manual_seed(step_seed(self.settings.seed, self.global_rank, step))
        rate = learning_rate(self._done(step), self.settings.learning_rate, self.settings.warmup)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        losses = self.method(batch)
        return {"loss": losses.total, "views": [view.detach() for view in losses.views]}

    def on_train_batch_end(self, outputs: Any, batch: Mapping[str, Any], batch_idx: int) -> None:
        self.method.after_step(self.trainer.global_step, int(self.trainer.estimated_stepping_batches))

    def _done(self, step: int) -> float:
        """The share of the training that lies behind, by steps or by the clock, whichever is further."""
        done = step / self.trainer.estimated_stepping_batches
        if self.settings.minutes is None:
            return done
        timer = next(callback for callback in self.trainer.callbacks if isinstance(callback, Timer))
        # one clock for all ranks: with different rates their weights would part
        return self.trainer.strategy.broadcast(max(done, timer.time_elapsed() / (60 * self.settings.minutes)))


def learning_rate(done: float, peak: float, warmup: float) -> float:
    """A linear rise to ``peak``, then half a cosine to 0, at share ``done`` of the training."""
    if done < warmup:
        return peak * max(done / warmup, 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def _fit(trainer: Trainer, module: Pretraining, epochs: Epochs, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, epochs, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException:
        raise SystemExit(143) from None  # what a shell says of a process that SIGTERM ended
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        raise
