"""Decoders: from an encoder's features to one logit for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.nets.encoder import Features, convolution


class DenseHead(nn.Module):
    """A light feature pyramid (https://arxiv.org/abs/1612.03144), from the coarsest map up to the finest.

    Parameters
    ----------
    dims:
        Channels of the maps, fine to coarse: the encoder's ``dims``.
    classes:
        Number of logits a pixel.
    width:
        Channels inside.
    """

    def __init__(self, dims: Sequence[int], classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in dims)
        self.refine = nn.ModuleList(nn.Sequential(*convolution(width, width)) for _ in dims)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Logits (B, classes, *size) over an image of that height and width."""
        x: Tensor | None = None
        for each, lateral, refine in reversed(list(zip(features.maps, self.laterals, self.refine, strict=True))):
            side = lateral(each)
            x = refine(side if x is None else side + _resize(x, side.shape[-2:]))
        return _resize(self.classify(x), size)


class ChangeHead(nn.Module):
    """Change between two dates: a :class:`DenseHead` over both dates' maps and their absolute difference.

    Both dates stay beside the difference, in order: forest → field is another change than field → forest.
    """

    def __init__(self, dims: Sequence[int], classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.head = DenseHead([3 * dim for dim in dims], classes, width=width)

    def forward(self, before: Features, after: Features, size: tuple[int, int]) -> Tensor:
        """Logits (B, classes, *size) from two images of that height and width."""
        maps = tuple(torch.cat([(a - b).abs(), b, a], dim=1) for b, a in zip(before.maps, after.maps, strict=True))
        return self.head(Features(maps, after.pooled - before.pooled), size)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear")
