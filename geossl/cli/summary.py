"""The short tables at the end of a whole run: what it scored and how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from geossl.cube.plan import IngestPlan
from geossl.cube.space import human
from geossl.project.project import Project
from geossl.project.stages.ingest import set_aside_lines
from geossl.report.page import duration


def plan_lines(plan: IngestPlan) -> Iterator[str]:
    """What an ingest would do, in plain words."""
    yield f"{plan.scenes} scenes to read, on {plan.tiles} tiles; {plan.already} there already"
    yield from set_aside_lines(plan.set_aside)
    if not plan.tiles:
        return
    yield f"time: about {duration(plan.seconds)} with {plan.workers} worker(s), by {plan.sampled} tiles read just now"
    yield f"store: about {human(plan.stored)} more; at most {human(plan.scratch)} of it not yet committed at a time"
    if plan.free is not None:
        yield f"disk: {human(plan.free)} free, {human(plan.reserve)} of it kept in reserve"
    if plan.missing:
        yield f"the disk is too small by {human(plan.missing)}: ingest will stop before it touches the reserve"


def score_table(project: Project) -> Table:
    """One row a task: the model under test, the best of its floors, and the same network not pretrained."""
    table = Table(title="scores on held-out blocks (95 % interval)", title_justify="left")
    for heading in ("task", "metric", "model", "best floor", "same network from scratch"):
        table.add_column(heading)
    for name in project.settings.tasks:
        record = project.state.get(f"finetune.{name}")
        rows = [] if record is None else record.result.get("scores", [])
        rows = [row for row in rows if row["metric"] == rows[0]["metric"]]
        if not rows:
            continue
        ours, floors = rows[0], rows[1:]
        scratch = [row for row in floors if "scratch" in row["model"]]
        others = [row for row in floors if row not in scratch]
        best = max(others, key=lambda row: row["mean"], default=None)
        table.add_row(
            name,
            ours["metric"].replace("_", " "),
            f"{_score(ours)}\n{ours['model']}",
            f"{_score(best)}\n{best['model']}" if best else "–",
            _score(scratch[0]) if scratch else "–",
        )
    return table


def time_table(project: Project) -> Table:
    """One row a stage."""
    table = Table(title="time", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in _times(project):
        table.add_row(stage, f"{seconds:.0f}")
    return table


def _times(project: Project) -> Iterator[tuple[str, float]]:
    total = 0.0
    for record in project.state.records():
        total += record.seconds
        yield record.stage, record.seconds
    yield "in all", total


def _score(row: dict[str, Any]) -> str:
    interval = "" if row["low"] is None else f" ({row['low']:.2f} … {row['high']:.2f})"
    return f"{row['mean']:.3f}{interval}"
