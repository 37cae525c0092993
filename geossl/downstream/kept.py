"""What a frozen encoder says of windows, computed once and kept, since every later look at them would give the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.augment import Normalize
from geossl.downstream.data import Chips
from geossl.downstream.networks import Maps, TrainedNetwork

MOST = 2**30
"""Bytes of maps that are kept at most; with more, an encoder is run again each time."""


class KeptMaps:
    """The maps of windows, each computed when it is first asked for.

    Parameters
    ----------
    network:
        Its encoder is frozen, and is used in evaluation mode.
    bf16:
        Compute, and keep, in that arithmetic.
    """

    def __init__(self, network: TrainedNetwork, normalize: Normalize, chips: Chips, *, bf16: bool) -> None:
        self.network, self.normalize, self.chips, self.bf16 = network, normalize, chips, bf16
        self._levels: list[Tensor] = []
        """(N, D, h, w, C) each: channels last is what convolutions in bf16 are quick on."""
        self._known = np.zeros(len(chips), bool)

    @classmethod
    def fits(cls, network: TrainedNetwork, chips: Chips, *, bf16: bool) -> bool:
        """Whether the maps of that many windows are few enough to be kept."""
        side, dates = chips.image.shape[-1], chips.image.shape[1]
        encoder = network.encoder
        numbers = sum(dim * (side // stride) ** 2 for dim, stride in zip(encoder.dims, encoder.strides, strict=True))
        return len(chips) * dates * numbers * (2 if bf16 else 4) <= MOST

    def plain(self, rows: NDArray[np.int64]) -> Maps:
        """The maps of windows as they are."""
        self._compute(np.unique(rows[~self._known[rows]]))
        return tuple(_channels_first(level[torch.from_numpy(rows)]) for level in self._levels)

    def turned(self, rows: NDArray[np.int64], turns: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Maps:
        """The maps of windows, each turned by so many quarters and then mirrored or not.

        A network is applied with north up; so the encoder sees the ground here, and what the head sees is turned.
        """
        self._compute(np.unique(rows[~self._known[rows]]))
        return tuple(_channels_first(_turned(level, rows, turns, mirrored)) for level in self._levels)

    def _compute(self, rows: NDArray[np.int64]) -> None:
        if not rows.size:
            return
        where = next(self.network.parameters()).device
        valid = torch.from_numpy(self.chips.valid[rows]).to(where)
        image = self.normalize(torch.from_numpy(self.chips.image[rows]).to(where), valid)
        with torch.no_grad(), torch.autocast(where.type, torch.bfloat16, enabled=self.bf16):
            maps = [each.movedim(2, -1) for each in self.network.encode(image)]
        if not self._levels:
            self._levels = [each.new_empty((len(self.chips), *each.shape[1:])) for each in maps]
        for level, each in zip(self._levels, maps, strict=True):
            level[torch.from_numpy(rows)] = each
        self._known[rows] = True


def _turned(level: Tensor, rows: NDArray[np.int64], turns: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
    """Some windows of (N, D, h, w, C), turned; every number is copied once, since that is what it costs."""
    _, dates, height, width, channels = level.shape
    upright = torch.arange(height * width).view(height, width)
    sides = [torch.rot90(upright, k).flip(dims) for dims in ((), (1,)) for k in range(4)]
    place = torch.stack(sides).flatten(1)[torch.from_numpy(turns % 4 + 4 * mirrored)]  # (B, h w)
    image = torch.from_numpy(rows)[:, None] * dates + torch.arange(dates)  # (B, D)
    at = image[:, :, None] * (height * width) + place[:, None]
    found = level.view(-1, channels).index_select(0, at.flatten().to(level.device))
    return found.view(len(rows), dates, *sides[0].shape, channels)


def _channels_first(maps: Tensor) -> Tensor:
    """(B, D, h, w, C) as (B, D, C, h, w), where it lies."""
    return maps.movedim(-1, 2)
