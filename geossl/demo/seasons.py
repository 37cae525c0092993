"""What grows when: rain, grass, crops with their calendars, leaf fall, and land after a clearing."""

from __future__ import annotations

from datetime import date

import numpy as np
from numpy.typing import NDArray

from geossl.demo.clearings import NEVER
from geossl.demo.cover import Cover
from geossl.demo.noise import Field, generator
from geossl.demo.parcels import Parcels

_RAINS_BEGIN = 280
"""Day of the year on which the first rains fall (early October)."""


def wetness(day: date) -> float:
    """0 at the end of the dry season (September) … 1 at the height of the rains (February)."""
    return 0.5 + 0.5 * float(np.cos(2 * np.pi * (_day_of_year(day) - 48) / 365.25))


def _day_of_year(day: date) -> int:
    return day.timetuple().tm_yday


def _growth(days: Field, rise: float, length: Field | float, fall: float) -> Field:
    """Green cover of a crop some days after planting: a double logistic of ``length`` days."""
    up = 1 / (1 + np.exp(-(days - 32) / rise))
    down = 1 / (1 + np.exp((days - length) / fall))
    return (up * down).astype(np.float32)


def crop_cover(day: date, seed: int, parcels: Parcels, kind: NDArray[np.uint8]) -> tuple[Field, Field]:
    """Green and dry plant cover of every plot if its kind is a crop; both (count,).

    The agricultural year runs from August. Planting dates differ between plots and years, some
    plots rest for a year, and soy is followed by maize on double-cropped ones.
    """
    year = day.year if day.month >= 8 else day.year - 1
    since = (day - date(year, 8, 1)).days
    rng = generator(seed, "crops", year)
    n = parcels.count
    late = rng.normal(0, 13, n).astype(np.float32)
    vigour = np.clip(rng.normal(0.86, 0.09, n), 0.55, 0.98).astype(np.float32)
    rests = rng.random(n) < 0.08

    def season(planted: float, length: float, rise: float = 7.5, fall: float = 6.0) -> Field:
        return _growth(since - planted - late, rise, length + 0.3 * late, fall)

    soy = season(86, 112)
    maize = season(205, 118, fall=10)
    cotton = season(142, 165, rise=11, fall=12)
    pivot = np.maximum.reduce([season(70, 100), season(182, 105), season(290, 110, fall=8)])
    choices = [np.isin(kind, [crop]) for crop in (Cover.SOY_MAIZE, Cover.SOY, Cover.COTTON, Cover.PIVOT)]
    green = np.select(choices, [np.maximum(soy, 0.9 * maize), soy, 0.92 * cotton, pivot], 0.0)
    green = np.where(rests, 0.45 * wetness(day), green * vigour)
    # Straw after the harvest rots with the rains; ploughed land shows soil before planting.
    harvest = np.select(choices, [325.0, 200.0, 310.0, 400.0], 400.0) + late
    straw = np.where(since > harvest, 0.75 * np.exp(-(since - harvest) / 120), 0.30 * np.exp(-since / 70))
    return green.astype(np.float32), np.clip(straw, 0, 0.8).astype(np.float32)


def grass_cover(day: date, cover: NDArray[np.uint8]) -> tuple[Field, Field]:
    """Green and dry cover of grass under and between trees, by kind of surface; both (H, W)."""
    wet = wetness(day)
    # kind: (green in the dry season, green in the rains, dry standing in the dry season, in the rains)
    table = np.zeros((len(Cover), 4), np.float32)
    table[:, :] = (0.05, 0.12, 0.08, 0.04)
    table[Cover.UPLAND_FOREST] = table[Cover.GALLERY_FOREST] = (0.50, 0.70, 0.25, 0.15)
    table[Cover.DRY_FOREST] = (0.24, 0.72, 0.46, 0.12)
    table[Cover.PASTURE] = (0.26, 0.84, 0.52, 0.10)
    table[Cover.POOR_PASTURE] = (0.12, 0.54, 0.46, 0.16)
    table[Cover.WET_GRASS] = (0.42, 0.80, 0.38, 0.12)
    table[Cover.REGROWTH] = (0.40, 0.82, 0.36, 0.10)
    table[Cover.TILLED] = (0.03, 0.26, 0.14, 0.08)
    table[Cover.MINE] = (0.01, 0.04, 0.01, 0.01)
    table[Cover.TOWN] = (0.16, 0.40, 0.22, 0.08)
    green = table[:, 0] + wet * (table[:, 1] - table[:, 0])
    dry = table[:, 2] + wet * (table[:, 3] - table[:, 2])
    return green[cover], dry[cover]


def leaf_fall(day: date) -> Field:
    """Share of crown leaves that are dry or gone, by kind of surface; (len(Cover),)."""
    drought = 1 - wetness(day)
    share = np.zeros(len(Cover), np.float32)
    share[Cover.UPLAND_FOREST] = 0.03 + 0.05 * drought
    share[Cover.GALLERY_FOREST] = 0.02
    share[Cover.DRY_FOREST] = 0.05 + 0.38 * drought**2
    share[[Cover.PASTURE, Cover.POOR_PASTURE, Cover.REGROWTH, Cover.TOWN]] = 0.06 + 0.12 * drought
    return share


def after_clearing(day: date, felled: NDArray[np.int32]) -> dict[str, Field]:
    """What a clearing looks like: slash, then the burn, then bare soil, then pasture.

    Parameters
    ----------
    felled:
        Ordinal day of clearing of every pixel.

    Returns
    -------
    dict
        ``cleared`` 0/1, and the shares ``char``, ``green``, ``dry``; all (H, W).
    """
    age = np.where(felled == NEVER, -1, day.toordinal() - felled.astype(np.int64))
    cleared = (age >= 0).astype(np.float32)
    fresh = np.exp(-np.maximum(age - 28, 0) / 4.0)  # slash until it is burnt four weeks later
    burnt = np.exp(-np.maximum(age - 28, 0) / 45.0) * (1 - fresh)
    pasture = np.clip((age - 60) / 420, 0, 1)
    wet = wetness(day)
    return {
        "cleared": cleared,
        "char": (cleared * 0.62 * burnt).astype(np.float32),
        "green": (
            cleared * (0.10 * fresh + (0.08 + 0.16 * wet + pasture * (0.12 + 0.42 * wet)) * (1 - fresh) * (1 - burnt))
        ).astype(np.float32),
        "dry": (cleared * (0.52 * fresh + 0.16 * (1 - fresh) + 0.22 * pasture * (1 - wet))).astype(np.float32),
    }
