"""`geossl scenes`: what is in the cube, and what was set aside."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from geossl.cube.scenes import quarantined
from geossl.project.project import Project


def scene_table(project: Project) -> Table:
    """One row a scene: time, tiles, clear fraction (mean over its tiles), revision."""
    collection = project.scenes()
    rows: dict[str, tuple[np.datetime64, list[float], int]] = {}
    for tile_id in collection.tile_ids:
        steps = zip(
            collection.scene_ids(tile_id),
            collection.times(tile_id),
            collection.clear_fraction(tile_id),
            collection.revisions(tile_id),
            strict=True,
        )
        for scene_id, time, clear, revision in steps:
            row = rows.setdefault(scene_id, (time, [], 0))
            row[1].append(float(clear))
            rows[scene_id] = (time, row[1], max(row[2], int(revision)))
    table = Table(title=f"{len(rows)} scenes in {collection.name}")
    for heading, justify in (("scene", "left"), ("time (UTC)", "left"), ("tiles", "right"), ("clear", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("revision", justify="right")
    for scene_id, (time, clear, revision) in sorted(rows.items(), key=lambda item: (item[1][0], item[0])):
        when = np.datetime_as_string(time, unit="m").replace("T", " ")
        table.add_row(scene_id, when, str(len(clear)), f"{np.mean(clear):.0%}", str(revision))
    return table


def quarantine_table(project: Project) -> Table:
    """One row for each input that was set aside, with its reason."""
    items = quarantined(project.cube().view(), project.sensor.name)
    table = Table("what", "why it was set aside", title=f"{len(items)} set aside")
    for item in items:
        table.add_row(item.source, item.reason + (f"\n→ {item.remedy}" if item.remedy else ""))
    return table
