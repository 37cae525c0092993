"""Normalising and augmenting chips, in batch and on the device they are on.

Stored numbers come in, normalised floats go out. Nothing here knows of red, green and blue:
views differ in geometry, and mildly in haze and in gain, bias and noise a band. Hue, grey-scale and
band dropping do not belong to reflectance, and dropped scores where they were tried.

All randomness is torch's global generator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.bands import Statistics
from geossl.errors import TrainingError

_BLUE = 0.45  # µm
_SCATTERING = 0.5, 4.0  # exponents of wavelength under a very hazy and a very clear sky


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

    def forward(self, image: Tensor, valid: Tensor | None, out: Tensor | None = None) -> Tensor:
        """Normalise ``image`` (B, [T,] C, H, W), of any stored dtype, by ``valid`` (B, [T,] H, W) bool; None: all are.

        The float32 result is written into ``out`` if there is one.
        """
        out = image.to(torch.float32, copy=True) if out is None else out.copy_(image)
        out.sub_(self.mean).div_(self.std)
        if valid is None:
            return out
        seen = valid.unsqueeze(-3)
        # a product is three times as fast on a CPU, but an invalid float pixel may be NaN
        return out.masked_fill_(~seen, 0.0) if image.is_floating_point() else out.mul_(seen)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the views of a batch lie in their chips.

    Points are (x, y) in [-1, 1], from the outer edge of the first pixel to that of the last, as
    :func:`torch.nn.functional.grid_sample` has them.
    """

    affine: Tensor
    """(B, 2, 3) float32, from a view's points to its chip's: a scale, flips and quarter turns, and a shift."""

    @property
    def scale(self) -> Tensor:
        """(B,) side of a view in sides of its chip: a view's ground sample distance is its chip's times this."""
        return self.affine[:, :, 0].norm(dim=1)

    def to_chip(self, points: Tensor) -> Tensor:
        """Where points (B, N, 2) of the views lie in the chips."""
        return _turn(self.affine[:, :, :2], points) + self.affine[:, None, :, 2]

    def to_view(self, points: Tensor) -> Tensor:
        """Where points (B, N, 2) of the chips lie in the views; outside of [-1, 1] they are not seen there."""
        # the inverse of a turn is its transpose
        points = _turn(self.affine[:, :, :2].mT, points - self.affine[:, None, :, 2])
        return points / self.scale.square().view(-1, 1, 1)

    def grid(self, height: int, width: int) -> Tensor:
        """(B, height, width, 2): where in its chip each pixel of a view lies."""
        # autocast would round positions to bf16, a quarter of a pixel
        with torch.autocast(self.affine.device.type, enabled=False):
            return F.affine_grid(self.affine, [len(self.affine), 1, height, width], align_corners=False)


class Views(nn.Module):
    """A random view of each chip: geometry for pixels and mask alike, then mild changes a band.

    Geometry is one of the eight flips and quarter turns, with a random square crop that is brought
    back to the chip's size: one resampling for the whole batch, on its device.

    Parameters
    ----------
    crop, largest:
        Smallest and largest share of the chip's area that the crop keeps; 1 keeps all of it.
    gain, bias, noise:
        Standard deviation of a factor (around 1) a band, of an offset a band, and of noise a pixel.
    haze:
        Spread of a veil over the whole view, in standard deviations of a band at 0.45 µm. It fades as
        wavelength to the power of −0.5 (a very hazy sky) to −4 (a very clear one), the range of relative
        scattering in Chavez 1988 (https://doi.org/10.1016/0034-4257(88)90019-3), drawn view by view; a
        band without a wavelength has none.
    """

    def __init__(
        self,
        *,
        crop: float = 1.0,
        largest: float = 1.0,
        gain: float = 0.0,
        bias: float = 0.0,
        noise: float = 0.0,
        haze: float = 0.0,
    ) -> None:
        super().__init__()
        self.crop = crop
        self.largest = largest
        self.gain = gain
        self.bias = bias
        self.noise = noise
        self.haze = haze

    def forward(self, image: Tensor, valid: Tensor, wavelengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """View normalised ``image`` (B, C, H, W), H = W, with ``valid`` (B, H, W) bool; both keep their shape.

        A pixel of the view is valid where everything that was blended into it was; the others are 0.
        ``wavelengths`` (C,) in µm are for haze, NaN where a band has none.
        """
        return self.at(self.place(len(image), image.device), image, valid, wavelengths)

    def place(self, batch: int, device: torch.device) -> Placement:
        """Random places for the views of ``batch`` chips."""
        side = torch.empty(batch, device=device).uniform_(self.crop, self.largest).sqrt_()
        signs = torch.randint(0, 2, (batch, 2), device=device) * 2.0 - 1.0
        swap = torch.randint(0, 2, (batch, 1, 1), device=device, dtype=torch.bool)
        turn = torch.diag_embed(signs)  # four flips; with rows swapped, the eight symmetries of the square
        turn = torch.where(swap, turn.flip(1), turn) * side.view(-1, 1, 1)
        shift = (torch.rand(batch, 2, device=device) * 2 - 1) * (1 - side).unsqueeze(1)
        return Placement(torch.cat([turn, shift.unsqueeze(2)], dim=2))

    @torch.no_grad()
    def at(
        self,
        placement: Placement,
        image: Tensor,
        valid: Tensor,
        wavelengths: Tensor | None = None,
        *,
        side: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The view that lies there, of so many pixels' ``side`` (None: the chip's); see :meth:`forward`."""
        grid = placement.grid(*image.shape[2:]) if side is None else placement.grid(side, side)
        # the mask alike, so that it cannot part from the pixels
        image, seen = (
            F.grid_sample(each, grid, mode="bilinear", padding_mode="border", align_corners=False)
            for each in (image, valid.unsqueeze(1).to(image.dtype))
        )
        return self.alter(image, seen[:, 0] > 0.999, wavelengths)

    @torch.no_grad()
    def alter(self, image: Tensor, valid: Tensor, wavelengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mild changes alone, (B, C, H, W) of any shape: every pixel stays where it is."""
        batch, bands = image.shape[:2]
        if self.haze:
            image = image + self._veil(batch, wavelengths).view(batch, -1, 1, 1)
        if self.gain:
            image = image * (1 + self.gain * torch.randn(batch, bands, 1, 1, device=image.device))
        if self.bias:
            image = image + self.bias * torch.randn(batch, bands, 1, 1, device=image.device)
        if self.noise:
            image = image + self.noise * torch.randn(image.shape, device=image.device)
        return image.masked_fill(~valid.unsqueeze(1), 0.0), valid

    def _veil(self, batch: int, wavelengths: Tensor | None) -> Tensor:
        """What haze adds to each band (B, C), never negative."""
        if wavelengths is None:
            raise TrainingError(
                "haze fades with wavelength, and these chips come without wavelengths",
                "give the batch `wavelengths` (C,) in µm, or set haze: 0",
            )
        depth = self.haze * torch.randn(batch, 1, device=wavelengths.device).abs()
        power = torch.empty(batch, 1, device=wavelengths.device).uniform_(*_SCATTERING)
        return depth * ((wavelengths / _BLUE) ** -power).nan_to_num(0.0)


def _turn(matrix: Tensor, points: Tensor) -> Tensor:
    """Matrices (B, 2, 2) times points (B, N, 2); no matmul, which autocast would round to bf16."""
    return (matrix.unsqueeze(1) * points.unsqueeze(2)).sum(dim=3)
