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
from torch.nn import functional as F

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
        self.register_buffer(
            "std", torch.tensor([s if s > 0 else 1.0 for s in std], dtype=torch.float32).view(-1, 1, 1)
        )

    @classmethod
    def from_statistics(cls, statistics: Statistics) -> Self:
        return cls(statistics.mean, statistics.std)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Normalise ``image`` (B, [T,] C, H, W), of any stored dtype, by ``valid`` (B, [T,] H, W) bool."""
        out = image.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
        # masked_fill, not a product: an invalid float pixel may be NaN
        return out.masked_fill_(~valid.unsqueeze(-3), 0.0)


class Views(nn.Module):
    """A random view of each chip: geometry for pixels and mask alike, then mild changes a band.

    Geometry is one of the eight flips and quarter turns, with a random square crop that is brought
    back to the chip's size: one resampling for the whole batch, on its device.

    Parameters
    ----------
    crop:
        Smallest share of the chip's area that the crop keeps; 1 keeps all of it.
    gain, bias, noise:
        Standard deviation of a factor (around 1) a band, of an offset a band, and of noise a pixel.
    """

    def __init__(self, *, crop: float = 1.0, gain: float = 0.0, bias: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.crop = crop
        self.gain = gain
        self.bias = bias
        self.noise = noise

    @torch.no_grad()
    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """View normalised ``image`` (B, C, H, W), H = W, with ``valid`` (B, H, W) bool; both keep their shape.

        A pixel of the view is valid where everything that was blended into it was; the others are 0.
        """
        batch, bands = image.shape[:2]
        grid = F.affine_grid(self._placements(batch, image.device), [batch, 1, *image.shape[2:]], align_corners=False)
        # the mask rides along as one more band, so it cannot part from the pixels
        stacked = torch.cat([image, valid.unsqueeze(1).to(image.dtype)], dim=1)
        stacked = F.grid_sample(stacked, grid, mode="bilinear", padding_mode="border", align_corners=False)
        image, valid = stacked[:, :bands], stacked[:, bands] > 0.999
        if self.gain:
            image = image * (1 + self.gain * torch.randn(batch, bands, 1, 1, device=image.device))
        if self.bias:
            image = image + self.bias * torch.randn(batch, bands, 1, 1, device=image.device)
        if self.noise:
            image = image + self.noise * torch.randn(image.shape, device=image.device)
        return image.masked_fill(~valid.unsqueeze(1), 0.0), valid

    def _placements(self, batch: int, device: torch.device) -> Tensor:
        """Affine maps (B, 2, 3) from a view's coordinates to the chip's, both in [-1, 1]."""
        side = torch.empty(batch, device=device).uniform_(self.crop, 1.0).sqrt_()
        signs = torch.randint(0, 2, (batch, 2), device=device) * 2.0 - 1.0
        swap = torch.randint(0, 2, (batch, 1, 1), device=device, dtype=torch.bool)
        turn = torch.diag_embed(signs)  # four flips; with rows swapped, the eight symmetries of the square
        turn = torch.where(swap, turn.flip(1), turn) * side.view(-1, 1, 1)
        shift = (torch.rand(batch, 2, device=device) * 2 - 1) * (1 - side).unsqueeze(1)
        return torch.cat([turn, shift.unsqueeze(2)], dim=2)
