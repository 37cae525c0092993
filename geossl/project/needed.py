"""What must stay: whatever champion, previous, anchor, challenger, published maps, alerts, samples or releases rest on.

Found from the files themselves, so that nothing has to be remembered: the registry's aliases, the records of the
stages, the cards of models and encoders, and the lineage of everything that was published.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geossl.areas.release import FILE as RELEASE
from geossl.areas.sample import FILE as SAMPLE
from geossl.errors import StoreError
from geossl.files import read_json
from geossl.project.project import Project
from geossl.project.trainings import Trainings


@dataclass
class Needed:
    """What must stay."""

    models: set[str] = field(default_factory=set)
    """Ids."""
    encoders: set[str] = field(default_factory=set)
    """Ids."""
    snapshots: set[str] = field(default_factory=set)
    """Of the cube."""
    tags: set[str] = field(default_factory=set)
    """Of the cube, that something asks for by name."""
    folders: set[Path] = field(default_factory=set)
    """Other folders of the store."""

    def add(self, content: Any) -> None:
        """What a file speaks of."""
        self.models |= set(_values(content, "task", "model", "geossl:task"))
        self.encoders |= set(_values(content, "encoder", "geossl:encoder"))
        self.snapshots |= set(_values(content, "snapshot", "geossl:snapshot"))


def needed(project: Project) -> Needed:
    """What must stay now.

    Raises
    ------
    StoreError
        A file is damaged, so nothing is known of what it needs.
    """
    found = Needed()
    _learnt(project, found)
    _published(project, found)
    for path in _cards(project, found):
        card = _read(path)
        found.snapshots |= set(_values(card, "snapshot"))
        if path.parents[1] != project.encoders:  # what an encoder started from is not needed to use it
            found.encoders |= set(_values(card, "encoder"))
    return found


def _learnt(project: Project, found: Needed) -> None:
    """What the registry names, and what the stages have left off with."""
    registry = project.registry
    for task in registry.tasks():
        versions = registry.versions(task)
        named = set(registry.aliases(task).values())
        keep = project.settings.keep.models
        newest = versions[-keep:] if keep else []
        found.models |= {Path(each.folder).name for each in versions if each.number in named or each in newest}
    for record in project.state.records():
        found.add(record.result)
    if (trained := project.state.get("pretrain")) is not None:
        found.tags.add(f"pretrain-{trained.key}")
    if (embedded := project.state.get("embed")) is not None:
        found.tags.add(f"embed-{embedded.key}")
        found.folders.add(project.embeddings / str(embedded.result["folder"]))
    if (training := Trainings(project.store).cut_off(trained)) is not None:
        found.snapshots.add(training.snapshot)
    found.tags |= {f"pretrain-{path.name.removeprefix('unfinished-')}" for path in unfinished(project)}
    init = project.settings.pretrain.init
    if init is not None and init.encoder is not None:
        found.encoders.add(Path(init.encoder).name)


def unfinished(project: Project) -> list[Path]:
    """Folders of trainings that did not come to an end, the one that was written to last at the end."""
    return sorted(project.encoders.glob("unfinished-*"), key=written)


def written(path: Path) -> float:
    """When something in a file or folder was last written, in seconds since 1970; of one that is not there: now, since
    somebody has just moved it to its place or away."""
    try:
        times = [path.lstat().st_mtime]
    except FileNotFoundError:
        return time.time()
    if path.is_dir() and not path.is_symlink():
        for inside in path.rglob("*"):
            try:
                times.append(inside.lstat().st_mtime)
            except FileNotFoundError:  # just now
                continue
    return max(times)


def _published(project: Project, found: Needed) -> None:
    store = project.store
    for kind, root in (("map", project.maps), ("alerts", store / "alerts")):
        for path in root.glob("*/releases/*/*-lineage.json"):
            found.add(_read(path))
            found.tags.add(f"{kind}-{path.parents[2].name}-{path.parent.name}")
    # what the next release may be put together from
    for pattern in ("maps/*/tiles/*.json", "maps/*/refined/*.json", "maps/*/forest/*.json", "alerts/*/cover/*.json"):
        for path in store.glob(pattern):
            found.add(_read(path))
    for path in project.samples.glob(f"*/{SAMPLE}"):
        sample = _read(path)
        found.add({"snapshot": sample.get("snapshot")})
        found.tags |= {f"sample-{path.parent.name}", f"map-{sample.get('map')}-{sample.get('release')}"}
    for path in project.releases.glob(f"*/*/{RELEASE}"):
        release = _read(path)
        found.add({key: release[key] for key in ("model", "snapshot")})
        revision = int(release["revision"])
        found.tags |= {
            release["tag"] + ("" if revision == 1 else f"-r{revision}"),
            f"map-{release['task']}-{release['map']}",
        }
        for lineage in path.parent.glob("map/*-lineage.json"):
            found.add(_read(lineage))


def _cards(project: Project, found: Needed) -> Iterator[Path]:
    """Cards of the models, then of the encoders, that must stay."""
    for path in project.tasks.glob("*/*/card.json"):
        if path.parent.name in found.models:
            found.tags.add(f"task-{path.parents[1].name}-{path.parent.name}")
            yield path
    yield from project.releases.glob("*/*/model/card.json")
    for path in project.encoders.glob("*/card.json"):
        if path.parent.name in found.encoders:
            yield path


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; nothing where it was deleted just now."""
    try:
        return dict(read_json(path) or {})
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged: {error}", "restore or delete it; until then nothing is known of what it needs"
        ) from error


def _values(content: Any, *keys: str) -> Iterator[str]:
    """All strings that stand under some keys, however deep."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key in keys and isinstance(value, str):
                yield value
            else:
                yield from _values(value, *keys)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value, *keys)
