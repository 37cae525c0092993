"""A method as Lightning trains it: normalising, randomness, optimiser and schedule."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, override

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from geossl.errors import TrainingError
from geossl.methods.method import Method
from geossl.methods.momentum import approach
from geossl.train.health import Health
from geossl.train.kinds import Kinds
from geossl.train.launch import unfuse_attention
from geossl.train.settings import PretrainSettings

_CLIP = 1.0  # norm of the gradient


class Pretraining(LightningModule):
    """One pretraining, which may have begun in an earlier process.

    Parameters
    ----------
    kinds:
        Of the imagery that the batches are of.
    batches:
        Batches in an epoch.
    step, seconds:
        Steps done and time spent before this process.
    health:
        The last observation so far.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        method: Method,
        kinds: Kinds,
        batches: int,
        *,
        step: int = 0,
        seconds: float = 0.0,
        health: Health | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        # channels last is a fifth faster for convolutions on CPUs, and what tensor cores want
        self.method = method.to(memory_format=torch.channels_last)
        self.average = None if settings.ema is None else deepcopy(method.encoder).requires_grad_(False)
        """The running mean of the encoder's weights and statistics (Polyak & Juditsky 1992), where it is wanted."""
        self.kinds = kinds
        self.batches = batches
        self.max_steps = settings.epochs * batches
        self.health = health
        self._step = step
        self._began = time.monotonic() - seconds
        if settings.compile:
            self.method.compile()

    @property
    def step(self) -> int:
        """Optimiser steps done, over all processes of this training."""
        return self._step + self.trainer.global_step

    @property
    def seconds(self) -> float:
        """Time spent, over all processes of this training."""
        return time.monotonic() - self._began

    def done(self, step: int) -> float:
        """The share of the training that lies behind: by steps or by the clock, whichever is further."""
        done = step / self.max_steps
        if self.settings.minutes is None:
            return done
        # one clock for all ranks: with different learning rates their weights would part
        return self.trainer.strategy.broadcast(max(done, self.seconds / (60 * self.settings.minutes)))

    @override
    def on_fit_start(self) -> None:
        if self.device.type == "cpu" and self.trainer.precision == "bf16-mixed":
            unfuse_attention(self.method)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [p for p in self.method.parameters() if p.requires_grad],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    @override
    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        # Lightning's own refuses a fused optimiser under autocast, for the sake of fp16's scaler; there is none here
        torch.nn.utils.clip_grad_norm_(self.method.parameters(), _CLIP)

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # here and not at the batch's end, where callbacks come first: a checkpoint holds what this changes
        step = self.step + 1
        self.method.after_step(step, self.max_steps)
        if self.average is not None and self.settings.ema is not None:
            # the mean of all steps until there are as many as it looks back, since it begins as chance
            keep = min(self.settings.ema, (step - 1) / step)
            approach(self.average, self.method.encoder, keep, keep)

    @override
    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        # a plain number: to ask a device for it would be to wait for all that it still has to do
        return batch | {"member": int(batch["member"])} if "member" in batch else batch

    @override
    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        dates, wanted = (2 if self.method.wants_pairs else 1), [(batch["image"], self.kinds.bands(batch))]
        if "beside" in batch:
            dates, wanted = 1, [*wanted, (batch["beside"]["image"], self.kinds.bands_beside(batch))]
        for image, bands in wanted:
            if image.ndim != 3 + dates or image.shape[-3] != bands or (dates == 2 and image.shape[1] != 2):
                raise TrainingError(
                    f"the chips have shape {tuple(image.shape)}; "
                    f"{self.settings.method.name} wants {dates} date(s) of {bands} bands",
                    "ask the loader for pairs where the method compares dates, and for the sensor's bands",
                )
        return self.kinds(batch)

    @override
    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.settings.seed, self.global_rank, self.step))
        rate = learning_rate(self.done(self.step), self.settings.learning_rate, self.settings.warmup)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    @override
    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        self.method.zero_grad()
        shares: list[Tensor] = []
        views: list[list[Tensor]] = []
        for part in split(batch, self.settings.accumulate):
            if shares:  # the part before is done with; under DDP, ranks exchange gradients after the last one alone
                shares[-1].backward()
                shares[-1] = shares[-1].detach()
            losses = self.method(part)
            shares.append(losses.total / self.settings.accumulate)
            views.append([view.detach() for view in losses.views])
        return {"loss": sum(shares), "views": [torch.cat(view) for view in zip(*views, strict=True)]}

    @override
    def optimizer_zero_grad(self, *_: Any, **__: Any) -> None:
        """Nothing: Lightning asks for it after the training step, which has gradients of its first parts by then."""

    @override
    def on_train_batch_end(self, outputs: Any, batch: Mapping[str, Any], batch_idx: int) -> None:
        self.trainer.should_stop = self.done(self.step) >= 1


def split(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """A batch in so many parts of as many chips each; what describes the whole of it is in every part.

    Raises
    ------
    TrainingError
        The chips cannot be shared out.
    """
    count = len(batch["image"])
    if count % parts or count // parts < 2:
        raise TrainingError(
            f"a batch of {count} chips cannot be computed in {parts} equal parts of two or more",
            "choose a batch_size that is a multiple of accumulate",
        )
    whole = {name: batch[name] for name in ("wavelengths", "spectrum", "kind", "member") if name in batch}
    pieces = {
        name: split(chips, parts) if name == "beside" else chips.chunk(parts)
        for name, chips in batch.items()
        if name not in whole
    }
    return [{name: chips[part] for name, chips in pieces.items()} | whole for part in range(parts)]


def learning_rate(done: float, peak: float, warmup: float) -> float:
    """A linear rise to ``peak``, then half a cosine to 0, at share ``done`` of the training."""
    if done < warmup:
        return peak * max(done / warmup, 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def step_seed(seed: int, rank: int, step: int) -> int:
    """The seed of all randomness in one step on one rank: a resumed run needs no generator's state."""
    digest = hashlib.blake2b(f"{seed}/{rank}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
