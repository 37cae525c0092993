"""The strata of a class map: its classes, and a buffer around change; counted and drawn window by window.

Pixels of the map are the units that are sampled. Where a projection is not equal-area they are not all as large on
the ground, so areas are counted by what each window's pixels cover there, and every drawn pixel carries its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.io import DatasetReader
from rasterio.windows import Window
from scipy import ndimage

from geossl.errors import StoreError
from geossl.legend import NO_LABEL, Legend
from geossl.progress import Progress, silent

WINDOW = 512
"""Side in pixels of what is looked at at once; part of what a seed means, so it never changes."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """One part of the map that points are drawn from."""

    name: str
    code: int
    """Class code on the map."""
    buffer: bool = False
    """Whether it is the part of its class near change; then its class's other stratum is the rest."""


def strata_of(legend: Legend, around: Sequence[int], buffer: int) -> list[Stratum]:
    """The strata of a legend.

    Parameters
    ----------
    around:
        Codes of change: pixels of other classes within the buffer of one are a stratum of their own, since what
        change a map misses lies mostly there (Olofsson et al. 2020, Remote Sensing of Environment 236:111492).
    buffer:
        Its width in pixels; 0: none.
    """
    found = [Stratum(land.name, land.code) for land in legend]
    if around and buffer:
        names = {land.code: land.name for land in legend}
        near = " or ".join(names[code] for code in around)
        found += [
            Stratum(f"{land.name} near {near}", land.code, buffer=True) for land in legend if land.code not in around
        ]
    return found


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of the map each stratum holds; columns are strata."""

    units: NDArray[np.int64]
    """(windows, H) pixels."""
    pixel: NDArray[np.float64]
    """(windows,) mean area on the ground of the pixels of each window, m²."""
    unmapped: int
    """Pixels without a class."""

    @property
    def area(self) -> NDArray[np.float64]:
        """(H,) m² on the ground."""
        return self.pixel @ self.units


@dataclass(frozen=True, slots=True)
class Draw:
    """n drawn pixels, stratum by stratum; every array is (n,)."""

    stratum: NDArray[np.int64]
    row: NDArray[np.int64]
    """Of the map."""
    col: NDArray[np.int64]
    size: NDArray[np.float64]
    """Area of the pixel as a share of its stratum's mean pixel."""


