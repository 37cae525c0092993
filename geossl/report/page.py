"""Fill the page's template: pictures become data URIs, numbers become rows, and nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from geossl.files import write_text
from geossl.report import charts, pictures
from geossl.report.records import ClassMap, Confusion, Outline, ReportData, Score
from geossl.report.verdict import beside_floors, metric_name, signed, verdict
from geossl.scores import ERRORS

_THUMBNAIL, _LARGE = 320, 960
"""Longest side in pixels of small and large pictures."""


@dataclass(frozen=True)
class _Bar:
    """Where a score lies on its group's axis, in percent; None where it is undefined."""

    score: Score
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _ScoreGroup:
    """Scores that may be compared: one task, split, number of labels and metric."""

    task: str
    split: str
    labels: int
    metric: str
    axis: tuple[float, float]
    bars: list[_Bar]
    first: bool
    """Of the metric that its task is judged by, which comes first."""


def build_report(data: ReportData, path: Path) -> Path:
    """Write the report as one HTML file that needs nothing else, and return its path.

    The file is replaced in one step, so that a reader never sees half of it.
    """
    html = render(data)
    write_text(path, html)
    return path


def render(data: ReportData) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("geossl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thumbnail": lambda picture: pictures.photo_uri(pictures.shrink(picture, _THUMBNAIL)),
        "large": lambda picture: pictures.photo_uri(pictures.shrink(picture, _LARGE)),
        "footprint_map": lambda found: pictures.svg_uri(charts.footprints(found)),
        "chart": lambda training: pictures.svg_uri(charts.curves(training)),
        "percent": lambda share: f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else "< 1 %",
        "duration": duration,
        "signed": signed,
        "metric": metric_name,
        "between": between,
        "points": points,
        "hex": lambda rgb: "#{:02x}{:02x}{:02x}".format(*rgb),
        "map_uri": map_uri,
    }
    groups = list(score_groups(data.scores))
    return environment.get_template("report.html.j2").render(
        data=data,
        verdict=verdict(data.headline),
        floors=beside_floors(data.headline, data.scores),
        overlay=pictures.overlay,
        overlay_colours=pictures.OVERLAYS,
        groups=groups,
        other_metrics=list(dict.fromkeys(metric_name(group.metric) for group in groups if not group.first)),
        legend_rows=legend_rows,
        confusion_rows=confusion_rows,
        total=sum(stage.seconds for stage in data.times),
        longest=max((stage.seconds for stage in data.times), default=0.0),
    )


def map_uri(class_map: ClassMap) -> str:
    """The picture of a map."""
    if class_map.ground is None:
        return pictures.map_uri(pictures.shrink(class_map.codes, _LARGE), class_map.legend)
    shown = pictures.map_over(class_map.codes, class_map.legend, class_map.ground)
    return pictures.photo_uri(pictures.shrink(shown, _LARGE))


def score_groups(scores: Sequence[Score]) -> Iterator[_ScoreGroup]:
    """Comparable scores together in their first order of appearance, best first, undefined ones last."""
    keys = dict.fromkeys((s.task, s.split, s.labels, s.metric) for s in scores)
    first = {key[:3]: key[3] for key in reversed(keys)}
    for key in keys:
        group = [s for s in scores if (s.task, s.split, s.labels, s.metric) == key]
        ends = [v for s in group for v in (s.mean, s.low, s.high) if v is not None and math.isfinite(v)]
        low, high = min([0.0, *ends]), max([1.0, *ends])

        def place(value: float | None, low: float = low, high: float = high) -> float | None:
            if value is None or not math.isfinite(value):
                return None
            return 100 * (value - low) / (high - low)

        up = -1 if key[-1] not in ERRORS else 1
        ranked = sorted(group, key=lambda s: up * s.mean if math.isfinite(s.mean) else math.inf)
        yield _ScoreGroup(
            *key,
            (low, high),
            [_Bar(s, place(s.mean), place(s.low), place(s.high)) for s in ranked],
            first[key[:3]] == key[3],
        )


def legend_rows(class_map: ClassMap) -> list[dict[str, Any]]:
    """Name, colour, share and hectares of every class of a map."""
    area = np.count_nonzero(class_map.codes != 255) * (class_map.pixel_area or 0) / 10_000
    return [
        {
            "name": land_class.name,
            "color": land_class.color,
            "share": share,
            "hectares": None if class_map.pixel_area is None else share * area,
        }
        for land_class, share in zip(class_map.legend, pictures.shares(class_map.codes, class_map.legend), strict=True)
    ]


def confusion_rows(confusion: Confusion) -> list[dict[str, Any]]:
    """Every true class with the shares of its pixels that each class got, and their number."""
    matrix = np.asarray(confusion.matrix, float)
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, None]
    return [
        {"name": name, "count": int(total), "shares": row.tolist()}
        for name, total, row in zip(confusion.names, totals, shares, strict=True)
    ]


def between(found: Mapping[str, float | None] | None) -> str:
    """``0.41 (0.35 … 0.47)``, the mean alone without an interval, – where it is not defined."""
    if found is None:
        return "–"
    bounds = "" if found["low"] is None else f" ({found['low']:.2f} … {found['high']:.2f})"
    return f"{found['mean']:.2f}{bounds}"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def points(outline: Outline) -> str:
    """A ring as SVG's ``points``."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
