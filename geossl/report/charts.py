"""Training curves as SVG documents that follow the page's light or dark scheme."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.report.records import TrainingCurves

# Stands for the colour of text while matplotlib draws, then becomes currentColor.
_INK = "#010203"
_SCHEME = "<style>svg{color:#2b2f33}@media(prefers-color-scheme:dark){svg{color:#d9dde1}}</style>"
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
