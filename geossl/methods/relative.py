"""Relative patch position: where does one patch lie, seen from another? (Doersch et al. 2015, https://arxiv.org/abs/1505.05192).

Two patches of one chip go through the same encoder, and a small head says in which of the eight
directions the second lies. Who can tell that has understood what fields, roads and rivers do next.

What would give it away without understanding is taken away, as in the paper: a gap, and jitter in
it, so that no line runs on from patch to patch; and here mild gain, offset and noise, drawn for each
patch and band, so that no brightness does. Both patches show only pixels that are valid in both, so
that the edge of a scene or cloud does not say on which side it lies. The paper's chromatic
aberration is a fault of camera lenses; imagery that was resampled to a map's grid has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Views
from geossl.errors import SettingsError
from geossl.methods.method import Losses, Method
from geossl.methods.settings import RelativeSettings
from geossl.methods.valid import mean_over, seen
from geossl.methods.windows import cut, random_below
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder

DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(down, right), from the upper left to the lower right: the answers 0 to 7."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Pairs of patches, and what is to be found out."""

    first: Tensor
    """(B, C, p, p)."""
    second: Tensor
    """(B, C, p, p)."""
    answer: Tensor
    """(B,): the second lies in ``DIRECTIONS[answer]`` of the first."""
    counted: Tensor
    """(B,) bool: enough of both can be seen."""


class Relative(Method):
    """Classification of the direction from one patch to another."""

    directions: Tensor

    def __init__(self, settings: RelativeSettings, encoder: Encoder) -> None:
        super().__init__(encoder)
        stride = max(encoder.strides)
        if settings.patch % stride:
            raise SettingsError(
                f"method relative: a patch of {settings.patch} px does not fit the encoder {encoder.settings.name}",
                f"choose a patch that is a multiple of {stride} px",
            )
        dim = encoder.dims[-1]
        self.patch = settings.patch
        self.gap = round(settings.gap * settings.patch)
        self.jitter = round(settings.jitter * settings.patch)
        self.views = Views(gain=settings.gain, bias=settings.bias, noise=settings.noise)
        self.head = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, len(DIRECTIONS)))
        self.register_buffer("directions", torch.tensor(DIRECTIONS), persistent=False)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        puzzle = self.pose(batch["image"], batch["valid"])
        logits, views = self.solve(puzzle, batch.get("spectrum"))
        loss = F.cross_entropy(logits.float(), puzzle.answer, reduction="none")
        return Losses(mean_over(loss, puzzle.counted), views)

    @override
    def view(self, batch: Mapping[str, Any]) -> Tensor:
        return self.views.alter(batch["image"], batch["valid"])[0]

    def pose(self, image: Tensor, valid: Tensor) -> Puzzle:
        """A pair of patches of each chip, (B, C, H, W) with (B, H, W) bool, at random places."""
        size = torch.tensor(image.shape[-2:], device=image.device)
        reach = 2 * self.patch + self.gap + self.jitter
        if min(image.shape[-2:]) < reach:
            raise SettingsError(
                f"method relative: two patches of {self.patch} px and their gap need {reach} px; "
                f"the chips have {image.shape[-2]}×{image.shape[-1]}",
                "choose larger chips, or a smaller patch or gap",
            )
        answer = torch.randint(0, len(DIRECTIONS), (len(image),), device=image.device)
        # jitter on both axes, as far again to either side
        shake = random_below(torch.full((len(image), 2), 2 * self.jitter, device=image.device)) - self.jitter
        step = self.directions[answer] * (self.patch + self.gap) + shake
        # the first lies anywhere where the second is inside as well
        lowest = (-step).clamp(min=0)
        first = lowest + random_below(size - self.patch - step.abs())
        pixels = [cut(image, corner, self.patch) for corner in (first, first + step)]
        masks = [cut(valid, corner, self.patch) for corner in (first, first + step)]
        both = masks[0] & masks[1]
        a, b = (self.views.alter(patch, both)[0] for patch in pixels)
        return Puzzle(a, b, answer, seen(both))

    def solve(self, puzzle: Puzzle, spectrum: Spectrum | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A logit for each direction (B, 8), and the pooled features of both patches."""
        pooled = self.encoder(torch.cat([puzzle.first, puzzle.second]), spectrum).pooled.chunk(2)
        return self.head(torch.cat(pooled, dim=1)), pooled
