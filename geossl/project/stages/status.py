"""`geossl status`: what exists, and since when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from geossl.cube.arrays import subgroup
from geossl.cube.hold import held_scenes
from geossl.cube.scenes import quarantined
from geossl.project.project import Project


@dataclass(frozen=True)
class Status:
    """A project at a glance."""

    project: str
    snapshot: str | None
    scenes: int
    last_scene: str | None
    """Time of the newest scene, UTC."""
    set_aside: int
    held: int
    """Scenes in the cube that nobody sees, since they look like a fault."""
    stages: list[dict[str, Any]]
    """Stage, when it finished (UTC) and how long it took, in order of time."""
    bytes: dict[str, int]
    """What lies in the store, by kind."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Table:
        table = Table("what", "value", title=f"project {self.project}")
        table.add_row("scenes", f"{self.scenes}, newest {self.last_scene or '–'}")
        table.add_row("set aside", f"{self.set_aside}" + (" (geossl scenes --quarantined)" if self.set_aside else ""))
        if self.held:
            table.add_row("held back", f"{self.held} (geossl scenes)")
        table.add_row("cube snapshot", self.snapshot or "none yet: geossl ingest")
        for kind, size in self.bytes.items():
            table.add_row(f"{kind} on disk", f"{size / 1e6:,.0f} MB")
        for stage in self.stages:
            table.add_row(stage["stage"], f"finished {stage['finished'][:19]} UTC in {stage['seconds']:.0f} s")
        return table


def status(project: Project) -> Status:
    """Look at the store; nothing is computed and nothing is written."""
    records = [{"stage": r.stage, "finished": r.finished, "seconds": r.seconds} for r in project.state.records()]
    sizes = {
        name: _size(project.store / name) for name in ("cube", "encoders", "tasks", "maps", "alerts", "embeddings")
    }
    snapshot, scenes, last, set_aside, held = None, 0, None, 0, 0
    if (project.store / "cube").exists():
        view = project.cube().view()
        snapshot, set_aside = view.snapshot, len(quarantined(view, project.sensor.name))
        if project.sensor.name in view.collections():
            collection = view.collection(project.sensor.name)
            held = len(held_scenes(subgroup(view.root, collection.name)))
            found = {
                scene: time
                for tile_id in collection.tile_ids
                for scene, time in zip(collection.scene_ids(tile_id), collection.times(tile_id), strict=True)
            }
            scenes = len(found)
            last = str(max(found.values()).astype("datetime64[s]")) if found else None
    return Status(project.settings.name, snapshot, scenes, last, set_aside, held, records, sizes)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
