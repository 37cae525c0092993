"""A momentum encoder: a second network that follows the first one slowly and learns nothing itself.

Its batch norm uses running statistics that follow likewise (EMAN, Cai et al. 2021,
https://arxiv.org/abs/2101.08482), never those of the batch. That does what MoCo shuffles examples
across devices for: a key cannot tell by its normalisation which batch it is from. It works on one
device too, where shuffling changes nothing.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Self, override

import torch
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from geossl.methods.pairs import View, encode
from geossl.nets.encoder import Encoder


class Momentum(nn.Module):
    """Copies of an encoder and its head.

    Parameters
    ----------
    start:
        Momentum at the start of a training; it rises to 1 along half a cosine.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, start: float) -> None:
        super().__init__()
        self.start = start
        self.encoder = deepcopy(encoder)
        self.head = deepcopy(head)
        self.requires_grad_(False)
        self.train(False)

    @override
    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def forward(self, *views: View) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Pooled features (B, D) and keys (B, P) of each view."""
        pooled = encode(self.encoder, *views)
        return pooled, self.head(torch.cat(pooled)).chunk(len(views))

    @torch.no_grad()
    def follow(self, encoder: Encoder, head: nn.Module, step: int, max_steps: int) -> None:
        """Take a step towards what they are after the optimiser's step number ``step`` (from 1)."""
        momentum = cosine_schedule(step, max_steps, self.start, 1.0)
        # statistics begin as no data's at all: for the first steps they are a mean of those so far
        of_statistics = min(momentum, step / (step + 9))
        for slow, fast in ((self.encoder, encoder), (self.head, head)):
            approach(slow, fast, momentum, of_statistics)


@torch.no_grad()
def approach(slow: nn.Module, fast: nn.Module, of_weights: float, of_statistics: float) -> None:
    """Let a copy of a network take a step towards it, keeping these shares of its own weights and statistics."""
    for weight, new in zip(slow.parameters(), fast.parameters(), strict=True):
        weight.lerp_(new, 1 - of_weights)
    for statistic, now in zip(slow.buffers(), fast.buffers(), strict=True):
        if statistic.is_floating_point():
            statistic.lerp_(now, 1 - of_statistics)
        else:  # a count of batches
            statistic.copy_(now)
