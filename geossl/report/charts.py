"""Training curves and the map of footprints, as SVG documents that follow the page's light or dark scheme."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.report.records import FootprintMap, Ring, TrainingCurves

# Stands for the colour of text while matplotlib draws, then becomes currentColor.
_INK = "#010203"
_SCHEME = "<style>svg{color:#2b2f33}@media(prefers-color-scheme:dark){svg{color:#d9dde1}}</style>"
_MAP = 560
"""Longer side of the map of footprints, in units of its drawing."""

_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def curves(training: TrainingCurves) -> str:
    """One small panel a series over the training's steps, as an SVG document."""
    # Imported here: a page without curves needs no matplotlib, and importing it takes a second.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "geossl", "font.family": "sans-serif", "font.size": 9,
        "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _INK, "grid.alpha": 0.15,
    }  # fmt: skip
    count = len(training.series)
    columns = 4 if count % 4 == 0 else min(3, count)
    rows = math.ceil(count / columns)
    with mpl.rc_context(style):
        figure = Figure(figsize=(2.7 * columns, 2.0 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        for k, (name, values) in enumerate(training.series.items()):
            axes = figure.add_subplot(rows, columns, k + 1)
            colour = _LINES[k % len(_LINES)]
            step, value = _finite(training.step, values)
            smooth = _running_mean(value)
            if smooth is not value:
                axes.plot(step, value, color=colour, linewidth=0.6, alpha=0.35)
            axes.plot(step, smooth, color=colour, linewidth=1.6)
            axes.set_title(name, fontsize=9, loc="left")
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=8)
        buffer = io.StringIO()
        # without metadata the file is the same every time and names no address
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    head = svg.index(">") + 1
    return svg[:head] + _SCHEME + svg[head:]


def distances(
    history: Sequence[tuple[np.datetime64, float, bool]],
    scenes: Sequence[tuple[np.datetime64, float, bool]],
    threshold: float,
) -> bytes:
    """How far scenes are from what is usual, over time, as a PNG.

    Parameters
    ----------
    history, scenes:
        Time, distance, and whether it looks like a fault: of scenes that count as usual, and of those since.
    threshold:
        From which a scene is unusual.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    groups = (
        ("what the encoder was trained on", "o", "#8a9096", list(history)),
        ("since then", "o", _LINES[0], [row for row in scenes if not row[2]]),
        ("looks like a fault", "X", _LINES[1], [row for row in scenes if row[2]]),
    )
    for name, marker, colour, rows in groups:
        if rows:
            days, values, _ = zip(*rows, strict=True)
            axes.scatter(np.array(days, "datetime64[D]"), values, marker=marker, color=colour, s=28, label=name)
    axes.axhline(threshold, color="black", linewidth=1, linestyle="--")
    axes.annotate("unusual from here", (0.005, threshold), ("axes fraction", "data"), va="bottom", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("distance from what is usual\nat this time of the year", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def footprints(found: FootprintMap) -> str:
    """Outlines of scenes, tiles and area on a plain map, north up, as an SVG document.

    A degree of longitude is drawn as long as it is in the middle of the map.
    """
    rings = [*found.scenes, *found.tiles, *found.area]
    longitudes, latitudes = (np.array([point[axis] for ring in rings for point in ring]) for axis in (0, 1))
    west, east, south, north = longitudes.min(), longitudes.max(), latitudes.min(), latitudes.max()
    squeeze = math.cos(math.radians(float(south + north) / 2))
    scale = _MAP / max((east - west) * squeeze, north - south)
    width, height = float((east - west) * squeeze * scale), float((north - south) * scale)

    def line(ring: Ring, style: str) -> str:
        points = " ".join(f"{(x - west) * squeeze * scale:.1f},{(north - y) * scale:.1f}" for x, y in ring)
        return f'<polygon points="{points}" {style}/>'

    # so faint that a few dozen on top of each other still differ
    faint = max(0.02, 0.5 / max(1, len(found.scenes)))
    shapes = [
        line(ring, f'fill="{_LINES[0]}" fill-opacity="{faint:.3f}" stroke="{_LINES[0]}" stroke-opacity="0.6"')
        for ring in found.scenes
    ]
    shapes += [line(ring, 'fill="none" stroke="currentColor" stroke-opacity="0.35"') for ring in found.tiles]
    area = f'fill="none" stroke="{_LINES[1]}" stroke-width="2" stroke-dasharray="6 4"'
    shapes += [line(ring, area) for ring in found.area]
    corners = (
        (0, height + 16, "start", f"{south:.3f}°, {west:.3f}°"),
        (width, -6, "end", f"{north:.3f}°, {east:.3f}°"),
    )
    texts = [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{text}</text>'
        for x, y, anchor, text in corners
    ]
    # room for the corners' texts, which may be wider than the map
    margin = max(8.0, 150 - width)
    box = f"{-margin:.0f} -24 {width + 2 * margin:.0f} {height + 48:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="12">'
        f"{_SCHEME}{''.join(shapes)}{''.join(texts)}</svg>"
    )


def _finite(step: NDArray[np.number], value: NDArray[np.floating]) -> tuple[NDArray[np.number], NDArray[np.floating]]:
    """Only the steps at which the series was measured (others are NaN)."""
    value = np.asarray(value, float)
    known = np.isfinite(value)
    return np.asarray(step)[known], value[known]


def _running_mean(value: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean over a twentieth of the series, for series long enough to be noisy."""
    width = len(value) // 20
    if width < 3:
        return value
    padded = np.pad(value, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
