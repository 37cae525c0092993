"""DINO with the patch loss of iBOT: a student says of its views what a slow teacher says of others of the place.

Both sort what they see by prototypes. Images (DINO: Caron et al. 2021, https://arxiv.org/abs/2104.14294): the teacher
sees two views of a place, the student these and small local ones, and says of each view what the teacher says of the
others. Cells (iBOT: Zhou et al. 2022, https://arxiv.org/abs/2111.07832): a part of the student's two views is hidden,
and it says of the hidden cells what the teacher says, who sees them. Targets are spread evenly over the prototypes by
Sinkhorn-Knopp, as in DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193), over all ranks.

It works on every encoder, since what is hidden are pixels: they become 0, which is how ground that was not seen looks
anyway. To a transformer that is a mask token, as the embedding of zeros is a bias and a position. Cells are those of
the coarsest map, and hidden in blobs; where it has only a few, as a ResNet's on small chips, hardly any are hidden.

What differs from the papers:

* An image is the mean over its valid ground, which is what encoders are used by, and no class token.
* What enters a head is normalised by the batch, the teacher's too. Untrained encoders say nearly the same of all
  places; then Sinkhorn-Knopp finds nothing to spread, and the student learns the uniform answer, as it does where the
  teacher is normalised by running statistics. Cells are normalised position by position: a transformer's prototypes
  would stand for positions otherwise, which even hidden cells know (CAPI spreads its targets so, for this reason:
  Darcet et al. 2025, https://arxiv.org/abs/2502.08769).
* Images and cells have a head each, as in DINOv2, and few prototypes. The teacher's temperature is constant, and no
  layer is frozen at first.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, override

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Views
from geossl.methods.contrast import cosines, gather
from geossl.methods.method import Losses
from geossl.methods.momentum import Momentum
from geossl.methods.pairs import PairMethod, View, maps, pool, view_of
from geossl.methods.settings import DinoSettings
from geossl.methods.valid import MIN_VALID, mean_over
from geossl.nets.encoder import Encoder, require_divisible

_LOCAL = 0.1, 0.4  # share of the chip's area that a local view shows
_HIDDEN = 0.1  # smallest share of a view that is hidden, where any of it is
_EPS = 1e-5  # as batch norm's
_BLOB = 3  # cells that lie so near are mostly hidden together


class Dino(PairMethod):
    """Self-distillation of the pooled features and of hidden cells."""

    def __init__(self, settings: DinoSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.settings = settings
        self.stride = max(encoder.strides)
        changes = settings.model_dump(include={"gain", "bias", "noise", "haze"})
        self.local = Views(crop=_LOCAL[0], largest=_LOCAL[1], **changes)
        self.heads = Heads(encoder.dims[-1], settings)
        self.momentum = Momentum(encoder, self.heads, start=settings.momentum)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        first, second = self.two_views(batch)
        require_divisible(first.image, self.stride, self.encoder.settings.name)
        height, width = (side // self.stride for side in first.image.shape[-2:])
        noise = blobs(2 * len(first.image), height, width, first.image.device)
        share = torch.empty(len(noise), device=noise.device).uniform_(_HIDDEN, self.settings.mask_ratio)
        share = share * (torch.rand_like(share) < 0.5)  # half of the views are seen whole
        return self.losses(first, second, self.local_views(batch), noise, share)

    def local_views(self, batch: Mapping[str, Any]) -> list[View]:
        """Views of small parts, of half a chip's side as far as the encoder's stride divides that; the two images take turns."""
        images = self.images(batch)
        side = max(self.stride, batch["image"].shape[-1] // 2 // self.stride * self.stride)
        return [view_of(self.local, *images[i % 2], side=side) for i in range(self.settings.local_views)]

    def losses(self, first: View, second: View, local: Sequence[View], noise: Tensor, share: Tensor) -> Losses:
        """The loss of two views and any number of local ones, of B places each.

        ``noise`` (2B, h, w) says which cells of the coarsest map are hidden from the student: those of the lowest
        noise, in each view a ``share`` (2B,) of those that show ground, ``mask_ratio`` at most.
        """
        views, temperature = [first, second], self.settings.temperature
        usable = ground(torch.cat([view.valid for view in views]), self.stride)  # (2B, h, w)
        hidden = hide(usable, noise, share)
        usable, chosen = usable.flatten(1), foremost(hidden.flatten(1), self.settings.mask_ratio)
        covers = hidden.repeat_interleave(self.stride, dim=1).repeat_interleave(self.stride, dim=2)
        covered = [
            dataclasses.replace(view, image=view.image.masked_fill(cover.unsqueeze(1), 0.0))
            for view, cover in zip(views, covers.chunk(2), strict=True)
        ]
        shows = torch.stack([view.shows for view in (*views, *local)])  # (V, B)

        pooled, cells = look(self.encoder, covered)
        everything = [pooled] if not local else [pooled, look(self.encoder, local)[0]]
        of_images, of_cells = self.heads(torch.cat(everything), cells, shows.flatten(), usable, chosen)
        with torch.no_grad():
            counted = shows[:2].flatten(), usable
            aims = self.momentum.head(*look(self.momentum.encoder, views), *counted)
            aims_of_images, aims_of_cells = (
                sinkhorn(similarity / self.settings.teacher_temperature, which.flatten())
                for similarity, which in zip(aims, counted, strict=True)
            )
        total = between_views(
            aims_of_images.unflatten(0, (2, -1)), of_images.unflatten(0, shows.shape) / temperature, shows
        ) + within_views(
            pick(aims_of_cells.unflatten(0, usable.shape), chosen).flatten(0, 1),
            of_cells / temperature,
            hidden.flatten(1).gather(1, chosen),
            shows[:2].flatten(),
        )
        return Losses(total, pooled.chunk(2))

    @override
    def after_step(self, step: int, max_steps: int) -> None:
        """Move the teacher."""
        self.momentum.follow(self.encoder, self.heads, step, max_steps)


class Head(nn.Module):
    """What vectors are like: DINO's head, behind a batch norm of what really was seen on any rank.

    lightly's keeps its prototypes by a ``weight_norm`` that cannot be copied, which a teacher has to be; cosines
    are the same.
    """

    def __init__(self, dim: int, settings: DinoSettings) -> None:
        super().__init__()
        hidden, out = settings.hidden, settings.projection
        self.project = ProjectionHead(
            [(dim, hidden, None, nn.GELU()), (hidden, hidden, None, nn.GELU()), (hidden, out, None, None)]
        )
        for layer in self.project.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Linear(out, settings.prototypes, bias=False)

    def forward(self, x: Tensor, counted: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Cosines (N·M, K) to the prototypes of the ``chosen`` (N, M) of vectors (N, L, D), by default of all.

        ``counted`` (N, L) are those to normalise by.
        """
        x = standardise(x, counted)
        x = x if chosen is None else pick(x, chosen)
        return cosines(self.project(x.flatten(0, 1)), self.prototypes.weight, 1.0)


