"""What a person wants to see of a run, as rows and Markdown with pictures in it: scenes, curves, scores, decisions, maps.

It is made for pages that others render, such as those of a Prefect server; they carry their pictures as ``data:`` URIs
and need no network. All of it is small, however large the project is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geossl.legend import Legend
from geossl.project.curves import read_curves
from geossl.project.project import Project
from geossl.project.quicklooks import quicklook_file
from geossl.project.stages.scenes import quarantine_rows, scene_rows
from geossl.report.charts import curves
from geossl.report.page import legend_rows, map_uri
from geossl.report.pictures import photo_uri, shrink, svg_uri

_ROWS = 50
"""Scenes in a table, the newest."""
_PICTURES = 6
_SIDE = 240
"""Pixels of the longer side of a scene's picture."""
_POINTS = 300
"""Points of a curve."""


def scene_table(project: Project) -> list[dict[str, Any]]:
    """The newest scenes, the newest first, and what was set aside."""
    rows = [
        {
            "scene": row.id,
            "time (UTC)": row.time.replace("T", " "),
            "clear": f"{row.clear:.0%}",
            "tiles": row.tiles,
            "": f"held back: {row.held}" if row.held else "",
        }
        for row in scene_rows(project)[::-1][:_ROWS]
    ]
    aside = [
        {"scene": row.source, "time (UTC)": "", "clear": "", "tiles": "", "": f"set aside: {row.reason}"}
        for row in quarantine_rows(project)[-_ROWS:]
    ]
    return rows + aside


def quicklooks(project: Project) -> str | None:
    """Pictures of the newest scenes; None where there are none."""
    shown: list[str] = []
    for row in scene_rows(project)[::-1]:
        if len(shown) == _PICTURES:
            break
        file = quicklook_file(project.quicklooks, row.id)
        if file.exists():
            with Image.open(file) as image:
                picture = shrink(np.asarray(image.convert("RGB")), _SIDE)
            held = f", held back: {row.held}" if row.held else ""
            shown.append(
                f"**{row.id}**, {row.time.replace('T', ' ')} UTC, {row.clear:.0%} clear{held}\n\n"
                f"![{row.id}]({photo_uri(picture)})"
            )
    return "\n\n".join(shown) or None


def running_training(project: Project) -> tuple[str, str] | None:
    """Loss and health of the training that runs: a picture's URI and the last figures; None before its first row."""
    folders = project.encoders.glob("unfinished-*/history.csv")
    newest = max(folders, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else training(newest.parent)


def training(folder: Path) -> tuple[str, str] | None:
    """Loss and health of an encoder that is trained or finished: a picture's URI and the last figures."""
    found = read_curves(folder, folder.name, most=_POINTS)
    if len(found.step) < 2:
        return None
    last = {title: values[np.isfinite(values)][-1] for title, values in found.series.items()}
    figures = ", ".join(f"{title} {value:.3g}" for title, value in last.items())
    return svg_uri(curves(found)), f"step {found.step[-1]}: {figures}"


def score_table(project: Project) -> list[dict[str, Any]]:
    """Every score on held-out blocks with its floors: what is reached without this pretraining."""
    from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER  # it needs torch, a look at the sources does not

    return [
        {
            "task": row["task"],
            "model": row["model"],
            "floor": "" if PRETRAINED in row["model"] or row["model"] == WITHOUT_ENCODER else "floor",
            "labels": row["labels"],
            "metric": row["metric"],
            "score": "–" if row["mean"] is None else f"{row['mean']:.3f}",
            "95 % interval": "" if row["low"] is None else f"{row['low']:.3f} … {row['high']:.3f}",
        }
        for row in project.scores()
    ]


def decisions(project: Project) -> str | None:
    """The last decision of the gate on each task, with its figures; None where nothing was decided."""
    lines: list[str] = []
    for name in project.settings.tasks:
        decided = project.registry.decisions(name)
        if not decided:
            continue
        entry, found = decided[-1], decided[-1]["decision"]
        said = "**is the champion now**" if found["passed"] else "**does not replace the champion**"
        lines += [
            f"## {name}: version {entry['challenger']} {said}",
            "",
            *(f"- {reason}" for reason in found["reasons"]),
            "",
            f"| {found['metric']}: challenger minus … | version | mean | 95 % interval | must be above |",
            "|---|---|---|---|---|",
            *(
                f"| {other} | {entry['compared_with'][other]} | {_signed(found[other]['mean'])} "
                f"| {_signed(found[other]['low'])} … {_signed(found[other]['high'])} | {-found['margin']:+.4f} |"
                for other in ("champion", "anchor")
            ),
            "",
            f"Paired over {found['blocks']} gate blocks, which serve nothing else; decided {entry['time'][:16]} UTC. "
            f"Versions now: {', '.join(f'{alias} {number}' for alias, number in project.registry.aliases(name).items())}.",
            "",
        ]
    return "\n".join(lines) or None


def map_preview(project: Project, name: str) -> str | None:
    """A task's published map with what its colours mean; None where there is none."""
    from geossl.project import pictures  # it needs torch, too

    record = project.state.get(f"map.{name}")
    if record is None:
        return None
    data, legend = project.task_data(name), Legend.from_dict(record.result["legend"])
    statistics = data.collection.statistics or project.scenes().statistics
    assert statistics is not None, "there is a map, so there are statistics"
    release = project.maps / str(record.result["release"])
    found = pictures.class_map(release / f"{name}.tif", name, legend, data, statistics)
    lines = [
        f"**{record.result['release']}**, {len(record.result['computed'])} tiles predicted anew",
        "",
        f"![map of {name}]({map_uri(found)})",
        "",
        "| | class | share | hectares |",
        "|---|---|---|---|",
    ]
    for land_class, row in zip(legend, legend_rows(found), strict=True):
        colour = photo_uri(np.full((14, 24, 3), land_class.rgb, np.uint8))
        hectares = "" if row["hectares"] is None else f"{row['hectares']:,.0f}"
        lines.append(f"| ![{row['color']}]({colour}) | {row['name']} | {row['share']:.1%} | {hectares} |")
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"
