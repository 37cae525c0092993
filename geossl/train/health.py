"""Is the encoder healthy? A falling loss does not say so: a collapsed run's loss falls too.

The figures are read from pooled features, one row an image, scaled to length 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geossl.errors import TrainingError

_MIN_BATCH = 4  # images; fewer span too few directions to tell


@dataclass(frozen=True, slots=True)
class Health:
    """The figures of one batch."""

    std: float
    """Spread of the features over the batch; 0: every image gets the same, 1: as spread as can be."""
    rank: float
    """Directions that the features use, at most one less than the batch."""
    uniformity: float
    """How evenly the features cover the sphere; 0 at worst, below −2 is good."""
    alignment: float | None
    """Squared distance between two views of one place, where there are two; 0 at best."""

    def to_dict(self) -> dict[str, float | None]:
        return dataclasses.asdict(self)


class HealthMonitor:
    """Refuses a training that has collapsed: early, after ``patience`` bad observations in a row, or at its end."""

    def __init__(self, *, patience: int = 5, min_std: float = 0.05, min_rank: float = 1.5) -> None:
        self.patience = patience
        self.min_std = min_std
        self.min_rank = min_rank
        self._bad = 0

    def observe(self, step: int, loss: float, views: Sequence[Tensor]) -> Health | None:
        """Measure the pooled features (B, D) of one or two views; None where B is too small to tell.

        Raises
        ------
        TrainingError
            The loss is no number, or the features have collapsed.
        """
        if not math.isfinite(loss) or not all(view.isfinite().all() for view in views):
            raise TrainingError(
                f"the training broke at step {step}: its loss or features are no longer finite",
                "lower the learning rate, or lengthen the warm-up",
            )
        if len(views[0]) < _MIN_BATCH:
            return None
        health = measure(views)
        self._bad = self._bad + 1 if self.collapsed(health) else 0
        if self._bad >= self.patience:
            raise _collapse(f"the encoder has collapsed at step {step}", health)
        return health

    def conclude(self, health: Health | None) -> None:
        """Judge a training by its last observation: a short one ends before patience does.

        Raises
        ------
        TrainingError
            What it would leave behind is a collapsed encoder.
        """
        if health is not None and self.collapsed(health):
            raise _collapse("the encoder had collapsed when its training ended, and is not kept", health)

    def collapsed(self, health: Health) -> bool:
        """Whether the features are nearly the same of every image, or vary in one direction alone."""
        return health.std < self.min_std or health.rank < self.min_rank


def _collapse(what: str, health: Health) -> TrainingError:
    return TrainingError(
        f"{what}: it says nearly the same of every image (spread {health.std:.4f}, {health.rank:.1f} directions)",
        "lower the learning rate, use larger batches, or try another method; "
        "if it happens at once, look at the imagery: are the chips all alike?",
    )


def measure(views: Sequence[Tensor]) -> Health:
    """The health of pooled features, one (B, D) tensor for each view of the same B places."""
    unit = [F.normalize(view.detach().float(), dim=1) for view in views]
    return Health(
        std=feature_std(unit[0]),
        rank=effective_rank(unit[0]),
        uniformity=uniformity(unit[0]),
        alignment=alignment(unit[0], unit[1]) if len(unit) > 1 else None,
    )


def feature_std(unit: Tensor) -> float:
    """Root of the mean squared distance of unit vectors (B, D) from their centre, in [0, 1]."""
    return (unit - unit.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values (RankMe, https://arxiv.org/abs/2210.02885).

    The features (B, D) are centred first, so that a large common part does not hide what differs;
    1 for constant features.
    """
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.exp(-torch.xlogy(share, share).sum()).item()


def alignment(unit_a: Tensor, unit_b: Tensor) -> float:
    """Mean squared distance between matching unit vectors (https://arxiv.org/abs/2005.10242)."""
    return (unit_a - unit_b).square().sum(dim=1).mean().item()


def uniformity(unit: Tensor) -> float:
    """Logarithm of the mean Gaussian potential between unit vectors (https://arxiv.org/abs/2005.10242)."""
    return torch.pdist(unit).square().mul(-2).exp().mean().log().item()
