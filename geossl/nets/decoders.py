"""Decoders: from an encoder's features to one logit for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.nets.encoder import Features, convolution
from geossl.nets.settings import HeadName


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


class LinearHead(nn.Module):
    """One weight for every feature and class on all maps, each brought to mean 0 and deviation 1 first.

    A linear layer and interpolation commute, so this is linear on hypercolumns at the cost of ``classes``
    channels. The norm without weights is that of MAE's linear probe (https://arxiv.org/abs/2111.06377, A.1).
    """

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        weights = [nn.Conv2d(dim, classes, 1, bias=False) for dim in dims]
        for each in weights:
            nn.init.normal_(each.weight, std=0.01)
        self.weights = nn.ModuleList(weights)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Logits (B, classes, *size) over an image of that height and width."""
        parts = zip(features.maps, self.norms, self.weights, strict=True)
        logits = [_resize(weight(norm(each)), size) for each, norm, weight in parts]
        return torch.stack(logits).sum(dim=0) + self.bias[:, None, None]


def dense_head(kind: HeadName, dims: Sequence[int], classes: int, *, width: int = 64) -> DenseHead | LinearHead:
    """A head by its name."""
    return LinearHead(dims, classes) if kind == "linear" else DenseHead(dims, classes, width=width)


class ChangeHead(nn.Module):
    """Change between two dates: a dense head over both dates' maps and their absolute difference.

    Both dates stay beside the difference, in order: forest → field is another change than field → forest.
    """

    def __init__(self, dims: Sequence[int], classes: int, *, width: int = 64, kind: HeadName = "fpn") -> None:
        super().__init__()
        self.head = dense_head(kind, [3 * dim for dim in dims], classes, width=width)

    def forward(self, before: Features, after: Features, size: tuple[int, int]) -> Tensor:
        """Logits (B, classes, *size) from two images of that height and width."""
        maps = tuple(torch.cat([(a - b).abs(), b, a], dim=1) for b, a in zip(before.maps, after.maps, strict=True))
        return self.head(Features(maps, after.pooled - before.pooled), size)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear")
