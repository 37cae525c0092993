"""Dense contrast: a point of the ground agrees with itself in another view, all others differ.

Positives are matched pixels of two overlapping crops, as in VADeR (Pinheiro et al. 2020,
https://arxiv.org/abs/2011.05499) and PixPro's pixel contrast (Xie et al. 2021,
https://arxiv.org/abs/2011.10043). What is compared is the hypercolumn, every map of the encoder at
the point, since maps are made from hypercolumns later. Negatives are the other sampled points of the
batch: there are thousands, so neither a queue nor a momentum encoder is needed for small batches.
Points that lie near each other on the ground are no negatives, in whichever chips and at whichever
dates they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor
from torch.nn import functional as F

from geossl.methods.contrast import gather, nt_xent, places
from geossl.methods.method import Losses
from geossl.methods.pairs import PairMethod, View, maps, pool, position
from geossl.methods.settings import DenseSettings
from geossl.nets.encoder import Encoder


class Dense(PairMethod):
    """Contrastive learning of hypercolumns at matched points."""

    def __init__(self, settings: DenseSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.settings = settings
        self.head = SimCLRProjectionHead(sum(encoder.dims), encoder.dims[-1], settings.projection)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        first, second = self.two_views(batch)
        return self.losses(first, second, batch, torch.rand(first.valid.shape, device=first.valid.device))

    def losses(self, first: View, second: View, batch: Mapping[str, Any], noise: Tensor) -> Losses:
        """The loss of two views where ``noise`` (B, H, W) in [0, 1) decides which pixels of the first are compared."""
        here, there, seen = match(first, second, noise, self.settings.points)
        found = maps(self.encoder, first, second)
        projected = self.head(columns(found, torch.cat([here, there])).flatten(0, 1))
        total = nt_xent(
            *projected.chunk(2),
            temperature=self.settings.temperature,
            counted=seen.flatten(),
            same=near(ground(batch, first.placement.to_chip(here)), self.settings.apart),
        )
        pooled = pool(found[-1], torch.cat([first.valid, second.valid])).chunk(2)
        return Losses(total, pooled)


def match(first: View, second: View, noise: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points that both views see, ``count`` of each place: pixel centres of the first view of lowest ``noise``.

    Returns
    -------
    here, there:
        (B, count, 2) points of the first and of the second view that are the same ground.
    seen:
        (B, count) bool: False where the views share fewer valid pixels than were asked for.
    """
    batch, height, width = first.valid.shape
    rows, columns = ((torch.arange(n, device=noise.device) + 0.5) * 2 / n - 1 for n in (height, width))
    here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2).view(1, -1, 2).expand(batch, -1, -1)
    there = second.placement.to_view(first.placement.to_chip(here))
    at = F.grid_sample(second.valid.unsqueeze(1).float(), there.unsqueeze(1), mode="nearest", align_corners=False)
    seen = first.valid.flatten(1) & (there.abs() < 1).all(dim=2) & (at[:, 0, 0] > 0.5)
    chosen = (noise.flatten(1) + ~seen).topk(min(count, height * width), largest=False).indices
    here, there = (x.take_along_dim(chosen.unsqueeze(2), dim=1) for x in (here, there))
    return here, there, seen.take_along_dim(chosen, dim=1)


def columns(maps: tuple[Tensor, ...], points: Tensor) -> Tensor:
    """Every map (B, D, h, w) at points (B, P, 2), in the order of the maps: (B, P, sum of D).

    Between pixels as bilinear :func:`torch.nn.functional.grid_sample` has it, and at the border as its
    ``padding_mode="border"``. Its gradients, though, are added up on a GPU in any order; these, of rows that are
    weighted and added (:func:`torch.nn.functional.embedding_bag`), in the same one each time.
    """
    return torch.cat([_at(each, points) for each in maps], dim=2)


def _at(image: Tensor, points: Tensor) -> Tensor:
    batch, bands, height, width = image.shape
    (columns, of_columns), (rows, of_rows) = _beside(points[..., 0], width), _beside(points[..., 1], height)
    before = torch.arange(batch, device=image.device).view(-1, 1, 1, 1) * height
    corners = (before + rows.unsqueeze(3)) * width + columns.unsqueeze(2)  # (B, P, 2, 2)
    weights = of_rows.unsqueeze(3) * of_columns.unsqueeze(2)
    pixels = image.float().permute(0, 2, 3, 1).reshape(-1, bands)  # no copy of what lies channels last
    found = F.embedding_bag(corners.view(-1, 4), pixels, mode="sum", per_sample_weights=weights.view(-1, 4))
    return found.view(batch, -1, bands)


def _beside(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two of ``size`` pixels that each place (B, P) in [-1, 1] lies between, and its share of them: (B, P, 2)."""
    at = (((at + 1) * size - 1) / 2).clamp(0, size - 1)
    first = at.long()
    share = at - first
    return torch.stack([first, (first + 1).clamp(max=size - 1)], dim=2), torch.stack([1 - share, share], dim=2)


def ground(batch: Mapping[str, Any], on_chip: Tensor) -> Tensor:
    """(B · P, 2) where points (B, P, 2) of the chips are on the ground, in pixels east and south."""
    centre = position(batch)
    # chips of unknown position are laid out far from each other; the first chip is where counting begins
    itself, _ = places(len(centre), centre.device)
    centre = torch.where(centre.isfinite(), centre, 4.0 * itself.unsqueeze(1))
    centre = centre - gather(centre)[0]
    return ((centre.unsqueeze(1) + on_chip / 2) * batch["valid"].shape[-1]).flatten(0, 1)


def near(ours: Tensor, apart: float) -> Tensor:
    """(R, N) bool: which points of all ranks lie nearer to our points (R, 2) than ``apart``; each to itself."""
    itself, total = places(len(ours), ours.device)
    distance = torch.cdist(ours, gather(ours), compute_mode="donot_use_mm_for_euclid_dist")
    return (distance < apart) | (itself.unsqueeze(1) == torch.arange(total, device=ours.device))
