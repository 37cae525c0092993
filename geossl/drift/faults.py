"""Does a deviation look like the instrument or the processing, rather than the land?

The land changes here and there; a fault changes everything alike. So a deviation that one figure explains, the
same for all places and bands, is put down to the instrument: an offset, a gain, or the path radiance of haze, which
fades with the wavelength (Chavez 1988). Stripes and misplacement leave the means as they are, and are looked for by
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geossl.drift.baseline import LEAST_PLACES, Baseline
from geossl.drift.describe import Description

Fault = Literal["offset", "gain", "haze", "stripes", "misplaced"]

EXPLAINED = 0.7
"""Share of a deviation that one figure for the whole scene must explain to be called a fault."""

HAZE = (1.0, 2.0, 3.0, 4.0)
"""Powers of the wavelength with which path radiance falls: hazy … very clear air (Chavez 1988)."""

LEAST_SHIFT = 1.0
"""Pixels by which a scene must lie off before it is called misplaced."""

_TIMES = 6.0
"""How many of the history's own spreads something must be beyond what the history shows."""


@dataclass(frozen=True)
class Finding:
    """What is known of one scene."""

    scene: str
    time: np.datetime64
    distance: float
    threshold: float
    places: int
    fault: Fault | None
    why: str
    """In words; empty for a usual scene."""

    @property
    def unusual(self) -> bool:
        return self.distance > self.threshold


class Watch:
    """Looks at scenes with the history in mind.

    Parameters
    ----------
    wavelengths:
        (C,) centre wavelengths of the bands in µm; None where a band has none.
    mean, spread:
        (C,) physical values that normalised 0 stands for, and what normalised 1 is in them.
    """

    def __init__(
        self,
        baseline: Baseline,
        wavelengths: Sequence[float | None],
        mean: NDArray[np.floating],
        spread: NDArray[np.floating],
    ) -> None:
        self.baseline = baseline
        self._wavelengths = np.array([value or np.nan for value in wavelengths])
        self._mean, self._spread = np.asarray(mean, np.float64), np.asarray(spread, np.float64)
        history = baseline.history
        self._stripes = _Usual.of(np.array([each.stripes.mean(axis=0) for each in history]))
        self._edges = _median_edges(history)
        self._shifts = _Usual.of(np.array([[np.hypot(*_shift(each, self._edges)[0])] for each in history]))

    def look(self, scene: Description) -> Finding | None:
        """Judge a scene; None where it shows too little clear ground."""
        if np.isin(scene.place, self.baseline.expected.place).sum() < LEAST_PLACES:
            return None
        found = self.baseline.distance(scene)
        fault, why = self._fault(scene, unusual=found.value > self.baseline.threshold)
        if not why and found.value > self.baseline.threshold:
            why = f"distance {found.value:.1f}, usually below {self.baseline.threshold:.1f}: the land looks different"
        return Finding(scene.scene, scene.time, found.value, self.baseline.threshold, found.places, fault, why)

    def _fault(self, scene: Description, *, unusual: bool) -> tuple[Fault | None, str]:
        stripes = scene.stripes.mean(axis=0) if len(scene) else np.ones(2)
        if (beyond := self._stripes.above(stripes)).any():
            which = "columns" if beyond[0] else "rows"
            return "stripes", f"neighbouring {which} differ {stripes.max():.1f} times as much as pixels would make them"
        (down, right), sure = _shift(scene, self._edges)
        shift = np.hypot(down, right)
        if sure and shift >= LEAST_SHIFT and self._shifts.above(np.array([shift])).any():
            return "misplaced", f"lies {shift:.1f} px off ({down:+.1f} down, {right:+.1f} to the right)"
        return self._radiometric(scene) if unusual else (None, "")

    def _radiometric(self, scene: Description) -> tuple[Fault | None, str]:
        """What one figure for the whole scene explains of its deviation, if that is nearly all."""
        bands = scene.mean.shape[1]
        expected, known = self.baseline.expected.at(scene.time, scene.place)
        x, off = expected[:, :bands], scene.mean[known].astype(np.float64) - expected[:, :bands]
        usual = self._mean + x * self._spread
        shapes: dict[Fault, list[NDArray[np.float64]]] = {
            "offset": [np.broadcast_to(1 / self._spread, off.shape)],
            "gain": [usual / self._spread],
        }
        if np.isfinite(self._wavelengths).sum() >= 3:
            path = [np.nan_to_num((0.5 / self._wavelengths) ** power) for power in HAZE]
            shapes["haze"] = [each * (1 - usual) / self._spread for each in path]
        figures = {
            fault: max((_explained(shape, off) for shape in found), key=lambda figure: figure[1])
            for fault, found in shapes.items()
        }
        fault = max(figures, key=lambda name: figures[name][1])
        size, share = figures[fault]
        if share < EXPLAINED or (fault == "haze" and size < 0):
            return None, ""
        words = {
            "offset": f"all bands and places are off by {size:+.3g}",
            "gain": f"all bands and places are {1 + size:.3g} times what is usual",
            "haze": f"brighter everywhere, by {size:.3g} at 0.5 µm and less at longer wavelengths",
        }
        return fault, f"{words[fault]}, which explains {share:.0%} of the deviation"


