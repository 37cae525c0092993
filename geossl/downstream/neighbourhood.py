"""Band statistics over windows of several sizes: hand-made features that a network has to beat.

On small regions with few labels they are as good as much that is learnt, so they are both a floor
and, beside an encoder's features, a part of the few-label model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

SCALES = (3, 5, 9, 17, 33)
"""Window sides in pixels of the multi-scale statistics."""

MARGIN = max(SCALES) // 2
"""How far the widest window looks, in pixels."""


def count(bands: int, scales: Sequence[int] = SCALES) -> int:
    """How many features :func:`multi_scale` gives for that many bands."""
    return bands * (1 + 2 * len(scales))


def window_mean(image: NDArray[np.float32], valid: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Mean of the valid pixels in the square around each pixel; 0 where there is none.

    Parameters
    ----------
    image:
        (C, H, W), finite where valid.
    valid:
        (H, W). What lies outside the image is not valid.
    side:
        Of the square in pixels, odd.
    """
    share = uniform_filter(valid.astype(np.float32), side, mode="constant")
    total = uniform_filter(np.where(valid, image, np.float32(0)), side, mode="constant", axes=(1, 2))
    # running sums leave rounding behind where there is nothing
    known = share > 0.5 / side**2
    return np.divide(total, share, out=np.zeros_like(total), where=known)


def multi_scale(
    image: NDArray[np.float32], valid: NDArray[np.bool_], scales: Sequence[int] = SCALES
) -> NDArray[np.float32]:
    """Each band itself, and its mean and standard deviation over windows of every scale.

    Parameters
    ----------
    image:
        (C, H, W) normalised, so that squares keep their digits in float32.
    valid:
        (H, W); other pixels enter no statistic.

    Returns
    -------
    (C · (1 + 2 · scales), H, W): the bands, then for each scale the means and the deviations.
    """
    parts = [np.where(valid, image, np.float32(0))]
    squares = parts[0] ** 2
    for side in scales:
        mean = window_mean(image, valid, side)
        variance = window_mean(squares, valid, side) - mean**2
        parts += [mean, np.sqrt(np.maximum(variance, 0, out=variance))]
    return np.concatenate(parts)
