"""One of two ranks: a step in parts under DDP. Run as ``python -m tests.train.accumulate_ranks FOLDER RANK``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from geossl.methods.method import Losses, Method
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.train.kinds import Kind, Kinds
from geossl.train.module import Pretraining

from .synthetic import SENSOR, STATISTICS, settings


class PerChip(Method):
    """A loss that is a mean over chips, and so does not care in which parts it is computed."""

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        pooled = self.encoder(batch["image"]).pooled
        return Losses((pooled - batch["gsd"].unsqueeze(1)).square().mean(), (pooled,))


class Step(nn.Module):
    """A pretraining's step as Lightning's DDP calls it."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        method = PerChip(build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=16), 3))
        changes = settings(accumulate=parts)
        self.pretraining = Pretraining(changes, method, Kinds([Kind(SENSOR, STATISTICS)]), batches=5)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        return self.pretraining.training_step(batch, 0)


def chips() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randn(8, 3, 16, 16), "gsd": torch.arange(8.0), "wavelengths": torch.ones(3)}


def gradients(step: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The loss of a step, and the gradients that it leaves."""
    out = step(batch)
    out["loss"].backward()
    assert len(out["views"][0]) == len(batch["image"])
    return out["loss"].detach(), [weight.grad.clone() for weight in step.parameters() if weight.grad is not None]


def main(folder: Path, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    step = DistributedDataParallel(Step(parts=2))
    rows = slice(4 * rank, 4 * rank + 4)
    batch = {name: each if name == "wavelengths" else each[rows] for name, each in chips().items()}
    found = [gradients(step, batch)[1] for _ in range(2)]  # the second step as the first
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
