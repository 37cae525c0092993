"""Checksums of Icechunk's own files, beside a cube in a local folder.

Chunks end in a CRC-32C; the files that say which chunk lies where do not. A bit that flips in one of them
mostly makes it unreadable, but about one time in ten a reader takes another chunk, or none, without an
error. So every commit leaves a *seal*: the CRC-32C of its snapshot file and of all manifests that this refers to.
:meth:`~geossl.cube.repository.Cube.view` compares them before anything is read. Object stores keep checksums of
what they hold, so that only folders need seals.

A writer that is killed right after its commit leaves none; the next writer then seals what it finds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import google_crc32c
import icechunk

from geossl.errors import StoreError
from geossl.files import write_text

_FOLDER = "seals"


def write_seal(folder: Path, repository: icechunk.Repository, snapshot: str) -> None:
    """Seal a snapshot as its files are now; one that is sealed stays as it is."""
    target = folder / _FOLDER / snapshot
    if target.exists():
        return
    known: dict[str, int | None] = {}
    parent = next((s.parent_id for s in repository.ancestry(snapshot_id=snapshot)), None)
    if parent is not None and (folder / _FOLDER / parent).exists():
        known = _read(folder, parent)
    manifests = [f"manifests/{info.id}" for info in repository.list_manifest_files(snapshot)]
    sums = {name: known[name] if name in known else _checksum(folder / name) for name in manifests}
    sums[f"snapshots/{snapshot}"] = _checksum(folder / "snapshots" / snapshot)
    content = json.dumps(sums)
    write_text(target, f"{google_crc32c.value(content.encode())}\n{content}")


def damaged_files(folder: Path, snapshot: str, sound: set[str]) -> list[str]:
    """Files of a snapshot that are not as they were when it was sealed, or gone; the snapshot's own comes first.

    Parameters
    ----------
    sound:
        Files that need not be looked at; those that are found well are added.
    """
    if not (folder / _FOLDER / snapshot).exists():
        return []
    try:
        sums = _read(folder, snapshot)
    except StoreError:
        return [f"{_FOLDER}/{snapshot}"]
    damaged = []
    for name in sums.keys() - sound:
        if _checksum(folder / name) == sums[name]:
            sound.add(name)
        else:
            damaged.append(name)
    return sorted(damaged, reverse=True)


def drop_seal(folder: Path, snapshot: str) -> None:
    """Drop the seal of one snapshot."""
    (folder / _FOLDER / snapshot).unlink(missing_ok=True)


def drop_seals(folder: Path) -> None:
    """Drop the seals of snapshots that are gone."""
    if (folder / _FOLDER).is_dir():
        for path in (folder / _FOLDER).iterdir():
            if not (folder / "snapshots" / path.name).exists():
                path.unlink()


def _read(folder: Path, snapshot: str) -> dict[str, int | None]:
    path = folder / _FOLDER / snapshot
    checksum, _, content = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    if checksum != str(google_crc32c.value(content.encode())):
        raise StoreError(f"{path} is damaged: its checksum does not match", "delete this file")
    return dict(json.loads(content))


def _checksum(path: Path) -> int | None:
    """The CRC-32C of a file, None where it cannot be read. There are ten thousands, so no Python file objects."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            parts = list(iter(lambda: os.read(file, 2**20), b""))
        finally:
            os.close(file)
    except OSError:
        return None
    return google_crc32c.value(b"".join(parts))