class StrataMap:
    """A class raster, seen as strata.

    Parameters
    ----------
    path:
        Class raster of codes, :data:`~geossl.legend.NO_LABEL` where nothing is known, in a projected CRS.
    strata:
        As :func:`strata_of` makes them.
    around, buffer:
        As for :func:`strata_of`.
    """

    def __init__(self, path: Path, strata: Sequence[Stratum], around: Sequence[int], buffer: int) -> None:
        self.path, self.strata, self.around, self.buffer = path, list(strata), list(around), buffer
        self._of_code = np.full((2, 256), NO_LABEL, np.uint8)
        for position, stratum in enumerate(self.strata):
            self._of_code[int(stratum.buffer), stratum.code] = position
        if not any(stratum.buffer for stratum in self.strata):
            self._of_code[1] = self._of_code[0]

    def count(self, progress: Progress = silent) -> Counts:
        """Look at the whole map once.

        Raises
        ------
        StoreError
            It cannot be read, or holds codes that are no class of the legend.
        """
        with _open(self.path) as raster:
            windows = list(_windows(raster))
            units = np.zeros((len(windows), len(self.strata)), np.int64)
            unmapped, strange = 0, set()
            for number, window in enumerate(windows):
                progress("strata", number, len(windows))
                codes, strata = self._look(raster, window)
                found = np.bincount(strata.ravel(), minlength=256)
                units[number] = found[: len(self.strata)]
                none = codes == NO_LABEL
                unmapped += int(none.sum())
                strange |= set(np.unique(codes[(strata == NO_LABEL) & ~none]).tolist())
            if strange:
                raise StoreError(f"{self.path} holds codes that its legend does not: {sorted(strange)}", "map it again")
            progress("strata", len(windows), len(windows))
            ground = Ground(raster)
            return Counts(units, np.array([ground.pixel(window) for window in windows]), unmapped)

    def draw(self, counts: Counts, points: NDArray[np.int64], seed: int) -> Draw:
        """Draw pixels of every stratum at random, without replacement and all alike in probability.

        Parameters
        ----------
        points:
            (H,) how many of each stratum, at most as many as it has.
        """
        numbers = choose(counts.units.sum(axis=0), points, seed)
        first = np.vstack([np.zeros_like(counts.units[:1]), counts.units.cumsum(axis=0)])
        total, area = counts.units.sum(axis=0), counts.area
        parts: list[tuple[NDArray[np.int64], ...]] = []
        pixel: list[NDArray[np.float64]] = []
        with _open(self.path) as raster:
            for number, window in enumerate(_windows(raster)):
                ends = [np.searchsorted(of, first[number : number + 2, h]) for h, of in enumerate(numbers)]
                if all(start == stop for start, stop in ends):
                    continue
                strata = self._look(raster, window)[1].ravel()
                for h, (start, stop) in enumerate(ends):
                    if start < stop:
                        at = np.flatnonzero(strata == h)[numbers[h][start:stop] - first[number, h]]
                        row, col = np.divmod(at, window.width)
                        parts.append((np.full(at.size, h), row + window.row_off, col + window.col_off))
                        pixel.append(np.full(at.size, counts.pixel[number] * total[h] / area[h]))
        stratum, row, col = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(stratum, kind="stable")
        return Draw(stratum[order], row[order], col[order], np.concatenate(pixel)[order])

    def _look(self, raster: DatasetReader, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes and strata (h, w) of a window; NO_LABEL where there is none."""
        if not (self.around and self.buffer):
            codes = raster.read(1, window=window)
            return codes, self._of_code[0][codes]
        reach = self.buffer
        top, left = max(0, window.row_off - reach), max(0, window.col_off - reach)
        bottom = min(raster.height, window.row_off + window.height + reach)
        right = min(raster.width, window.col_off + window.width + reach)
        wide = raster.read(1, window=Window(left, top, right - left, bottom - top))
        change = np.isin(wide, self.around)
        near = np.zeros(wide.shape, bool)
        if change.any():
            near = ndimage.distance_transform_edt(~change) <= reach
        y, x = (
            slice(window.row_off - top, window.row_off - top + window.height),
            slice(window.col_off - left, window.col_off - left + window.width),
        )
        codes, buffered = wide[y, x], (near & ~change)[y, x]
        return codes, np.where(buffered, self._of_code[1][codes], self._of_code[0][codes])


class Ground:
    """What the pixels of a raster in a projected CRS cover on the ground, whatever the projection does to areas."""

    def __init__(self, raster: DatasetReader) -> None:
        self._transform = raster.transform
        crs = CRS.from_user_input(raster.crs)
        self._to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        geod = crs.get_geod()
        assert geod is not None, "a projected CRS has an ellipsoid"
        self._geod = geod

    def pixel(self, window: Window) -> float:
        """Mean area of a window's pixels, m²: the geodesic area of its outline over their number."""
        side = np.linspace(0, 1, 9)[:-1]
        none, full = np.zeros(8), np.ones(8)
        col = window.col_off + window.width * np.concatenate([side, full, 1 - side, none])
        row = window.row_off + window.height * np.concatenate([none, side, full, 1 - side])
        area, _ = self._geod.polygon_area_perimeter(*self._to_degrees.transform(*(self._transform @ (col, row))))
        return abs(area) / (window.width * window.height)


def choose(units: NDArray[np.int64], points: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Which units of every stratum are drawn: ascending numbers below ``units[h]``, ``points[h]`` of them."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(int(of), int(n), replace=False)) for of, n in zip(units, points, strict=True)]


def _windows(raster: DatasetReader) -> Iterator[Window]:
    for row in range(0, raster.height, WINDOW):
        for col in range(0, raster.width, WINDOW):
            yield Window(col, row, min(WINDOW, raster.width - col), min(WINDOW, raster.height - row))


def _open(path: Path) -> DatasetReader:
    try:
        return rasterio.open(path)
    except rasterio.RasterioIOError as error:
        raise StoreError(f"the map {path} cannot be read: {error}", "map it again") from error
