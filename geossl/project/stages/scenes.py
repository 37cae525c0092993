"""`geossl scenes`: what is in the cube, and what was set aside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from geossl.cube.arrays import subgroup
from geossl.cube.hold import held_scenes
from geossl.cube.scenes import quarantined
from geossl.project.project import Project


@dataclass(frozen=True)
class SceneRow:
    """One scene in the cube."""

    id: str
    time: str
    """UTC, to the minute."""
    tiles: int
    clear: float
    """Share of clear pixels, 0 … 1, mean over its tiles, also over their ground that it does not reach."""
    revision: int
    """How often it was processed again, held back or released."""
    held: str | None
    """Why nobody sees it (:mod:`geossl.cube.hold`); None where it is not held back."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class QuarantineRow:
    """One input that was set aside."""

    source: str
    reason: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def scene_rows(project: Project, snapshot: str | None = None) -> list[SceneRow]:
    """All scenes of a snapshot (id or tag; None: the newest), the newest last."""
    view = project.cube().view(snapshot)
    collection = view.collection(project.sensor.name)
    held = held_scenes(subgroup(view.root, collection.name))
    times: dict[str, np.datetime64] = {}
    clear: dict[str, list[float]] = {}
    revisions: dict[str, int] = {}
    collection.load("scene_id", "time", "clear_fraction", "revision")
    for tile_id in collection.tile_ids:
        for scene_id, time, share, revision in zip(
            collection.scene_ids(tile_id),
            collection.times(tile_id),
            collection.clear_fraction(tile_id).tolist(),
            collection.revisions(tile_id).tolist(),
            strict=True,
        ):
            times[scene_id] = time
            clear.setdefault(scene_id, []).append(share)
            revisions[scene_id] = max(revisions.get(scene_id, 0), revision)
    return [
        SceneRow(
            scene_id,
            np.datetime_as_string(times[scene_id], unit="m"),
            len(clear[scene_id]),
            float(np.mean(clear[scene_id])),
            revisions[scene_id],
            held.get(scene_id),
        )
        for scene_id in sorted(times, key=lambda scene_id: (times[scene_id], scene_id))
    ]


def quarantine_rows(project: Project, snapshot: str | None = None) -> list[QuarantineRow]:
    """Everything that was set aside, by source."""
    items = quarantined(project.cube().view(snapshot), project.sensor.name)
    return [QuarantineRow(item.source, item.reason, item.remedy) for item in items]


def scene_table(project: Project, snapshot: str | None = None) -> Table:
    """One row a scene: time, tiles, clear fraction, revision, and why it is held back where some are."""
    rows = scene_rows(project, snapshot)
    held = [row.id for row in rows if row.held is not None]
    caption = f"{len(held)} held back; geossl drift --release SCENE lets one be seen again" if held else None
    table = Table(title=f"{len(rows)} scenes in {project.sensor.name}", caption=caption)
    table.add_column("scene", overflow="fold")
    table.add_column("time (UTC)", no_wrap=True)
    for heading in ("tiles", "clear share of tiles", "revision"):
        table.add_column(heading, justify="right")
    if held:
        table.add_column("held back", overflow="fold")
    for row in rows:
        cells = [escape(row.id), row.time.replace("T", " "), str(row.tiles), f"{row.clear:.0%}", str(row.revision)]
        table.add_row(*cells, *([escape(row.held or "")] if held else []))
    return table


def quarantine_table(project: Project, snapshot: str | None = None) -> Table:
    """One row for each input that was set aside, with its reason."""
    rows = quarantine_rows(project, snapshot)
    table = Table("what", "why it was set aside", title=f"{len(rows)} set aside")
    for row in rows:
        table.add_row(escape(row.source), escape(row.reason + (f"\n→ {row.remedy}" if row.remedy else "")))
    return table
