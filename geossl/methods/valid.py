"""What counts: views and patches that are mostly cloud or no-data carry no loss."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

MIN_VALID = 0.5
"""Share of valid pixels from which a view or a patch says enough of its place."""


def seen(valid: Tensor) -> Tensor:
    """Which of the masks (…, H, W) bool are mostly valid: (…,) bool."""
    return valid.float().mean(dim=(-2, -1)) >= MIN_VALID


def mean_over(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of ``values`` where ``counted`` (same shape, bool or weights), over all ranks; 0 where nothing counts.

    Ranks may count unequally many. Distributed training averages their gradients, so each rank
    divides by the mean of their counts: N ranks then learn what one with all chips would.
    """
    weight = counted.to(values.dtype)
    total = weight.sum()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        total = total / distributed.get_world_size()
    return (values * weight).sum() / torch.where(total > 0, total, 1)
