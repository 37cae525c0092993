"""Forest clearings: patches of 1–20 ha that eat into the forest from roads and older clearings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.demo.noise import distance, fractal, generator

FIRST_YEAR, LAST_YEAR = 2021, 2024
"""Dry seasons in which forest falls."""
NEVER = np.iinfo(np.int32).max

_HECTARE = 100
"""Pixels of 10 m."""


@dataclass(frozen=True)
class Clearing:
    """One felled patch."""

    date: date
    """The day on which the trees had fallen."""
    pixels: NDArray[np.int64]
    """Flat indices into the (H, W) square."""

    @property
    def hectares(self) -> float:
        return len(self.pixels) / _HECTARE


def fell(size: int, seed: int, forest: NDArray[np.bool_], access: NDArray[np.float32]) -> list[Clearing]:
    """The history of clearing from :data:`FIRST_YEAR` to :data:`LAST_YEAR`.

    Parameters
    ----------
    forest:
        Forest before the first clearing; (H, W).
    access:
        Pixels to the nearest road; (H, W). It shrinks as clearings open the land.

    Returns
    -------
    list
        In order of date within a year. Half of a year's patches lie in the western half of the
        square, half in the eastern one, as far as there is forest within reach.
    """
    rng = generator(seed, "clearings")
    standing = forest.copy()
    per_year = max(4, round(14 * (size / 1024) ** 1.5))
    found: list[Clearing] = []
    for year in range(FIRST_YEAR, LAST_YEAR + 1):
        days = np.sort(rng.integers(0, 95, per_year))
        for k, day in enumerate(days.tolist()):
            half = np.s_[:, : size // 2] if k % 2 else np.s_[:, size // 2 :]
            patch = _patch(size, rng, standing, access, half)
            if patch is None:
                continue
            standing[patch] = False
            access = np.minimum(access, 2 + distance(patch))
            found.append(Clearing(date(year, 6, 15) + timedelta(days=day), np.flatnonzero(patch)))
    return found


def _patch(
    size: int,
    rng: np.random.Generator,
    standing: NDArray[np.bool_],
    access: NDArray[np.float32],
    half: tuple[slice, slice],
) -> NDArray[np.bool_] | None:
    """One ragged, turned rectangle of forest, or None where a few tries found no room for a hectare."""
    reach = np.zeros_like(standing)
    reach[half] = (standing & (access > 2) & (access < 26))[half]
    candidates = np.flatnonzero(reach)
    if not len(candidates):
        return None
    hectares = float(np.clip(rng.lognormal(np.log(5.0), 0.75), 1.4, 18.0)) * min(1.0, 0.35 + 0.65 * size / 1024)
    ragged = fractal(64, rng, beta=2.6, longest=40, shortest=4)
    for _ in range(12):
        y, x = divmod(int(rng.choice(candidates)), size)
        angle, aspect = rng.uniform(0, np.pi), rng.uniform(1.0, 2.2)
        top, left = int(np.clip(y - 32, 0, size - 64)), int(np.clip(x - 32, 0, size - 64))
        window = np.s_[top : top + 64, left : left + 64]
        rows, columns = np.mgrid[window]
        u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        half_v = np.sqrt(max(hectares, 1.4) * _HECTARE / aspect) / 2
        shape = np.maximum(np.abs(u) / aspect, np.abs(v)) / half_v + 0.09 * ragged
        inside = (shape < 1) & standing[window]
        pieces, _ = ndimage.label(inside)
        piece = (pieces == pieces[y - top, x - left]) & inside
        if _HECTARE <= piece.sum() <= 20 * _HECTARE:
            patch = np.zeros_like(standing)
            patch[window] = piece
            return patch
    return None


def felled_on(size: int, clearings: list[Clearing]) -> NDArray[np.int32]:
    """Ordinal day on which each pixel was cleared, :data:`NEVER` elsewhere; (H, W)."""
    day = np.full(size * size, NEVER, np.int32)
    for clearing in clearings:
        day[clearing.pixels] = clearing.date.toordinal()
    return day.reshape(size, size)
