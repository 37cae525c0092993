"""`geossl cube …`: the history of a project's cube, its soundness and its size."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from geossl.cube.check import CheckReport
from geossl.cube.check import check as check_cube
from geossl.cube.history import CollectionDiff, Diff
from geossl.cube.ledger import export_ledger
from geossl.cube.migrate import migrate as migrate_cube
from geossl.cube.repair import repair
from geossl.cube.repository import Cube, LogEntry
from geossl.errors import SettingsError
from geossl.progress import Progress
from geossl.project.project import Project

_SHOWN = 20
"""Most ids that a line lists."""


def log_table(entries: Sequence[LogEntry]) -> Table:
    """One row a snapshot, newest first."""
    table = Table("snapshot", "time (UTC)", "what", "scenes", "tags", title=f"{len(entries)} snapshots")
    for entry in entries:
        scenes = ", ".join(f"{name} {count}" for name, count in entry.scenes.items())
        table.add_row(entry.snapshot, f"{entry.time:%Y-%m-%d %H:%M:%S}", entry.message, scenes, ", ".join(entry.tags))
    return table


def log_dict(entries: Sequence[LogEntry]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [
        {
            "snapshot": entry.snapshot,
            "time": entry.time.isoformat(),
            "message": entry.message,
            "scenes": dict(entry.scenes),
            "tags": list(entry.tags),
        }
        for entry in entries
    ]


def diff_lines(found: Diff) -> Iterator[str]:
    """What changed, in plain words."""
    yield f"from {found.before} to {found.after}"
    for name, change in found.collections.items():
        yield f"{name}:"
        yield from (f"  {line}" for line in _collection_lines(change))
    for name, what in found.labels.items():
        yield f"labels {name}: {what}"
    if not found.collections and not found.labels:
        yield "nothing changed"


def _collection_lines(change: CollectionDiff) -> Iterator[str]:
    replaced = [f"{scene} (revision {old} → {new})" for scene, (old, new) in change.replaced.items()]
    for what, items in (
        ("added", change.added),
        ("replaced", replaced),
        ("removed", change.removed),
        ("tiles touched", change.tiles),
        ("set aside", change.quarantined),
        ("no longer set aside", change.released),
    ):
        if items:
            more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
            yield f"{what} ({len(items)}): {', '.join(items[:_SHOWN])}{more}"
    if change.statistics:
        yield "other band statistics"


def damage_table(report: CheckReport) -> Table:
    """One row for each thing that is damaged, and what to do about it."""
    table = Table("where", "scene", "what is wrong", "what to do", title=f"{len(report.damage)} damaged")
    for item in report.damage:
        table.add_row(item.where, item.scene or "", item.problem, item.remedy)
    return table


def check(
    project: Project, snapshot: str | None, progress: Progress, *, mend: bool = False
) -> tuple[CheckReport, list[str]]:
    """Check the project's cube and, if asked to, let the next stages read again what is damaged.

    Returns what was found, and what was done about it.
    """
    if mend and snapshot is not None:
        raise SettingsError("only the newest snapshot can be repaired", "leave out --snapshot")
    cube = Cube.open_unchecked(project.cube_uri)
    report = check_cube(cube, snapshot, progress)
    done = repair(cube, report) if mend else []
    if done:
        # whatever was made from what is read again is made again
        for record in project.state.folder.glob("[!.]*.json"):
            if record.stem in ("ingest", "stats") or record.stem.startswith("labels."):
                record.unlink()
    return report, done


def migrate(project: Project, progress: Progress) -> list[str]:
    """Bring the cube to this geossl's format; says what was done."""
    return migrate_cube(project.cube(), progress)


def export(project: Project, path: Path, snapshot: str | None) -> int:
    """Write the scenes as stac-geoparquet; returns how many there are."""
    if path.suffix != ".parquet":
        raise SettingsError(f"the scenes are exported as stac-geoparquet, not as {path.name}", "name it *.parquet")
    return export_ledger(project.cube().view(snapshot), project.sensor.name, path)


def duration(text: str) -> dt.timedelta:
    """A time span written as ``90d``, ``12w`` or ``36h``."""
    units = {"h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit():
        raise SettingsError(f"{text!r} is no time span", "write it as 36h, 90d or 12w")
    return dt.timedelta(**{units[unit]: int(number)})
