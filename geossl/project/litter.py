"""What nothing needs any more, and how it goes: never what was needed or written lately, and never by halves."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geossl.cube.repository import Cube
from geossl.project.needed import Needed, unfinished, written
from geossl.project.observed import folder_bytes
from geossl.project.project import Project
from geossl.search.table import Embeddings

GOING = ".going-"
"""Begins the name of what is being deleted: nobody looks at it any more."""

_OWN_TAG = re.compile(r"^(pretrain-[0-9a-f]{16}|embed-[0-9a-f]{16}|(task|map|alerts|sample|release|needed)-.+)$")
"""Tags that stages make. Those of a person are never touched."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that nothing needs."""

    kind: str
    """In the plural."""
    name: str
    """Below the store, or of a tag."""
    path: Path | None
    """None: a tag."""
    cube: Cube | None = None
    """Whose tag it is."""

    def bytes(self) -> int:
        return 0 if self.path is None else size(self.path)

    def touched(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return 0 if self.path is None else written(self.path)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; none of what is gone."""
    if path.is_dir() and not path.is_symlink():
        return folder_bytes(path)
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def find(project: Project, needed: Needed) -> Iterator[Item]:
    """Everything in the store that nothing needs."""

    def item(kind: str, path: Path) -> Item:
        return Item(kind, path.relative_to(project.store).as_posix(), path)

    for path in _folders(project.tasks, "*/*"):
        if path.name not in needed.models:
            yield item("models", path)
    trainings = unfinished(project)
    for path in _folders(project.encoders, "*"):
        if path not in trainings and path.name not in needed.encoders:
            yield item("encoders", path)
    record = project.state.get("pretrain")
    current = None if record is None else str(record.result["encoder"])
    # the last training may go on, unless an encoder came since
    encoder = project.encoders / current if current is not None else None
    since = written(encoder) if encoder is not None and encoder.exists() else 0.0
    yield from (item("unfinished trainings", path) for path in trainings[:-1])
    yield from (item("unfinished trainings", path) for path in trainings[-1:] if written(path) < since)
    for path in _folders(project.embeddings, "*"):
        if path not in needed.folders and Embeddings.lie_in(path):  # Milvus Lite keeps a folder there too
            yield item("embeddings", path)
    for path in _folders(project.store / "drift", "*"):
        if path.name != current:
            yield item("descriptions of scenes", path)
    for path in _folders(project.store / "remapped", "*/*"):
        champion = project.registry.find(path.parent.name, "champion")
        if champion is None or Path(champion.folder).name != path.name:
            yield item("maps of comparisons", path)
    pictures = sorted(project.quicklooks.glob("*.png"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    yield from (item("quicklooks", path) for path in pictures[project.settings.keep.quicklooks :])
    yield from (item("leftovers of what was killed", path) for path in _leftovers(project.store))


def find_tags(project: Project, needed: Needed) -> Iterator[Item]:
    """Tags that nothing needs, of the project's cube, and of this project in the other cubes of its pool."""
    if (project.store / "cube").exists():
        cube = project.cube()
        for tag, snapshot in cube.tags().items():
            learnt = tag.startswith(("pretrain-", "needed-")) and snapshot in needed.snapshots
            if _OWN_TAG.match(tag) and tag not in needed.tags and not learnt:
                yield Item("tags", tag, None, cube)
    if not project.settings.pretrain.pool:
        return
    from geossl.project import pool  # it needs torch

    prefix = pool.guest_prefix(project.settings.name)
    for cube in pool.other_cubes(project):
        for tag in cube.tags():
            if tag.startswith(prefix) and tag.removeprefix(prefix) not in needed.tags:
                yield Item("tags", tag, None, cube)


def remove(project: Project, items: list[Item], still: Callable[[], Needed]) -> int:
    """Delete items; returns how many bytes that were.

    Parameters
    ----------
    still:
        Asked what is needed while nobody changes an alias: what came to be needed since stays.
    """
    if not items:  # as on most days: nobody waits, and the store is not walked once more
        return 0
    freed = 0
    with project.registry.still():
        needed = still()
        sure = {item.name for item in find(project, needed)}
        going = []
        for item in items:
            # what lies in another that goes is gone with it
            if item.path is not None and item.name in sure and os.path.lexists(item.path):
                freed += item.bytes()
                target = item.path
                if not target.name.startswith(GOING):
                    target = item.path.with_name(f"{GOING}{item.path.name}")
                    _delete(target)
                    item.path.rename(target)
                going.append(target)
    for target in going:
        _delete(target)
    wanted = {item.name for item in items if item.cube is not None}
    for item in find_tags(project, needed) if wanted else ():
        if item.cube is not None and item.name in wanted:
            item.cube.untag(item.name)
    return freed


def _folders(root: Path, pattern: str) -> list[Path]:
    """Folders of a pattern, but for those being written or deleted."""
    found = sorted(path for path in root.glob(pattern) if path.is_dir() and not path.is_symlink())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def _leftovers(store: Path) -> Iterator[Path]:
    """What processes left that were killed while they wrote or deleted; the cube looks after its own."""
    signs = (".partial-", GOING)
    for folder, folders, files in os.walk(store):
        yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(signs))
        own = {"cube"} if folder == str(store) else set()
        folders[:] = [name for name in folders if not name.startswith(signs) and name not in own]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
