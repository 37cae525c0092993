"""SimCLR: two views of one place agree, all others differ (Chen et al. 2020, https://arxiv.org/abs/2002.05709).

The two views are of one image, or of two dates of the same place (``pairs: season``), so that the
encoder learns what stays while light, phenology and moisture change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightly.models.modules import SimCLRProjectionHead

from geossl.methods.contrast import nt_xent
from geossl.methods.method import Losses
from geossl.methods.pairs import PairMethod, View, encode, same_place
from geossl.methods.settings import SimclrSettings
from geossl.nets.encoder import Encoder


class Simclr(PairMethod):
    """Contrastive learning of the pooled features."""

    def __init__(self, settings: SimclrSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.temperature = settings.temperature
        dim = encoder.dims[-1]
        self.head = SimCLRProjectionHead(dim, dim, settings.projection)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        return self.losses(*self.two_views(batch), batch)

    def losses(self, first: View, second: View, batch: Mapping[str, Any]) -> Losses:
        """The loss of two views of the places of ``batch``."""
        pooled = encode(self.encoder, first, second)
        projected = self.head(torch.cat(pooled)).chunk(2)
        total = nt_xent(
            *projected, temperature=self.temperature, counted=first.shows & second.shows, same=same_place(batch)
        )
        return Losses(total, pooled)
