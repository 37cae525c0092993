"""Areas and accuracies from a stratified random sample.

Every figure is a mean or a ratio of means of indicators over the ground (Stehman 2014, "Estimating area and
map accuracy for stratified random sampling when the strata are different from the map classes", International
Journal of Remote Sensing 35:4923–4939). Where the strata are the classes of the map that is assessed, these are
the estimators of Olofsson et al. 2014, "Good practices for estimating area and assessing accuracy of land
change", Remote Sensing of Environment 148:42–57.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Z = 1.96
"""Half of a 95 % interval in standard errors, as both papers have it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Estimates with standard errors; scalars or arrays of one shape."""

    value: Floats
    """NaN where the sample says nothing (no point of the class)."""
    error: Floats
    points: Floats | None = None
    """Of a share: points that it is a share of, infinite where they were counted out."""

    @property
    def half(self) -> Floats:
        """1.96 standard errors: half of a symmetric 95 % interval, as both papers print it."""
        return Z * self.error

    def interval(self) -> tuple[Floats, Floats]:
        """Ends of the 95 % interval.

        Of an area, 1.96 standard errors to each side, but not below 0. Of a share, Wilson's interval for as many
        points as would have its standard error if they were drawn at random: near 1, or with few points, a symmetric
        one holds the truth less often than it says, and has no width where all points agree (Wilson 1927; Franco et
        al. 2019, Journal of Survey Statistics and Methodology 7:334–364, compare such intervals).
        """
        if self.points is None:
            return np.maximum(self.value - self.half, 0.0), self.value + self.half
        spread = self.value * (1 - self.value)
        alike = np.divide(spread, self.error**2, out=np.array(self.points, np.float64), where=self.error > 0)
        shrunk = 1 + Z**2 / alike
        middle = (self.value + Z**2 / (2 * alike)) / shrunk
        half = Z * np.sqrt(spread / alike + Z**2 / (4 * alike**2)) / shrunk
        return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a sample says of the ground and of a map; arrays are (K,) by class."""

    area: Figure
    """In the unit of the strata's areas."""
    users: Figure
    """User's accuracy: share of what is mapped as the class that is the class."""
    producers: Figure
    """Producer's accuracy: share of the class that is mapped as the class."""
    overall: Figure
    matrix: Floats
    """(K, K) share of the ground by map class (row) and reference class (column)."""


class StratifiedSample:
    """Points of a stratified random sample, and the means and ratios that they estimate.

    Parameters
    ----------
    stratum:
        (n,) position 0 … H−1 of each point's stratum.
    area:
        (H,) area of every stratum, in any unit.
    units:
        (H,) number of units (pixels) that each stratum's points were drawn from, without replacement; None: so
        many that it makes no difference, as in Olofsson et al. 2014.
    size:
        (n,) area of each point's unit, as a share of the mean unit of its stratum; None: all are alike. A unit
        twice as large counts twice.

    Raises
    ------
    ValueError
        A stratum has fewer than two points and was not counted out.
    """

    def __init__(
        self, stratum: ArrayLike, area: ArrayLike, *, units: ArrayLike | None = None, size: ArrayLike | None = None
    ) -> None:
        self.stratum = np.asarray(stratum, np.intp)
        self.area = np.asarray(area, np.float64)
        self.count = np.bincount(self.stratum, minlength=len(self.area))
        self._size = np.ones(len(self.stratum)) if size is None else np.asarray(size, np.float64)
        left = np.ones(len(self.area)) if units is None else 1 - self.count / np.asarray(units, np.float64)
        if ((self.count < 2) & ((left > 0) | (self.count < 1))).any():
            raise ValueError(f"every stratum needs at least two points, but they have {self.count}")
        # of a mean's variance: the finite population's share and the divisors of s² / n
        self._open = left > 0
        self._factor = left / self.count / np.maximum(self.count - 1, 1)

    def total(self, y: NDArray[Any]) -> Figure:
        """The area on which indicators (n,) or (n, M) are true: scalars or (M,). Stehman 2014, equations 1 and 25."""
        value = self.area @ self._means(y)
        return Figure(value, np.sqrt(self._variance(y * self._size.reshape(-1, *[1] * (y.ndim - 1)))))

    def ratio(self, y: NDArray[Any], x: NDArray[Any]) -> Figure:
        """The area of ``y`` over that of ``x``, (n,) or (n, M) each. Stehman 2014, equations 27 and 28.

        The variance is that of the residuals y − R·x, which is equation 28 in one term.
        """
        above, below = self.area @ self._means(y), self.area @ self._means(x)
        share = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
        size = self._size.reshape(-1, *[1] * (y.ndim - 1))
        spread = np.sqrt(self._variance((y - share * x) * size))
        error = np.divide(spread, below, out=np.full(np.shape(below), np.nan), where=below > 0)
        points = self._open[self.stratum] @ x
        return Figure(share, error, np.where(points > 0, points, np.inf))

    def _means(self, y: NDArray[Any]) -> Floats:
        """(H,) or (H, M) mean of every stratum."""
        return self._sums((y.T * self._size).T) / self.count.reshape(-1, *[1] * (y.ndim - 1))

    def _sums(self, y: NDArray[Any]) -> Floats:
        out = np.zeros((len(self.area), *y.shape[1:]))
        np.add.at(out, self.stratum, y)
        return out

    def _variance(self, y: NDArray[Any]) -> Floats:
        """Of the sum over strata of area × mean."""
        mean = self._sums(y) / self.count.reshape(-1, *[1] * (y.ndim - 1))
        squares = self._sums((y - mean[self.stratum]) ** 2)
        return (self.area**2 * self._factor) @ squares


def estimate(sample: StratifiedSample, mapped: ArrayLike, reference: ArrayLike, classes: int) -> Estimates:
    """Areas of the reference classes, and accuracies of a map, whatever the strata are.

    Parameters
    ----------
    mapped:
        (n,) position 0 … K−1 of the class that the assessed map has at each point; anything else: not mapped
        there, which no accuracy counts.
    reference:
        (n,) position of the class that it is.
    """
    of_map = np.asarray(mapped)[:, None] == np.arange(classes)
    of_truth = np.asarray(reference)[:, None] == np.arange(classes)
    hit, known = of_map & of_truth, of_map.any(axis=1)
    matrix = np.stack([sample.total(of_map[:, [k]] & of_truth).value for k in range(classes)]) / sample.area.sum()
    return Estimates(
        area=sample.total(of_truth),
        users=sample.ratio(hit.astype(float), of_map.astype(float)),
        producers=sample.ratio(hit.astype(float), (of_truth & known[:, None]).astype(float)),
        overall=sample.ratio(hit.any(axis=1).astype(float), known.astype(float)),
        matrix=matrix,
    )
