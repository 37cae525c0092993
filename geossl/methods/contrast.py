"""Contrast: of all that a vector is compared with, its partner must be the most similar.

The loss that several methods share, over the vectors of all ranks, where some rows do not count and
some columns are no negatives. N ranks with B places each give the gradients of one rank with N·B.
"""

from __future__ import annotations

import torch
from lightly.utils import dist
from torch import Tensor
from torch.nn import functional as F

from geossl.methods.valid import mean_over


def gather(rows: Tensor) -> Tensor:
    """The rows of all ranks, (N, …); gradients flow back to the rank that they are from."""
    return torch.cat(dist.gather(rows.contiguous())) if dist.world_size() > 1 else rows


def places(count: int, device: torch.device) -> tuple[Tensor, int]:
    """Where our ``count`` rows are among the gathered ones, (B,), and how many these are."""
    return torch.arange(count, device=device) + dist.rank() * count, count * dist.world_size()


def info_nce(similarity: Tensor, partner: Tensor, allowed: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of finding each row's partner.

    Parameters
    ----------
    similarity:
        (R, N), divided by the temperature, in float32.
    partner:
        (R,) column of the partner.
    allowed:
        (R, N) or (1, N) bool: what a row is compared with; its partner always is.
    counted:
        (R,) bool: the rows that are averaged.
    """
    allowed = allowed.expand_as(similarity).scatter(1, partner.unsqueeze(1), True)
    each = F.cross_entropy(similarity.masked_fill(~allowed, -torch.inf), partner, reduction="none")
    return mean_over(each, counted)


def cosines(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Cosine similarities (R, N) of vectors of any length, divided by the temperature."""
    # they need more digits than bf16 has
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows.float(), dim=1) @ F.normalize(columns.float(), dim=1).T / temperature


def nt_xent(first: Tensor, second: Tensor, *, temperature: float, counted: Tensor, same: Tensor) -> Tensor:
    """Every view finds its partner among all views of all ranks (equation 1 of https://arxiv.org/abs/2002.05709).

    Parameters
    ----------
    first, second:
        (B, D) views of B places, of any length.
    counted:
        (B,) bool: places of which both views show something; the others are nobody's negatives either.
    same:
        (B, N) bool: places of all ranks that are no negatives of ours: at least the place itself.
    """
    others = torch.cat([gather(first), gather(second)])
    similarity = cosines(torch.cat([first, second]), others, temperature)
    itself, total = places(len(first), first.device)
    allowed = (gather(counted) & ~same).repeat(2, 2)
    return info_nce(similarity, torch.cat([itself + total, itself]), allowed, counted.repeat(2))
