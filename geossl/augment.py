"""Normalising and augmenting chips, in batch and on the device they are on.

Stored numbers come in, normalised floats go out. Nothing here knows of red, green and blue:
views differ in geometry, and mildly in gain, bias and noise a band. Hue, grey-scale and band
dropping do not belong to reflectance, and dropped scores where they were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from geossl.bands import Statistics


class Normalize(nn.Module):
    """Stored numbers → float32 with mean 0 and standard deviation 1 a band; invalid pixels → 0.

    Parameters
    ----------
    mean, std:
        Per band, in stored units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        # a constant band carries nothing; dividing by 1 keeps it finite
        self.register_buffer("std", torch.tensor([s if s > 0 else 1.0 for s in std], dtype=torch.float32).view(-1, 1, 1))

    @classmethod
    def from_statistics(cls, statistics: Statistics) -> Self:
        return cls(statistics.mean, statistics.std)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Normalise ``image`` (B, [T,] C, H, W), of any stored dtype, by ``valid`` (B, [T,] H, W) bool."""
        out = image.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
        # masked_fill, not a product: an invalid float pixel may be NaN
        return out.masked_fill_(~valid.unsqueeze(-3), 0.0)
