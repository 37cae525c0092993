"""Bands of one pixel size lie together: which bands make a group, and how groups become one image again.

A grid that keeps its bands *native* (:attr:`geossl.grid.Grid.bands`) stores bands that are twice, four times … as
coarse as others in pixels that much larger. As the factors are powers of two, a chunk window is the same ground in
every group: one row of records, one quality plane and one index of chips serve them all. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.grid import Grid

COARSEST = 16
"""The largest factor: chunks shrink with its square."""

_ALIKE = 1.1
"""Pixel sizes that differ by no more are taken for the same: MODIS has 232 m where it says 250."""


@dataclass(frozen=True, slots=True)
class BandGroup:
    """Bands that are stored in pixels of one size."""

    bands: tuple[int, ...]
    """Positions in the sensor, ascending."""
    factor: int
    """How many of the grid's pixels make one of the group's, along one side."""
    suffix: str
    """What the names of its arrays and dimensions end in: ``_20m``; nothing for the grid's own pixels."""

    def name(self, stem: str) -> str:
        """``image`` → ``image_20m``"""
        return stem + self.suffix

    def of(self, sensor: Sensor) -> Sensor:
        """The sensor with only the bands of the group."""
        return replace(sensor, bands=tuple(sensor.bands[band] for band in self.bands))


def band_groups(sensor: Sensor, grid: Grid) -> tuple[BandGroup, ...]:
    """How a sensor's bands are stored on a grid, finest first; the first has the grid's own pixels.

    Of a ``native`` grid: the finest bands lie on the grid itself. A band 2, 4, 8 or 16 times as coarse as they are
    has the largest pixels (of 1, 2, 4, 8 or 16 of the grid's) that are not larger than its own. Any other (60 m
    beside 10 m) goes to the coarsest group of these whose pixels are not larger than its own. So nothing is lost.
    """
    if grid.bands == "one":
        return (BandGroup(tuple(range(len(sensor.bands))), 1, ""),)
    found = _factors([band.gsd for band in sensor.bands], grid.resolution)
    return tuple(
        BandGroup(
            tuple(band for band, other in enumerate(found) if other == factor),
            factor,
            "" if factor == 1 else f"_{grid.resolution * factor:g}m",
        )
        for factor in sorted(set(found))
    )


def _factors(sizes: Sequence[float], resolution: float) -> list[int]:
    """The factor of each band, from the size of its pixels."""
    within = [_power_below(size / resolution * _ALIKE) for size in sizes]
    native = {1, *(factor for factor, size in zip(within, sizes, strict=True) if _is_power(size / min(sizes)))}
    found = [max(factor for factor in native if factor <= most) for most in within]
    finest = min(found)
    return [1 if factor == finest else factor for factor in found]


def _power_below(ratio: float) -> int:
    """The largest power of two, of 1 to :data:`COARSEST`, that is not above a ratio; 1 where none is."""
    return 2 ** math.floor(math.log2(min(max(ratio, 1), COARSEST)))


def _is_power(ratio: float) -> bool:
    """Whether a ratio is about a power of two."""
    return abs(math.log2(ratio) - round(math.log2(ratio))) <= math.log2(_ALIKE)


def place(group: BandGroup, pixels: NDArray[Any], rows: slice, columns: slice, out: NDArray[Any]) -> None:
    """Put a group's bands where they belong in an image of all bands, coarser pixels repeated.

    Parameters
    ----------
    pixels:
        (…, n, h, w), the bands of the group.
    rows, columns:
        Which pixels of the grid are wanted, counted from the corner of ``pixels``; no steps.
    out:
        (…, C, rows, columns)
    """
    for position, band in enumerate(group.bands):
        repeat(pixels[..., position, :, :], group.factor, rows, columns, out[..., band, :, :])


def repeat(pixels: NDArray[Any], factor: int, rows: slice, columns: slice, out: NDArray[Any]) -> None:
    """Copy a window of (…, h, w) pixels, each repeated ``factor`` times along both sides, into ``out``."""
    for y in range(factor):
        for x in range(factor):
            target = out[..., y::factor, x::factor]
            row, column = (rows.start + y) // factor, (columns.start + x) // factor
            height, width = target.shape[-2:]
            target[...] = pixels[..., row : row + height, column : column + width]
