"""From many observations of a pixel to one: the rules by which composites are made.

Every rule looks at clear observations only. Pure NumPy; nothing here knows of cubes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

_ROWS = 16
"""Pixel rows whose distances are held in memory together."""

FAR = 50
"""Pixels from the next unclear one beyond which more distance is no better (White et al. 2014)."""


def median(stack: NDArray[Any], clear: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    """Median along the first axis over clear values only.

    Parameters
    ----------
    stack, clear:
        (T, …) stored numbers, and which of them count.
    nodata:
        The result where none does.

    Returns
    -------
    (…) in the dtype of ``stack``. The mean of two middle integers is rounded, halves to even.
    """
    whole = stack.dtype.kind != "f"
    # unclear values sort behind all others, so that the middle of the clear ones can be picked by rank
    last = stack.dtype.type(np.iinfo(stack.dtype).max if whole else np.inf)
    # observations of a pixel side by side: NumPy sorts these up to twelve times as fast as along the first axis
    ordered = np.ascontiguousarray(np.moveaxis(np.where(clear, stack, last), 0, -1))
    ordered.sort(axis=-1)
    count = clear.sum(axis=0)
    ranks = np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(stack) - 1)], axis=-1)
    middle = np.take_along_axis(ordered, ranks, axis=-1).astype(np.float64).mean(axis=-1)
    return np.where(count > 0, np.rint(middle) if whole else middle, nodata).astype(stack.dtype)


def medoid(stack: NDArray[Any], clear: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Which observation is nearest to all others: the least sum of Euclidean distances over all bands.

    A real observation with its own spectrum, where a median mixes bands of several dates. After Flood
    (2013), "Seasonal composite Landsat TM/ETM+ images using the medoid", Remote Sensing 5(12).

    Parameters
    ----------
    stack, clear:
        (T, C, H, W) stored numbers, and (T, H, W) which observations count.

    Returns
    -------
    (H, W) index along T, of equals the first; 0 where nothing is clear.
    """
    height = stack.shape[2]
    chosen = np.zeros(clear.shape[1:], np.intp)
    for top in range(0, height, _ROWS):
        rows = np.s_[top : top + _ROWS]
        # 16-bit numbers squared and added up are exact in doubles, so that equal distances are equal
        values = stack[:, :, rows].astype(np.float64)
        seen = clear[:, rows]
        total = np.zeros(seen.shape)
        for first in range(len(values)):
            apart = np.sqrt(np.square(values[first + 1 :] - values[first]).sum(axis=1))
            total[first] += (apart * seen[first + 1 :]).sum(axis=0)
            total[first + 1 :] += apart * seen[first]
        total[~seen] = np.inf
        chosen[rows] = total.argmin(axis=0)
    return chosen


def score(clear: NDArray[np.bool_], days: float, spread: float) -> NDArray[np.float32]:
    """How good each pixel of one observation is: near to the wanted date, far from clouds.

    The sum of two scores from 0 to 1 after White et al. (2014), "Pixel-based image compositing for
    large-area dense time series applications and science", Canadian Journal of Remote Sensing 40(3).

    Parameters
    ----------
    clear:
        (H, W), where the ground was seen.
    days, spread:
        Days between the observation and the wanted date, and the standard deviation of their score.

    Returns
    -------
    (H, W); −1 where the pixel was not clear.
    """
    date = np.exp(-0.5 * (days / spread) ** 2)
    if clear.all():
        return np.full(clear.shape, date + _far_enough(np.float32(FAR)), np.float32)
    distance = np.minimum(distance_transform_edt(clear), FAR).astype(np.float32)
    found: NDArray[np.float32] = np.where(clear, np.float32(date) + _far_enough(distance), np.float32(-1))
    return found


def _far_enough(distance: Any) -> Any:
    return 1 / (1 + np.exp(-0.2 * (distance - FAR / 2)))


def _median_of_bands(stack: NDArray[Any], clear: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    # band by band: sorting takes a copy of what is sorted
    return np.stack([median(stack[:, band], clear, nodata) for band in range(stack.shape[1])])


def _medoid_itself(stack: NDArray[Any], clear: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    return _taken(stack, medoid(stack, clear), clear, nodata)


def _first_clear(stack: NDArray[Any], clear: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    return _taken(stack, clear.argmax(axis=0), clear, nodata)


def _taken(stack: NDArray[Any], chosen: NDArray[np.intp], clear: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    found = np.take_along_axis(stack, chosen[None, None], axis=0)[0]
    np.copyto(found, nodata, where=~clear.any(axis=0), casting="unsafe")
    return found


RULES: dict[str, Callable[[NDArray[Any], NDArray[np.bool_], float], NDArray[Any]]] = {
    "median": _median_of_bands,
    "medoid": _medoid_itself,
    "best-pixel": _first_clear,
}
"""Rule → (T, C, H, W) stored numbers, (T, H, W) which of them count, and no-data → (C, H, W).

Which pixel is best depends on the clouds around it, beyond any window: whoever asks for ``best-pixel`` leaves
of each pixel's observations only the one with the highest :func:`score` to count.
"""
