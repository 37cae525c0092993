"""Windows of chips: pixels are taken as they are, nothing is resampled."""

from __future__ import annotations

import torch
from torch import Tensor


def cut(x: Tensor, corner: Tensor, side: int) -> Tensor:
    """The windows of ``x`` (B, …, H, W) whose first row and column are ``corner`` (B, 2): (B, …, side, side)."""
    rows, columns = (corner.unsqueeze(2) + torch.arange(side, device=x.device)).unbind(1)  # (B, side) each
    middle = [1] * (x.ndim - 3)
    x = x.take_along_dim(rows.view(len(x), *middle, side, 1), dim=-2)
    return x.take_along_dim(columns.view(len(x), *middle, 1, side), dim=-1)


def random_below(limit: Tensor) -> Tensor:
    """Integers from 0 to ``limit`` (int64, any shape), both included and equally likely."""
    return (torch.rand(limit.shape, device=limit.device) * (limit + 1)).long().minimum(limit)
