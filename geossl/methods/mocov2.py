"""MoCo v2: a query finds its key among a queue of earlier keys (Chen et al. 2020, https://arxiv.org/abs/2003.04297).

The queue gives a small batch many negatives. Keys come from a momentum encoder, so that those of
earlier steps are still comparable. Unlike the paper's, the momentum rises along a cosine, and keys
are normalised by running statistics instead of shuffling (see :mod:`geossl.methods.momentum`). The
queue knows where its places are: none is a negative of itself. In a pool of several sensors it also
knows whose they are: another one's lie on another grid, and are told apart without a look at the ground.
Where the two views are of two sensors, each looks for the other: keys teach the encoder nothing, and one
of the sensors would always be the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, override

import torch
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor
from torch.nn import functional as F

from geossl.methods.contrast import cosines, gather, info_nce
from geossl.methods.method import Losses
from geossl.methods.momentum import Momentum
from geossl.methods.pairs import PairMethod, View, encode, overlap, position
from geossl.methods.settings import MocoV2Settings
from geossl.nets.encoder import Encoder


class MocoV2(PairMethod):
    """Contrastive learning of the pooled features against a queue."""

    queue: Tensor
    """(K, P) keys of length 1; random ones at first."""
    positions: Tensor
    """(K, 2) of the queue's places (:func:`geossl.methods.pairs.position`)."""
    kinds: Tensor
    """(K,) which sensor of a pool they were seen by; −1: all are alike."""
    oldest: Tensor
    """Row of the queue that is replaced next."""

    def __init__(self, settings: MocoV2Settings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.temperature = settings.temperature
        dim = encoder.dims[-1]
        self.head = MoCoProjectionHead(dim, dim, settings.projection)
        self.momentum = Momentum(encoder, self.head, start=settings.momentum)
        self.register_buffer("queue", F.normalize(torch.randn(settings.queue, settings.projection), dim=1))
        self.register_buffer("positions", torch.full((settings.queue, 2), torch.inf))
        self.register_buffer("kinds", torch.full((settings.queue,), -1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        # keys, positions and kinds of the step in progress, part by part
        self._fresh: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        return self.losses(*self.two_views(batch), batch)

    def losses(self, first: View, second: View, batch: Mapping[str, Any]) -> Losses:
        """The loss of two views of the places of ``batch``: queries from the first, keys from the second.

        Where they are of two sensors, the mean of both ways.
        """
        there = self._one_way(first, second, batch)
        if first.kind == second.kind:
            return there
        back = self._one_way(second, first, batch)
        return Losses((there.total + back.total) / 2, there.views)

    def _one_way(self, first: View, second: View, batch: Mapping[str, Any]) -> Losses:
        (pooled,) = encode(self.encoder, first)
        query = self.head(pooled)
        (slowly,), (key,) = self.momentum(second)
        where, counted = position(batch), first.shows & second.shows
        itself = F.cosine_similarity(query.float(), key.float()).unsqueeze(1) / self.temperature
        similarity = torch.cat([itself, cosines(query, self.queue, self.temperature)], dim=1)
        elsewhere = ~overlap(where, self.positions) & ((self.kinds == second.kind) | (self.kinds == -1))
        allowed = torch.cat([torch.ones_like(elsewhere[:, :1]), elsewhere], dim=1)
        total = info_nce(similarity, torch.zeros_like(counted, dtype=torch.int64), allowed, counted)
        shown = gather(second.shows)
        keys, where = gather(F.normalize(key.float(), dim=1))[shown], gather(where)[shown]
        self._fresh = [*self._fresh, (keys, where, self.kinds.new_full((len(keys),), second.kind))]
        return Losses(total, (pooled, slowly))

    @override
    def after_step(self, step: int, max_steps: int) -> None:
        """Move the momentum encoder, and let the newest keys replace the oldest."""
        self.momentum.follow(self.encoder, self.head, step, max_steps)
        if self._fresh:
            length = len(self.queue)
            keys, where, kinds = (torch.cat(fresh)[-length:] for fresh in zip(*self._fresh, strict=True))
            rows = (self.oldest + torch.arange(len(keys), device=keys.device)) % length
            self.queue[rows], self.positions[rows], self.kinds[rows] = keys, where, kinds
            self.oldest.copy_((self.oldest + len(keys)) % length)
            self._fresh = []
