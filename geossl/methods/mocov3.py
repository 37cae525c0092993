"""MoCo v3: a predictor finds the keys of a momentum encoder in the batch (Chen et al. 2021, https://arxiv.org/abs/2104.02057).

Algorithm 1 of the paper. Two things differ: the keys are normalised by running statistics (see
:mod:`geossl.methods.momentum`), and the patch projection of a transformer is not frozen, which is
the paper's remedy for batches of thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, override

import torch
from lightly.models.modules import MoCoProjectionHead

from geossl.methods.contrast import cosines, gather, info_nce, places
from geossl.methods.method import Losses
from geossl.methods.momentum import Momentum
from geossl.methods.pairs import PairMethod, View, encode, same_place
from geossl.methods.settings import MocoV3Settings
from geossl.nets.encoder import Encoder


class MocoV3(PairMethod):
    """Contrastive learning of the pooled features with a predictor and without a queue."""

    def __init__(self, settings: MocoV3Settings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.temperature = settings.temperature
        hidden, out = settings.hidden, settings.projection
        self.head = MoCoProjectionHead(encoder.dims[-1], hidden, out, num_layers=3, batch_norm=True)
        self.predictor = MoCoProjectionHead(out, hidden, out, num_layers=2, batch_norm=True)
        self.momentum = Momentum(encoder, self.head, start=settings.momentum)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        return self.losses(*self.two_views(batch), batch)

    def losses(self, first: View, second: View, batch: Mapping[str, Any]) -> Losses:
        """The symmetric loss of two views of the places of ``batch``."""
        pooled = encode(self.encoder, first, second)
        queries = self.predictor(self.head(torch.cat(pooled))).chunk(2)
        _, keys = self.momentum(first, second)
        counted = first.shows & second.shows
        itself, _ = places(len(counted), counted.device)
        allowed = gather(counted) & ~same_place(batch)
        losses = [
            info_nce(cosines(query, gather(key), self.temperature), itself, allowed, counted)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        return Losses(2 * self.temperature * (losses[0] + losses[1]), pooled)

    @override
    def after_step(self, step: int, max_steps: int) -> None:
        """Move the momentum encoder."""
        self.momentum.follow(self.encoder, self.head, step, max_steps)
