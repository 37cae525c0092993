"""Single patches of an image, so that those which are hidden are never embedded."""

from __future__ import annotations

import torch
from torch import Tensor


def take_patches(image: Tensor, patch: int, which: Tensor) -> Tensor:
    """Patches ``which`` (B, N), numbered in row order, of ``image`` (B, C, H, W), as (B, N, C·patch·patch)."""
    batch, bands, height, width = image.shape
    columns = width // patch
    cells = image.view(batch, bands, height // patch, patch, columns, patch)
    row, column = which // columns, which % columns
    each = torch.arange(batch, device=image.device).unsqueeze(1)
    return cells[each, :, row, :, column].flatten(2)
