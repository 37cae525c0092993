"""How many points a sample needs, and how many of them each stratum gets.

Olofsson et al. 2014, section 5.1, after Cochran 1977, "Sampling Techniques", equation 5.25.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geossl.errors import SettingsError

Allocation = Literal["proportional", "neyman"]


def sample_size(area: ArrayLike, users: ArrayLike, error: float, *, units: ArrayLike | None = None) -> int:
    """Points for a wanted standard error of overall accuracy, allotted in proportion to W·S.

    Parameters
    ----------
    area:
        (H,) areas of the strata, in any unit.
    users:
        (H,) anticipated user's accuracies: share of a stratum that is what it is mapped as.
    error:
        Wanted standard error of overall accuracy, such as 0.01.
    units:
        (H,) pixels of the strata; None: so many that it makes no difference.
    """
    weight, spread = _weights(area), _spread(users)
    finite = 0.0 if units is None else float(weight @ spread**2) / float(np.asarray(units, np.float64).sum())
    # a hair less, so that 640.0000001 is not 641
    return math.ceil(float(weight @ spread) ** 2 / (error**2 + finite) - 1e-9)


def allocate(
    area: ArrayLike,
    units: ArrayLike,
    users: ArrayLike,
    points: int,
    *,
    minimum: int = 50,
    rule: Allocation = "proportional",
) -> NDArray[np.int64]:
    """(H,) points of every stratum: at least ``minimum`` (or all units), the rest by rule.

    ``proportional`` shares out by area, which suits every figure alike; ``neyman`` by area times anticipated
    spread, which is best for overall accuracy.

    Raises
    ------
    SettingsError
        There are fewer points than the minima take.
    """
    there = np.asarray(units, np.int64)
    weight = np.asarray(area, np.float64) * (_spread(users) if rule == "neyman" else 1.0)
    least = np.minimum(there, max(minimum, 2))
    if points < least.sum():
        raise SettingsError(
            f"{points} points are too few for {len(there)} strata with at least {minimum} points each",
            f"give --size {least.sum()} or more, or a smaller --minimum",
        )
    out = least.copy()
    free = np.ones(len(there), bool)
    # strata whose share lies outside their bounds take the bound; what that frees or costs, the others share
    while free.any():
        left = points - out[~free].sum()
        share = left * weight / max(weight[free].sum(), 1e-300)
        low, high = free & (share < least), free & (share > there)
        # one side at a time, the one that is off by more, or both ends could not be kept
        below, above = (least - share)[low].sum(), (share - there)[high].sum()
        if not (low.any() or high.any()):
            out[free] = _rounded(share[free], left)
            break
        fixed, bound = (low, least) if below >= above else (high, there)
        out[fixed] = bound[fixed]
        free &= ~fixed
    return np.minimum(out, there)


def expected_error(area: ArrayLike, users: ArrayLike, points: ArrayLike) -> float:
    """The standard error of overall accuracy to expect of an allocation, if the anticipated accuracies hold."""
    weight = _weights(area)
    return float(np.sqrt((weight**2 * _spread(users) ** 2 / np.asarray(points)).sum()))


def _weights(area: ArrayLike) -> NDArray[np.float64]:
    """Shares of the whole."""
    areas = np.asarray(area, np.float64)
    return areas / areas.sum()


def _spread(users: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation of being right."""
    share = np.asarray(users, np.float64)
    return np.sqrt(share * (1 - share))


def _rounded(share: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers that add up to the total, by largest remainder."""
    out = np.floor(share).astype(np.int64)
    out[np.argsort(out - share, kind="stable")[: total - out.sum()]] += 1
    return out