@dataclass(frozen=True)
class _Usual:
    """What a history shows of some figures (F,)."""

    middle: NDArray[np.float64]
    spread: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Usual:
        middle = np.median(values, axis=0)
        spread = 1.4826 * np.median(np.abs(values - middle), axis=0) + 0.01
        return cls(middle, spread, values.max(axis=0))

    def above(self, value: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(F,) which are higher than was ever seen, by a quarter and by several spreads."""
        found: NDArray[np.bool_] = (value > 1.25 * self.high) & (value - self.middle > _TIMES * self.spread)
        return found


def _explained(shape: NDArray[np.float64], off: NDArray[np.float64]) -> tuple[float, float]:
    """The multiple of a shape (n, C) that is nearest to a deviation by least squares, and the share that it explains.

    Twice more without the fifth of the places that it fits worst: land may change under a fault as well.
    """
    keep = np.ones(len(off), bool)
    size = 0.0
    for _ in range(3):
        size = float((shape[keep] * off[keep]).sum() / max((shape[keep] ** 2).sum(), 1e-12))
        away = ((off - size * shape) ** 2).sum(axis=1)
        keep = away <= np.quantile(away, 0.8)
    whole = float((off[keep] ** 2).sum())
    return size, 1 - float(away[keep].sum()) / whole if whole else 0.0


def _median_edges(history: Sequence[Description]) -> dict[int, NDArray[np.float32]]:
    """Place → where it is steep, in the median of the history."""
    found: dict[int, list[NDArray[np.uint8]]] = {}
    for scene in history:
        for place, edges in zip(scene.place.tolist(), scene.edges, strict=True):
            found.setdefault(place, []).append(edges)
    return {place: np.median(stack, axis=0).astype(np.float32) for place, stack in found.items() if len(stack) >= 3}


def _shift(scene: Description, usual: dict[int, NDArray[np.float32]]) -> tuple[tuple[float, float], bool]:
    """Rows and columns by which a scene lies off (phase correlation of all places together), and whether that is sure.

    The cross-power spectra of all places are added up before the peak is sought (Kuglin & Hines 1975), since all
    are off alike and one place alone may have no edges.
    """
    total: NDArray[np.complex128] | None = None
    for place, edges in zip(scene.place.tolist(), scene.edges, strict=True):
        if place not in usual:
            continue
        window = np.outer(np.hanning(len(edges)), np.hanning(len(edges)))
        here, there = (
            np.fft.fft2(window * (plane - plane.mean())) for plane in (edges.astype(np.float64), usual[place])
        )
        cross = here * there.conj()
        cross /= np.maximum(np.abs(cross), 1e-9)
        total = cross if total is None else total + cross
    if total is None:
        return (0.0, 0.0), False
    peaks = np.fft.ifft2(total).real
    peaks = np.fft.fftshift(peaks)
    middle = len(peaks) // 2
    row, col = np.unravel_index(int(peaks.argmax()), peaks.shape)
    sure = bool(peaks.max() > 6 * peaks.std())
    return (_vertex(peaks[:, col], int(row)) - middle, _vertex(peaks[row], int(col)) - middle), sure


def _vertex(line: NDArray[np.float64], at: int) -> float:
    """The top of the parabola through a peak and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    before, top, after = line[at - 1 : at + 2]
    bend = before - 2 * top + after
    return at + 0.5 * (before - after) / bend if bend < 0 else float(at)
