"""The networks behind a task: all map normalised images of D dates and their validity to logits.

``network(image (B, D, C, H, W), valid (B, D, H, W)) -> (B, K, H, W)``, with 0 in invalid pixels of
the image, and H and W multiples of the encoder's coarsest stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.bands import Sensor
from geossl.downstream import neighbourhood
from geossl.errors import LabelError
from geossl.features import hypercolumns
from geossl.nets.decoders import ChangeHead, dense_head
from geossl.nets.encoder import Encoder
from geossl.nets.settings import HeadName

STEEPNESS = 4.0
"""Logit of a pixel whose unlabelled score is twice the threshold."""


class LandcoverNetwork(nn.Module):
    """An encoder and a dense head on the image of one date."""

    def __init__(self, encoder: Encoder, classes: int, head: HeadName = "fpn") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = dense_head(head, encoder.dims, classes)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        return self.head(self.encoder(image[:, 0]), image.shape[-2:])


class ChangeNetwork(nn.Module):
    """One encoder on both dates, and a head on the two sets of features."""

    def __init__(self, encoder: Encoder, classes: int, head: HeadName = "fpn") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ChangeHead(encoder.dims, classes, kind=head)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        before, after = image.unbind(1)
        return self.head(self.encoder(before), self.encoder(after), image.shape[-2:])


class LinearNetwork(nn.Module):
    """A linear head on hypercolumns and multi-scale statistics of one date.

    Each feature map gets its share of the weights *before* it is brought to full size: a linear
    head and interpolation commute, and K channels are cheaper to enlarge than hundreds.

    Parameters
    ----------
    encoder:
        None: statistics alone.
    bands, statistics:
        Number of bands, and whether their multi-scale statistics are used.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: Encoder | None, classes: int, *, bands: int, statistics: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.statistics = statistics
        features = (sum(encoder.dims) if encoder else 0) + (neighbourhood.count(bands) if statistics else 0)
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))

    def set_head(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Take over a fitted head: (K, features) in the order hypercolumns, statistics, and (K,)."""
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        size = image.shape[-2:]
        logits = self.bias[:, None, None].expand(len(image), -1, *size)
        start = 0
        for each in self.encoder(image[:, 0]).maps if self.encoder else ():
            part = F.conv2d(each, self.weight[:, start : start + each.shape[1], None, None])
            logits = logits + F.interpolate(part, size, mode="bilinear")
            start += each.shape[1]
        if self.statistics:
            described = statistics_of(image[:, 0], valid[:, 0])
            logits = logits + F.conv2d(described, self.weight[:, start:, None, None])
        return logits


def described(encoder: Encoder | None, image: Tensor, valid: Tensor, *, statistics: bool) -> Tensor:
    """What closed-form heads look at: hypercolumns, then multi-scale statistics, of the first date (B, F, H, W)."""
    parts = [hypercolumns(encoder, image[:, 0])] if encoder else []
    if statistics:
        parts.append(statistics_of(image[:, 0], valid[:, 0]))
    return torch.cat(parts, dim=1)


def statistics_of(image: Tensor, valid: Tensor) -> Tensor:
    """Multi-scale statistics of normalised images: (B, C, H, W) and (B, H, W) → (B, features, H, W)."""
    pairs = zip(image.cpu().numpy(), valid.cpu().numpy(), strict=True)
    parts: Sequence[Tensor] = [torch.from_numpy(neighbourhood.multi_scale(*pair)) for pair in pairs]
    return torch.stack(list(parts)).to(image.device)


class UnlabelledNetwork(nn.Module):
    """(B, 2, C, H, W) normalised images → logits (B, 2, H, W) of no change and clearing."""

    def __init__(self, encoder: Encoder, sensor: Sensor) -> None:
        super().__init__()
        bands = len(sensor.bands)
        self.encoder = encoder
        self.vegetation = vegetation_bands(sensor)
        self.shift: Tensor
        self.spread: Tensor
        self.feature_spread: Tensor
        self.threshold: Tensor
        self.register_buffer("shift", torch.zeros(2, bands))
        self.register_buffer("spread", torch.ones(2, bands))
        self.register_buffer("feature_spread", torch.ones(sum(encoder.dims)))
        self.register_buffer("threshold", torch.ones(()))

    def relative(self, image: Tensor) -> Tensor:
        """Each date with zero mean and unit spread per band over the area."""
        return (image - self.shift[None, :, :, None, None]) / self.spread[None, :, :, None, None]

    def movement(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) relative images → (B, ΣD, H, W), after minus before."""
        before, after = (hypercolumns(self.encoder, image[:, date]) for date in (0, 1))
        return after - before

    def score(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) normalised images → (B, H, W), 0 where no vegetation was lost."""
        image = self.relative(image)
        moved = (self.movement(image) / self.feature_spread[None, :, None, None]).square().mean(dim=1).sqrt()
        infrared, shortwave = (image[:, :, band] for band in self.vegetation)
        drop = (infrared - shortwave)[:, 0] - (infrared - shortwave)[:, 1]
        rise = shortwave[:, 1] - shortwave[:, 0]
        return (moved * torch.minimum(drop, rise).clamp(min=0)).sqrt()

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        logit = STEEPNESS * (self.score(image) / self.threshold - 1)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def vegetation_bands(sensor: Sensor) -> tuple[int, int]:
    """Positions of near infrared and short-wave infrared.

    Raises
    ------
    LabelError
        The sensor lacks one of them.
    """
    names = [band.common_name for band in sensor.bands]
    infrared = next((names.index(name) for name in ("nir", "nir08") if name in names), None)
    shortwave = next((names.index(name) for name in ("swir16", "swir22") if name in names), None)
    if infrared is None or shortwave is None:
        raise LabelError(
            f"without labels, clearing is told by near and short-wave infrared, and {sensor.name} has"
            f" {', '.join(name or '?' for name in names)}",
            "give the bands their common names (nir, swir16), or label some clearings",
        )
    return infrared, shortwave
