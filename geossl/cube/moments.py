"""Exact statistics of integers, and streamed ones of floats, that merge in any order.

Integers of up to 16 bits are counted one by one: a histogram with a bin for every number gives mean,
standard deviation and percentiles without rounding. Floats are merged after Chan, Golub & LeVeque
(1979), and counted in bins of their upper 16 bits, so that percentiles are good to 0.4 %.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_BINS = 2**16


class BandMoments:
    """Count, mean, standard deviation, extremes and percentiles of one band.

    Parameters
    ----------
    dtype:
        Of the stored numbers: an integer of up to 16 bits, or float32.
    histogram:
        (65536,) int64: how often each number (floats: each upper half of the bits) was seen, in ascending order;
        None: nothing was yet.
    mean, squares, minimum, maximum:
        Of what was seen, ``squares`` being the sum of squared deviations from the mean; of floats only.
    """

    def __init__(
        self,
        dtype: str,
        histogram: NDArray[np.int64] | None = None,
        mean: float = 0.0,
        squares: float = 0.0,
        minimum: float = np.inf,
        maximum: float = -np.inf,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.histogram = np.zeros(_BINS, np.int64) if histogram is None else histogram
        self.mean = mean
        self.squares = squares
        self.minimum, self.maximum = minimum, maximum

    @property
    def moments(self) -> tuple[float, float, float, float]:
        """What the histogram does not tell of floats: mean, squares, minimum, maximum."""
        return self.mean, self.squares, self.minimum, self.maximum

    @property
    def count(self) -> int:
        return int(self.histogram.sum())

    def add(self, values: NDArray[Any]) -> None:
        """Take in (N,) stored numbers."""
        if not values.size:
            return
        if self.dtype.kind == "f":
            wide = values.astype(np.float64)
            mean = float(wide.mean())
            self._merge_moments(values.size, mean, float(((wide - mean) ** 2).sum()))
            self.minimum = min(self.minimum, float(wide.min()))
            self.maximum = max(self.maximum, float(wide.max()))
        self.histogram += np.bincount(self._bins(values), minlength=_BINS)

    def merge(self, other: Self) -> None:
        """Take in what another has seen."""
        if self.dtype.kind == "f":
            self._merge_moments(other.count, other.mean, other.squares)
            self.minimum = min(self.minimum, other.minimum)
            self.maximum = max(self.maximum, other.maximum)
        self.histogram += other.histogram

    def summary(self) -> dict[str, float]:
        """count, mean, std (of the population), minimum, maximum, p02, p98; at least one number was seen."""
        count = self.count
        seen = np.flatnonzero(self.histogram)
        levels = self._levels(seen)
        percentiles = [_percentile(self.histogram[seen], levels, share) for share in (0.02, 0.98)]
        mean, squares, extremes = self.mean, self.squares, (self.minimum, self.maximum)
        if self.dtype.kind != "f":
            times = self.histogram[seen].tolist()
            numbers = [int(level) for level in levels]
            # Python's integers do not overflow, so the only rounding is in the last division
            total = sum(n * v for n, v in zip(times, numbers, strict=True))
            total_squares = sum(n * v * v for n, v in zip(times, numbers, strict=True))
            mean = total / count
            squares = (count * total_squares - total * total) / count
            extremes = (levels[0], levels[-1])
        # the middle of a bin of floats may lie beyond the outermost number in it
        low, high = np.clip(percentiles, *extremes)
        return {
            "count": count,
            "mean": mean,
            "std": float(np.sqrt(squares / count)),
            "minimum": float(extremes[0]),
            "maximum": float(extremes[1]),
            "p02": float(low),
            "p98": float(high),
        }

    def _merge_moments(self, count: int, mean: float, squares: float) -> None:
        """Chan's update; called before the histogram, and with it ``count``, grows."""
        ours = self.count
        if not ours + count:
            return
        apart = mean - self.mean
        self.mean += apart * count / (ours + count)
        self.squares += squares + apart**2 * ours * count / (ours + count)

    def _bins(self, values: NDArray[Any]) -> NDArray[np.int64]:
        if self.dtype.kind != "f":
            return values.astype(np.int64) - np.iinfo(self.dtype).min
        bits = values.astype(np.float32).view(np.uint32)
        # IEEE floats sort like integers once the negative ones are turned round
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
        return (ordered >> 16).astype(np.int64)

    def _levels(self, bins: NDArray[np.int64]) -> NDArray[np.float64]:
        """The numbers of bins (floats: their middles); inverse of :meth:`_bins`."""
        if self.dtype.kind != "f":
            return (bins + np.iinfo(self.dtype).min).astype(np.float64)
        ordered = (bins.astype(np.uint32) << 16) | np.uint32(2**15)
        bits = np.where(ordered >> 31, ordered & np.uint32(2**31 - 1), ~ordered)
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _percentile(times: NDArray[np.int64], levels: NDArray[np.float64], share: float) -> float:
    """NumPy's linear percentile of numbers given as ascending levels and how often each occurs."""
    cumulative = np.cumsum(times)
    rank = (int(cumulative[-1]) - 1) * share
    low, high = (levels[np.searchsorted(cumulative, whole, side="right")] for whole in (np.floor(rank), np.ceil(rank)))
    return float(low + (high - low) * (rank - np.floor(rank)))
