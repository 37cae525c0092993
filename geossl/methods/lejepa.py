"""LeJEPA: views of one place agree, and what is said of all places is spread as a Gaussian (Balestriero & LeCun 2025).

https://arxiv.org/abs/2511.08544, with the two views that every method of pairs has as its global ones. No negatives, no
second encoder, no temperature: what keeps the encoder from saying the same of all places is a test of its
projections (SIGReg). They are seen along random directions, where the characteristic function of what was found
(Epps & Pulley 1983) is to be that of the normal distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightly.models.modules import LeJEPAProjectionHead
from lightly.utils import dist
from torch import Tensor, distributed

from geossl.methods.contrast import gather
from geossl.methods.method import Losses
from geossl.methods.pairs import PairMethod, View, encode
from geossl.methods.settings import LejepaSettings
from geossl.methods.valid import mean_over
from geossl.nets.encoder import Encoder

_DIRECTIONS = 1024  # a step, drawn anew for each
_KNOTS, _END = 17, 3.0  # where characteristic functions are compared, from 0 on


class Lejepa(PairMethod):
    """Agreement of the projected features, which are regularised towards a standard normal distribution."""

    def __init__(self, settings: LejepaSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.regularization = settings.regularization
        self.head = LeJEPAProjectionHead(encoder.dims[-1], settings.hidden, settings.projection)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        return self.losses(*self.two_views(batch), batch)

    def losses(self, first: View, second: View, _batch: Mapping[str, Any]) -> Losses:
        """The loss of two views of each place."""
        pooled = encode(self.encoder, first, second)
        projected = torch.stack(self.head(torch.cat(pooled)).float().chunk(2))
        counted = first.shows & second.shows
        with torch.autocast(projected.device.type, enabled=False):
            apart = mean_over((projected - projected.mean(dim=0)).square().mean(dim=(0, 2)), counted)
            total = (1 - self.regularization) * apart + self.regularization * sigreg(projected, counted)
        return Losses(total, pooled)


def sigreg(projected: Tensor, counted: Tensor) -> Tensor:
    """How far projections are from a standard normal distribution: the mean of Epps–Pulley statistics.

    Over all ranks; each view is tested alone, along directions that all ranks share. 0 where nothing counts.

    Parameters
    ----------
    projected:
        (V, B, D) float32, V views of B places.
    counted:
        (B,) bool: places that enter.
    """
    directions = torch.randn(projected.shape[-1], _DIRECTIONS, device=projected.device)
    points = torch.linspace(0, _END, _KNOTS, device=projected.device)
    if dist.world_size() > 1:
        distributed.broadcast(directions, src=0)
    angles = (projected @ (directions / directions.norm(dim=0))).unsqueeze(-1) * points
    weight = counted.to(angles.dtype)
    sums = torch.stack([torch.einsum("vbdk,b->vdk", wave, weight) for wave in (angles.cos(), angles.sin())])
    sums, count = (gather(own.unsqueeze(0)).sum(dim=0) for own in (sums, weight.sum()))
    cos, sin = sums / count.clamp(min=1)
    normal = torch.exp(-points.square() / 2)
    error = (cos - normal).square() + sin.square()
    # by the trapezoidal rule and by symmetry twice from 0 on, weighted as the normal distribution
    return count * 2 * torch.trapezoid(error * normal, points, dim=-1).mean()
