"""`geossl backup` and `geossl restore`: a project's store copied elsewhere, and brought back from there."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from geossl import __version__
from geossl.cube.repository import Cube
from geossl.errors import SettingsError, StoreError
from geossl.files import write_text
from geossl.progress import Progress
from geossl.project.backup.take import take
from geossl.project.backup.vault import Backup, Stored, Vault
from geossl.project.load import FILE_NAME
from geossl.project.project import Project, StageResult

_log = logging.getLogger(__name__)


def backup(project: Project, place: str, progress: Progress, *, keep: int = 7) -> StageResult:
    """Copy the store as it is now; what is there already is not copied again.

    Parameters
    ----------
    place:
        A folder outside the store, or a bucket's address.
    keep:
        So many backups stay, the newest.

    Raises
    ------
    StoreError
        There is no store, or the place cannot hold backups of this project.
    """
    if not project.store.is_dir():
        raise StoreError(f"there is no store {project.store}", "run `geossl ingest` first")
    vault = Vault(place, create=True)
    if vault.folder is not None and vault.folder.resolve().is_relative_to(project.store.resolve()):
        raise StoreError(f"{place} lies within the store {project.store}", "name a folder elsewhere, on another disk")
    with vault.lock():
        vault.claim(project.settings.name)
        names = vault.names()
        taken = take(project.store, vault, vault.read(names[-1]) if names else None, progress)
        file = project.root / FILE_NAME
        made = Backup(
            project.settings.name,
            dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            __version__,
            taken.snapshot,
            file.read_text(encoding="utf-8") if file.is_file() else None,
            taken.files,
            taken.links,
        )
        name = vault.write(made)
        vault.prune(keep)
    lines = [
        f"backup {name} in {place}: {len(made.files)} files, {made.size / 1e6:,.0f} MB",
        f"of these {taken.bytes / 1e6:,.0f} MB were new",
    ]
    return StageResult("backup", lines)


def verify(place: str, progress: Progress) -> StageResult:
    """Read all of the newest backup again and compare checksums."""
    vault = Vault(place)
    name = _named(vault, None)
    kept = vault.read(name)
    damaged = vault.damaged(kept, progress)
    lines = [f"{path}: {wrong}" for path, wrong in damaged.items()]
    if not damaged:
        return StageResult("backup", [f"backup {name}: all {len(kept.files)} files are as they were copied"])
    lines.append("back up again: what the store still has is then stored anew")
    return StageResult("backup", lines, set_aside=len(damaged))


def restore(project_file: Path, place: str, progress: Progress, *, at: str | None = None) -> StageResult:
    """Bring the store back, and the project file where it is lost.

    It is built beside its place and moved there when it is whole and every checksum is right; what was
    interrupted goes on.

    Raises
    ------
    StoreError
        There is no such backup, a part of it is damaged, or a store is there already.
    """
    vault = Vault(place)
    name = _named(vault, at)
    kept = vault.read(name)
    lines = []
    path = project_file / FILE_NAME if project_file.is_dir() else project_file
    if not path.exists():
        if kept.project_file is None:
            raise SettingsError(f"there is no project file {path}, nor is one in the backup", "write it first")
        write_text(path, kept.project_file)
        lines.append(f"{path} was written as it was then")
    project = Project.load(path)
    if project.settings.name != kept.project:
        raise StoreError(f"{place} holds backups of {kept.project!r}, not of {project.settings.name!r}")
    if project.store.exists():
        raise StoreError(
            f"there already is a store {project.store}", "move it away first; a restore overwrites nothing"
        )
    partial = project.store.with_name(f"{project.store.name}.restoring")
    _fill(partial, vault, kept, progress)
    if "cube/repo" in kept.files:
        Cube.open(str(partial / "cube")).view()
    partial.replace(project.store)
    lines.append(
        f"{project.store} is as it was at {kept.time[:19]} UTC: {len(kept.files)} files, {kept.size / 1e6:,.0f} MB"
    )
    try:
        project.registry.rebuild()
    except Exception:  # the truth is there; what only shows it can wait
        _log.warning("MLflow's mirror could not be made: run `geossl registry rebuild`", exc_info=True)
    return StageResult("restore", lines)


def table(place: str) -> Table:
    """All backups at a place; their names say when they were made (UTC)."""
    vault = Vault(place)
    out = Table(title=f"{(vault.about or {})['project']}: {place}")
    for heading in ("backup", "files", "MB", "cube snapshot"):
        out.add_column(heading, no_wrap=True)
    for name in vault.names():
        kept = vault.read(name)
        out.add_row(name, str(len(kept.files)), f"{kept.size / 1e6:,.0f}", kept.snapshot or "–")
    return out


def _named(vault: Vault, at: str | None) -> str:
    names = vault.names()
    if not names:
        raise StoreError(f"{vault.uri} holds no backup: the first one was interrupted", "run `geossl backup` again")
    return names[-1] if at is None else at


def _fill(folder: Path, vault: Vault, kept: Backup, progress: Progress) -> None:
    """Make a folder hold exactly what a backup says."""
    wanted = set(kept.files) | set(kept.links)
    for path in list(folder.rglob("*")) if folder.exists() else []:  # of another backup that was begun
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    files: Sequence[tuple[str, Stored]] = list(kept.files.items())
    for number, (name, stored) in enumerate(files, 1):
        vault.fetch(stored, folder / name)
        progress("files", number, len(files))
    for name, target in kept.links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
