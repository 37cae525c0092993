"""Does a deviation look like the instrument or the processing, rather than the land?

The land changes here and there; a fault changes everything alike. So band means of all places are regressed on
what is expected of them: what a gain and an offset for each band explain is put down to the instrument. Haze is
an offset that fades with wavelength (Chavez 1988). Stripes and misplacement leave the means as they are, and are
looked for by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geossl.drift.baseline import LEAST_PLACES, Baseline, Expected
from geossl.drift.describe import Description

Fault = Literal["offset", "gain", "haze", "stripes", "misplaced"]

EXPLAINED = 0.8
"""Share of a deviation that a gain and an offset must explain to be called a fault."""

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
    """

    def __init__(self, baseline: Baseline, wavelengths: Sequence[float | None]) -> None:
        self.baseline = baseline
        known = [i for i, value in enumerate(wavelengths) if value is not None and value < 3]
        self._by_wavelength = sorted(known, key=lambda i: wavelengths[i] or 0)
        history = baseline.history
        self._stripes = _Usual.of(np.array([each.stripes.mean(axis=0) for each in history]))
        self._edges = _median_edges(history)
        self._shifts = _Usual.of(np.array([[np.hypot(*_shift(each, self._edges)[0])] for each in history]))
        fits = [_affine(each, model) for each, model in zip(history, baseline.expected_without, strict=True)]
        self._offsets = _Usual.of(np.array([offset for offset, _, _ in fits]))
        self._gains = _Usual.of(np.array([gain for _, gain, _ in fits]))

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
        if (beyond := self._stripes.beyond(stripes)).any():
            which = "columns" if beyond[0] else "rows"
            return "stripes", f"neighbouring {which} differ {stripes.max():.1f} times as much as pixels would make them"
        (down, right), sure = _shift(scene, self._edges)
        shift = np.hypot(down, right)
        if sure and shift >= LEAST_SHIFT and self._shifts.beyond(np.array([shift])).any():
            return "misplaced", f"lies {shift:.1f} px off ({down:+.1f} down, {right:+.1f} to the right)"
        if not unusual:
            return None, ""
        offset, gain, explained = _affine(scene, self.baseline.expected)
        if explained < EXPLAINED:
            return None, ""
        moved, scaled = self._offsets.beyond(offset), self._gains.beyond(gain)
        if not (moved.any() or scaled.any()):
            return None, ""
        short, long = self._by_wavelength[: len(self._by_wavelength) // 3], self._by_wavelength[-2:]
        if short and min(offset[short]) > 0 and np.mean(offset[short]) > 2 * max(np.mean(np.abs(offset[long])), 0.02):
            order = np.argsort(np.argsort(-offset[self._by_wavelength]))
            if np.corrcoef(order, np.arange(len(order)))[0, 1] > 0.6:
                return (
                    "haze",
                    f"brighter everywhere by {np.mean(offset[short]):.2f} spreads at short wavelengths, less at long ones",
                )
        if moved.sum() >= scaled.sum():
            return "offset", f"all places are off alike, by {_range(offset)} spreads"
        return "gain", f"all places are scaled alike, by {_range(gain)}"


@dataclass(frozen=True)
class _Usual:
    """What a history shows of some figures (F,)."""

    middle: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Usual:
        middle = np.median(values, axis=0)
        spread = 1.4826 * np.median(np.abs(values - middle), axis=0) + 0.01
        return cls(middle, spread, values.min(axis=0), values.max(axis=0))

    def beyond(self, value: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(F,) which are outside of what was ever seen, by several spreads."""
        outside = np.maximum(value - self.high, self.low - value)
        away = np.abs(value - self.middle)
        found: NDArray[np.bool_] = (outside > 0) & (away > _TIMES * self.spread)
        return found


def _affine(scene: Description, model: Expected) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(C,) offset and gain of every band against what is expected, and the share of the deviation they explain."""
    bands = scene.mean.shape[1]
    expected, known = model.at(scene.time, scene.place)
    if known.sum() < 8:
        return np.zeros(bands), np.ones(bands), 0.0
    x, y = expected[:, :bands], scene.mean[known].astype(np.float64)
    offset, gain = np.empty(bands), np.empty(bands)
    left = 0.0
    for band in range(bands):
        slope, start = _line(x[:, band], y[:, band])
        gain[band], offset[band] = slope, start
        left += float(((y[:, band] - slope * x[:, band] - start) ** 2).sum())
    whole = float(((y - x) ** 2).sum())
    return offset, gain, 1 - left / whole if whole else 0.0


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept by least squares, twice more without the worst fifth of the points."""
    keep = np.ones(len(x), bool)
    slope, start = 1.0, 0.0
    for _ in range(3):
        spread = x[keep].var()
        slope = float(np.cov(x[keep], y[keep], bias=True)[0, 1] / spread) if spread > 1e-6 else 1.0
        start = float(y[keep].mean() - slope * x[keep].mean())
        away = np.abs(y - slope * x - start)
        keep = away <= np.quantile(away, 0.8)
    return slope, start


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


def _range(values: NDArray[np.float64]) -> str:
    return f"{values.min():.2f} … {values.max():.2f}"
