"""Iteratively re-weighted multivariate alteration detection (Nielsen 2007).

Of two dates of one place, canonical correlation finds the band combinations that go together most. Their
differences, the MAD variates (Nielsen, Conradsen & Simpson 1998), hold what does not go together, largest last.
Where nothing changed, the sum of their squares in units of their variance follows a χ² distribution with as
many degrees of freedom as there are variates; so its upper tail says how likely no change is, and with that as
a pixel's weight everything is estimated again, until unchanged ground alone decides what is usual.

What comes out stays the same under any invertible affine transform of the bands of either date: gains, offsets,
haze and another calibration need no correction first.

Nielsen, "The regularized iteratively reweighted MAD method for change detection in multi- and hyperspectral data",
IEEE Transactions on Image Processing 16(2), 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from geossl.errors import LabelError

ITERATIONS = 50
"""Most re-weightings."""

ENOUGH = 1e-3
"""Largest step of a canonical correlation at which the weights have settled."""

_PIXELS = 10
"""Unchanged pixels a band that weights must leave. They may narrow down to a handful that happens to fit exactly, of
which all other ground would differ."""

_SINGULAR = 1e-10
"""Share of the largest variance under which a combination of standardised bands counts as none."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Irmad:
    """How two dates of C bands give P MAD variates of unit variance where nothing changed."""

    before: Floats
    """(P, C) weights of the earlier date's bands."""
    after: Floats
    """(P, C) weights of the later date's bands."""
    shift: Floats
    """(P,) what is taken away from their difference, so that no change has mean 0."""
    correlations: Floats
    """(P,) canonical correlations over unchanged ground, the largest first."""
    iterations: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom of :meth:`statistic` where nothing changed."""
        return len(self.shift)

    def statistic(self, before: NDArray[np.floating], after: NDArray[np.floating]) -> Floats:
        """(N, C) pixels of both dates → (N,) sum of the squared variates."""
        variates = before @ self.before.T - after @ self.after.T - self.shift
        return np.square(variates, out=variates).sum(axis=1)

    def no_change(self, statistic: Floats) -> Floats:
        """The probability that unchanged ground shows as much as this, or more; any shape.

        After re-weighting it is on the small side, since the weights shrink the variance they are compared with.
        """
        return chi2.sf(statistic, self.freedom)


def irmad(before: NDArray[np.floating], after: NDArray[np.floating], *, iterations: int = ITERATIONS) -> Irmad:
    """Estimate from pixels.

    Parameters
    ----------
    before, after:
        (N, C) and (N, D), the same pixels at both dates.
    iterations:
        1 gives plain MAD.

    Raises
    ------
    LabelError
        There are too few pixels, or a date shows one and the same everywhere.
    """
    x, y = before.astype(np.float64), after.astype(np.float64)
    if len(x) <= x.shape[1] + y.shape[1]:
        raise LabelError(
            f"IR-MAD has {len(x)} pixels seen at both dates to learn what is usual from, for {x.shape[1]} bands",
            "choose clearer dates, or another `settings.method`",
        )
    weight = np.ones(len(x))
    last: Floats | None = None
    for iteration in range(1, iterations + 1):
        found = _mad(x, y, weight, iteration)
        settled = (
            last is not None and len(last) == found.freedom and float(np.abs(found.correlations - last).max()) < ENOUGH
        )
        if settled or iteration == iterations:
            break
        last = found.correlations
        weight = found.no_change(found.statistic(x, y))
        if weight.sum() ** 2 < _PIXELS * (x.shape[1] + y.shape[1]) * np.square(weight).sum():  # Kish's effective number
            break
    return found


def _mad(x: Floats, y: Floats, weight: Floats, iteration: int) -> Irmad:
    """The MAD variates under weights (N,)."""
    share = weight / weight.sum()
    means = [share @ date for date in (x, y)]
    whiten_x, whiten_y = (_whitening(d, m, share) for d, m in zip((x, y), means, strict=True))
    together = ((x - means[0]) * share[:, None]).T @ (y - means[1])
    left, correlations, right = np.linalg.svd(whiten_x.T @ together @ whiten_y)
    p = len(correlations)
    correlations = correlations.clip(max=1 - 1e-12)
    a, b = (whiten_x @ left[:, :p]).T, (whiten_y @ right[:p].T).T
    spread = np.sqrt(2 * (1 - correlations))[:, None]  # of the difference of two unit variates
    a, b = a / spread, b / spread
    return Irmad(a, b, a @ means[0] - b @ means[1], correlations, iteration)


def _whitening(pixels: Floats, mean: Floats, share: Floats) -> Floats:
    """(C, R) combinations of bands (N, C) that are uncorrelated and of unit variance, R their rank."""
    centred = pixels - mean
    covariance = (centred * share[:, None]).T @ centred
    scale = np.sqrt(np.diagonal(covariance))
    # what is constant up to rounding carries nothing but rounding
    varies = np.flatnonzero(scale > 1e-9 * np.abs(mean))
    if not varies.size:
        raise LabelError("IR-MAD: a date shows one and the same everywhere", "choose another date")
    scale = scale[varies]
    variance, directions = np.linalg.eigh(covariance[np.ix_(varies, varies)] / scale / scale[:, None])
    kept = variance > _SINGULAR * variance[-1]
    whitening = np.zeros((len(mean), int(kept.sum())))
    whitening[varies] = directions[:, kept] / scale[:, None] / np.sqrt(variance[kept])
    return whitening
