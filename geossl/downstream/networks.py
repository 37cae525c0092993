"""The networks behind a task: all map normalised images of D dates and their validity to logits.

``network(image (B, D, C, H, W), valid (B, D, H, W)) -> (B, K, H, W)``, with 0 in invalid pixels of
the image, and H and W multiples of the encoder's coarsest stride.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.downstream import neighbourhood
from geossl.features import hypercolumns
from geossl.nets.decoders import ChangeHead, dense_head
from geossl.nets.encoder import Encoder, Features
from geossl.nets.settings import HeadName

Maps = tuple[Tensor, ...]
"""An encoder's maps of D dates, fine to coarse; each (B, D, C, h, w)."""


class TrainedNetwork(nn.Module):
    """An encoder and a head that is trained on windows; apart, so that what a frozen encoder says can be kept."""

    encoder: Encoder

    def encode(self, image: Tensor) -> Maps:
        """(B, D, C, H, W) → the encoder's maps of every date."""
        dates = [self.encoder(image[:, date]).maps for date in range(image.shape[1])]
        return tuple(torch.stack(level, dim=1) for level in zip(*dates, strict=True))

    @abstractmethod
    def decide(self, maps: Maps, size: tuple[int, int]) -> Tensor:
        """Maps → logits (B, K, *size)."""

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        return self.decide(self.encode(image), (image.shape[-2], image.shape[-1]))


class LandcoverNetwork(TrainedNetwork):
    """An encoder and a dense head on the image of one date."""

    def __init__(self, encoder: Encoder, classes: int, head: HeadName = "fpn") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = dense_head(head, encoder.dims, classes)

    def decide(self, maps: Maps, size: tuple[int, int]) -> Tensor:
        return self.head(_features(maps, 0), size)


class ChangeNetwork(TrainedNetwork):
    """One encoder on both dates, and a head on the two sets of features."""

    def __init__(self, encoder: Encoder, classes: int, head: HeadName = "fpn") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ChangeHead(encoder.dims, classes, kind=head)

    def decide(self, maps: Maps, size: tuple[int, int]) -> Tensor:
        return self.head(_features(maps, 0), _features(maps, 1), size)


def _features(maps: Maps, date: int) -> Features:
    of_date = tuple(level[:, date] for level in maps)
    return Features(of_date, of_date[-1].mean(dim=(2, 3)))


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
        self.describe = statistics_of
        features = (sum(encoder.dims) if encoder else 0) + (neighbourhood.count(bands) if statistics else 0)
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))

    def set_head(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        """Take over a fitted head: (K, features) in the order hypercolumns, statistics, and (K,)."""
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        size = image.shape[-2:]
        logits = self.bias[:, None, None].expand(image.shape[0], -1, *size)
        start = 0
        for each in self.encoder(image[:, 0]).maps if self.encoder else ():
            part = F.conv2d(each, self.weight[:, start : start + each.shape[1], None, None])
            logits = logits + F.interpolate(part, size, mode="bilinear")
            start += each.shape[1]
        if self.statistics:
            described = self.describe(image[:, 0], valid[:, 0])
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
