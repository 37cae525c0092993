"""Random fields with the correlation of natural surfaces, drawn in the Fourier domain.

Every field is periodic, so that what leaves at one edge (a cloud's shadow) enters at the other.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Field = NDArray[np.float32]
"""A scalar per pixel, (H, W)."""


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """An own stream of random numbers for every named part, so that no part disturbs another."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


def fractal(
    size: int,
    rng: np.random.Generator,
    *,
    beta: float,
    longest: float | None = None,
    shortest: float = 2.0,
) -> Field:
    """A (size, size) Gaussian field with power spectrum 1/f^beta, mean 0 and standard deviation 1.

    Parameters
    ----------
    beta:
        Roughness: 0 white noise, 2 clouds, 3–4 terrain.
    longest, shortest:
        Wavelengths in pixels between which the field has power.
    """
    fy = fft.fftfreq(size)[:, None]
    fx = fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx).astype(np.float32)
    frequency[0, 0] = np.inf  # no mean
    amplitude = frequency ** np.float32(-beta / 2)
    amplitude[frequency > 1.0 / shortest] = 0.0
    if longest is not None:
        amplitude[frequency < 1.0 / longest] = 0.0
    parts = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    field = fft.irfft2((parts[0] + 1j * parts[1]) * amplitude, s=(size, size), workers=1)
    return (field / field.std()).astype(np.float32)


def smoothstep(field: NDArray[np.floating], low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between (falling where ``low > high``)."""
    t = np.clip((field - low) / (high - low), 0.0, 1.0)
    return (t * t * (3.0 - 2.0 * t)).astype(np.float32)


def distance(mask: NDArray[np.bool_]) -> Field:
    """Distance in pixels to the nearest true pixel (0 on it)."""
    if not mask.any():
        return np.full(mask.shape, np.float32(sum(mask.shape)))
    return ndimage.distance_transform_edt(~mask).astype(np.float32)
