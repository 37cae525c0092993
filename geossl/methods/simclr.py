"""SimCLR: two views of one place agree, all others differ (Chen et al. 2020, https://arxiv.org/abs/2002.05709).

The two views are of one image, or of two dates of the same place (``pairs: season``), so that the
encoder learns what stays while light, phenology and moisture change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead

from geossl.augment import Views
from geossl.methods.method import Losses, Method
from geossl.methods.settings import SimclrSettings
from geossl.nets.encoder import Encoder


class Simclr(Method):
    """Contrastive learning of the pooled features."""

    def __init__(self, settings: SimclrSettings, encoder: Encoder) -> None:
        super().__init__(encoder, wants_pairs=settings.pairs == "season")
        dim = encoder.dims[-1]
        self.views = Views(crop=settings.crop, gain=settings.gain, bias=settings.bias, noise=settings.noise)
        self.head = SimCLRProjectionHead(dim, dim, settings.projection)
        # the other ranks' chips are further examples of what differs
        self.contrast = NTXentLoss(settings.temperature, gather_distributed=True)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        image, valid = batch["image"], batch["valid"]
        dates = [(image[:, i], valid[:, i]) for i in (0, 1)] if self.wants_pairs else [(image, valid)] * 2
        views = torch.cat([self.views(*date)[0] for date in dates])  # (2 B, C, H, W)
        pooled = self.encoder(views).pooled
        first, second = self.head(pooled).float().chunk(2)
        # similarities divided by the temperature need more digits than bf16 has
        with torch.autocast(pooled.device.type, enabled=False):
            total = self.contrast(first, second)
        return Losses(total, pooled.chunk(2))
