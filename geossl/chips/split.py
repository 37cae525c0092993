"""Training, validation and test ground: blocks with a buffer, drawn from a seed.

Neighbouring pixels look alike, so a random split of pixels scores memory, not skill. Here the
ground is cut into square blocks of the grid's global pixel lattice and every block belongs to one
subset. A pixel nearer than the buffer to a block of another subset belongs to none.

Membership depends on settings and place alone, not on which tiles exist or who asks; so it holds
when the cube grows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geossl.grid import Tile

UNUSED, TRAIN, VAL, TEST, GATE = 0, 1, 2, 3, 4
"""Subset codes; ``UNUSED`` is the buffer, on ``GATE`` challengers are compared with the champion."""

GROUP = (4, 5)
"""Rows, columns of blocks among which the subsets are dealt out in the wanted proportion."""


class SplitSettings(BaseModel):
    """How the ground is divided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: int = Field(
        default=128, gt=0, description="Side of a block in pixels; at least the labels' autocorrelation range."
    )
    buffer: int = Field(
        default=16,
        ge=0,
        description="Pixels this near to a block of another subset are not used; at least the receptive field.",
    )
    fractions: tuple[float, float, float] = Field(
        default=(0.6, 0.15, 0.25), description="Share of the blocks for training, validation and test."
    )
    gate: float = Field(
        default=0.0,
        ge=0,
        description="Share of the blocks, out of the test blocks', on which a retrained model is compared with the one "
        "that makes the maps. They decide, so they are never reported; a project with `retrain` needs them.",
    )
    seed: int = Field(default=0, ge=0, description="Another seed draws another split.")

    @model_validator(mode="after")
    def _possible(self) -> SplitSettings:
        if 2 * self.buffer >= self.block:
            raise ValueError(f"a buffer of {self.buffer} px leaves nothing of a block of {self.block} px")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"the fractions {self.fractions} must not be negative and must add up to 1")
        if self.gate and self.gate >= self.fractions[2]:
            raise ValueError(
                f"the gate takes {self.gate:g} of the blocks out of the test blocks' {self.fractions[2]:g}: nothing is "
                "left to report"
            )
        return self


class Split:
    """Which subset a place belongs to.

    Parameters
    ----------
    settings:
        Block size, buffer, fractions and seed.
    """

    def __init__(self, settings: SplitSettings) -> None:
        self.settings = settings

    def block_subset(self, row: ArrayLike, col: ArrayLike) -> NDArray[np.uint8]:
        """Subset (1 … 4) of blocks by their global block row and column; broadcasts.

        Each group of 4 × 5 blocks is ranked at random and dealt out in the wanted proportion, so
        that even a small region gets about its share of each subset.
        """
        row, col = (np.atleast_1d(axis) for axis in np.broadcast_arrays(row, col))
        rows, cols = GROUP
        group_row, group_col = row // rows, col // cols
        inside = np.arange(rows * cols)
        keys = _hash(
            self.settings.seed,
            (group_row * rows)[..., None] + inside // cols,
            (group_col * cols)[..., None] + inside % cols,
        )
        own = np.take_along_axis(keys, ((row % rows) * cols + col % cols)[..., None], -1)
        rank = (keys < own).sum(-1)
        # a group's own random shift makes fractions exact on average where 20 blocks cannot
        shift = _hash(self.settings.seed, group_row, group_col, salt=1) / 2.0**64
        train, val, _ = self.settings.fractions
        # 1e-9: 0.6 + 0.15 must not fall short of 15 of 20 blocks
        limits = np.array([train, train + val, 1 - self.settings.gate]) + 1e-9
        return (TRAIN + np.searchsorted(limits, (rank + shift) / (rows * cols), side="right")).astype(np.uint8)

    def subset_mask(self, tile: Tile) -> NDArray[np.uint8]:
        """(H, W) subset code of every pixel of a tile: 0 buffer, 1 train, 2 validation, 3 test, 4 gate."""
        block, buffer = self.settings.block, self.settings.buffer
        (r, near_r), (c, near_c) = (
            _blocks(start, length, block, buffer) for start, length in zip(tile.pixel_origin, tile.shape, strict=True)
        )
        # the block lattice around the tile, one ring more than it touches
        first_r, first_c = int(r[0]) - 1, int(c[0]) - 1
        lattice = self.block_subset(
            np.arange(first_r, int(r[-1]) + 2)[:, None], np.arange(first_c, int(c[-1]) + 2)[None, :]
        )
        r, near_r, c, near_c = r - first_r, near_r - first_r, c - first_c, near_c - first_c
        own: NDArray[np.uint8] = lattice[np.ix_(r, c)]
        alone = np.ones(own.shape, bool)
        for rows, cols in ((near_r, c), (r, near_c), (near_r, near_c)):
            alone &= lattice[np.ix_(rows, cols)] == own
        return np.where(alone, own, np.uint8(UNUSED))

    def block_id(self, tile: Tile) -> NDArray[np.int32]:
        """(H, W) id ≥ 0 of every pixel's block, the same from every tile that the block touches."""
        r, c = (
            np.arange(start, start + length) // self.settings.block
            for start, length in zip(tile.pixel_origin, tile.shape, strict=True)
        )
        # unique as long as the grid spans fewer than 65,536 × 32,768 blocks
        return ((r % 65536)[:, None] * 32768 + (c % 32768)[None, :]).astype(np.int32)

    def window_subsets(
        self, tile: Tile, row: ArrayLike, col: ArrayLike, size: int, subsets: tuple[int, ...]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which windows lie wholly, and which at least partly, in blocks of the subsets.

        Parameters
        ----------
        row, col:
            (N,) pixel offsets of the windows in the tile.
        size:
            Side of the windows in pixels.

        Returns
        -------
        wholly, partly:
            (N,) each. The buffer lies on both sides of every border, so a window wholly in training
            blocks stays farther than the buffer from every pixel that :meth:`subset_mask` calls test.
        """
        block = self.settings.block
        top, left = (np.asarray(o) + start for o, start in zip((row, col), tile.pixel_origin, strict=True))
        bounds = [(start // block, (start + size - 1) // block + 1) for start in (top, left)]
        (r0, r1), (c0, c1) = bounds
        if r0.size == 0:
            return np.zeros(0, bool), np.zeros(0, bool)
        first_r, first_c = int(r0.min()), int(c0.min())
        wanted = np.isin(
            self.block_subset(np.arange(first_r, int(r1.max()))[:, None], np.arange(first_c, int(c1.max()))[None, :]),
            subsets,
        )
        total = np.pad(wanted.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        r0, r1, c0, c1 = r0 - first_r, r1 - first_r, c0 - first_c, c1 - first_c
        inside = total[r1, c1] - total[r0, c1] - total[r1, c0] + total[r0, c0]
        return inside == (r1 - r0) * (c1 - c0), inside > 0


def _blocks(start: int, length: int, block: int, buffer: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Along one axis: each pixel's block, and the block it is within the buffer of (else its own)."""
    at = np.arange(start, start + length)
    own = at // block
    inside = at % block
    return own, own - (inside < buffer) + (inside >= block - buffer)


def _hash(seed: int, row: NDArray[Any], col: NDArray[Any], salt: int = 0) -> NDArray[np.uint64]:
    """Well-mixed 64 bits of (seed, salt, row, col), the same on every machine (SplitMix64, chained)."""
    state: NDArray[np.uint64] = np.array([(seed * 2 + salt) % 2**64], np.uint64)
    for value in (row, col):
        state = _mix(value.astype(np.int64).view(np.uint64) + _mix(state))
    return state


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