class Heads(nn.Module):
    """A head for images, and one for cells."""

    def __init__(self, dim: int, settings: DinoSettings) -> None:
        super().__init__()
        self.images = Head(dim, settings)
        self.cells = Head(dim, settings)

    def forward(
        self, pooled: Tensor, cells: Tensor, shows: Tensor, usable: Tensor, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the pooled features (V, D) of views are like, (V, K), and ``chosen`` (N, M) cells of (N, L, D), (N·M, K).

        Normalised by those that count: ``shows`` (V,) and ``usable`` (N, L).
        """
        return self.images(pooled.unsqueeze(1), shows.unsqueeze(1)), self.cells(cells, usable, chosen)


def standardise(x: Tensor, counted: Tensor) -> Tensor:
    """Vectors (N, L, D) in float32 with mean 0 at each of L positions, and variance 1 over them all.

    Means and variances are of the ``counted`` (N, L) vectors of all ranks. Views are turned and flipped by chance: what
    all of them have in common at a position says nothing of the ground.
    """
    x, weight = x.float(), counted.unsqueeze(2).float()

    def total(values: Tensor) -> Tensor:
        return gather(values.sum(dim=0, keepdim=True)).sum(dim=0)

    count = total(weight)  # (L, 1)
    x = x - total(x * weight) / count.clamp(min=1)
    variance = total(x.square() * weight).sum(dim=0) / count.sum().clamp(min=1)
    return x / (variance + _EPS).sqrt()


def look(encoder: Encoder, views: Sequence[View]) -> tuple[Tensor, Tensor]:
    """What an encoder says of V views of B places: pooled (V·B, D), and cells of its coarsest map (V·B, L, D)."""
    last = maps(encoder, *views)[-1]
    return pool(last, torch.cat([view.valid for view in views])), last.flatten(2).mT


def ground(valid: Tensor, stride: int) -> Tensor:
    """(N, h, w) bool: the cells of so many pixels' side that are mostly valid in (N, H, W) bool."""
    return F.avg_pool2d(valid.unsqueeze(1).float(), stride)[:, 0] >= MIN_VALID


def blobs(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Noise (count, height, width) that is similar for cells near each other."""
    coarse = torch.rand(count, 1, -(-height // _BLOB), -(-width // _BLOB), device=device)
    coarse = F.interpolate(coarse, (height, width), mode="bilinear")[:, 0]
    return coarse + 0.1 * torch.rand_like(coarse)


def hide(usable: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """(N, h, w) bool: of the ``usable`` cells (N, h, w) those of lowest ``noise``, a ``share`` (N,) of them."""
    count = (share * usable.sum(dim=(1, 2))).floor()  # one at least is left
    order = noise.masked_fill(~usable, torch.inf).flatten(1).argsort(dim=1).argsort(dim=1)
    return (order < count.unsqueeze(1)).view_as(usable)


def foremost(hidden: Tensor, ratio: float) -> Tensor:
    """(N, M) where the hidden cells of (N, L) are, in order, and then others; M is the ``ratio`` of L that is hidden at most.

    As many for each view, so that shapes do not depend on what is drawn.
    """
    return (~hidden).byte().argsort(dim=1, stable=True)[:, : math.ceil(ratio * hidden.shape[1])]


def pick(x: Tensor, chosen: Tensor) -> Tensor:
    """The vectors (N, M, D) of (N, L, D) at (N, M)."""
    return x.gather(1, chosen.unsqueeze(2).expand(-1, -1, x.shape[2]))


@torch.no_grad()
def sinkhorn(logits: Tensor, counted: Tensor, iterations: int = 3) -> Tensor:
    """Sort rows by prototypes so that each row is shared out wholly, and every prototype gets as much of them.

    Parameters
    ----------
    logits:
        (R, K) cosines to the prototypes divided by a temperature, which must not be so low that they overflow.
    counted:
        (R,) bool: the rows that prototypes share; the others are sorted as these are.

    Returns
    -------
    Tensor
        (R, K); rows sum to 1, columns to the same over the counted rows of all ranks, the more exactly the more
        ``iterations`` there are.
    """
    shares, counted = logits.exp(), counted.unsqueeze(1)
    for _ in range(iterations):
        of_prototype = gather((shares * counted).sum(dim=0, keepdim=True)).sum(dim=0)
        shares = shares / torch.where(of_prototype > 0, of_prototype, 1)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


def between_views(targets: Tensor, logits: Tensor, shows: Tensor) -> Tensor:
    """Cross-entropy of every view to the teacher's of each other one (algorithm 1 of DINO).

    Parameters
    ----------
    targets:
        (T, B, K): what the teacher says of the first T views.
    logits:
        (V, B, K): what the student says of all views, divided by its temperature.
    shows:
        (V, B) bool: the views that show something of their place; the others do not count on either side.
    """
    pairs = [(t, v) for t in range(len(targets)) for v in range(len(logits)) if t != v]
    each = torch.stack([F.cross_entropy(logits[v], targets[t], reduction="none") for t, v in pairs])
    return mean_over(each, torch.stack([shows[t] & shows[v] for t, v in pairs]))


def within_views(targets: Tensor, logits: Tensor, hidden: Tensor, shows: Tensor) -> Tensor:
    """Cross-entropy of each view's hidden cells to what the teacher says of them (equation 2 of iBOT).

    Parameters
    ----------
    targets, logits:
        (N · M, K) of M cells of each of N views, all hidden ones among them; logits are divided by the temperature.
    hidden:
        (N, M) bool: each view's are averaged; a view without any adds 0.
    shows:
        (N,) bool: the views that are averaged.
    """
    each = F.cross_entropy(logits, targets, reduction="none").view_as(hidden)
    of_view = (each * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)
    return mean_over(of_view, shows)
