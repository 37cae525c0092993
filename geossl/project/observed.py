"""How a store was at earlier looks: what no file of today can say.

``<store>/maintain/observed.json`` holds the bytes by kind of the last weeks, since when no scene has come, and since
when each map is behind its imagery. `geossl maintain` looks, once a day.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from geossl.cube.repository import LogEntry
from geossl.errors import GeosslError
from geossl.files import read_json, write_json
from geossl.project.project import Project

WEEKS = dt.timedelta(days=28)
"""What growth is told from."""


@dataclass
class Behind:
    """A map that does not show the newest imagery."""

    since: str
    """When that was first seen, ISO 8601, UTC."""
    published: str
    """When the map was published last."""


@dataclass
class Observed:
    """What was seen at earlier looks. Times are ISO 8601, UTC."""

    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Time → bytes by kind."""
    scenes: int = 0
    arrived: str | None = None
    """When the number of scenes became what it is, or earlier than that if it is not known exactly."""
    behind: dict[str, Behind] = field(default_factory=dict)

    def see(self, log: list[LogEntry], collection: str) -> None:
        """Take over from the cube's log how many scenes there are, and when they became so many, as far back as it goes."""
        count, since = 0, None
        for number, entry in enumerate(log):
            scenes = entry.scenes.get(collection, 0)
            if number == 0:
                count = scenes
            if scenes != count:
                break
            since = entry.time.isoformat(timespec="seconds")
        if count != self.scenes or self.arrived is None:
            self.scenes, self.arrived = count, since if count else None

    def growth(self, now: dt.datetime) -> dict[str, float]:
        """Bytes a day by kind, over the last weeks; nothing before there is a day to tell from."""
        times = [time for time in sorted(self.sizes) if dt.datetime.fromisoformat(time) > now - WEEKS]
        if len(times) < 2:
            return {}
        first, last = times[0], times[-1]
        days = (dt.datetime.fromisoformat(last) - dt.datetime.fromisoformat(first)).total_seconds() / 86400
        if days < 1:
            return {}
        before, after = self.sizes[first], self.sizes[last]
        return {kind: (after.get(kind, 0) - before.get(kind, 0)) / days for kind in {**before, **after}}


def read(project: Project) -> Observed:
    """What is known from earlier looks."""
    found: dict[str, Any] = read_json(_path(project)) or {}
    behind = {name: Behind(**entry) for name, entry in found.pop("behind", {}).items()}
    return Observed(**found, behind=behind)


def look(project: Project, now: dt.datetime, *, sizes: bool = False) -> Observed:
    """Look again, and note what is seen; ``sizes`` says whether bytes are counted too."""
    path = _path(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        found = read(project)
        stamp = now.isoformat(timespec="seconds")
        if sizes:
            young = {time: each for time, each in found.sizes.items() if dt.datetime.fromisoformat(time) > now - WEEKS}
            found.sizes = young | {stamp: store_bytes(project.store)}
        if (project.store / "cube").exists():
            found.see(project.cube().log(), project.sensor.name)
        now_behind = maps_behind(project)
        for name in [name for name in found.behind if name not in now_behind]:
            del found.behind[name]
        for name, published in now_behind.items():
            if name not in found.behind or found.behind[name].published != published:
                found.behind[name] = Behind(stamp, published)
        write_json(path, asdict(found))
    return found


def maps_behind(project: Project) -> dict[str, str]:
    """Tasks whose published map is not what `geossl map` would make now → when it was published."""
    found = {}
    for name in project.settings.tasks:
        record, champion = project.state.get(f"map.{name}"), project.registry.find(name, "champion")
        if record is None or champion is None:
            continue
        try:
            if project.map_key(name, Path(champion.folder).name) != record.key:
                found[name] = record.finished
        except GeosslError:  # images, a forest or labels are missing: its own stage says so
            found[name] = record.finished
    return found


def store_bytes(store: Path) -> dict[str, int]:
    """Bytes in the store by kind: the folder that they lie in."""
    found: dict[str, int] = {}
    with os.scandir(store) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found[entry.name] = folder_bytes(Path(entry.path))
    return dict(sorted(found.items()))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder. There may be a million."""
    total, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # deleted just now
            continue
    return total


def _path(project: Project) -> Path:
    return project.store / "maintain" / "observed.json"
