"""Where backups of one store lie: a folder or a bucket.

::

    geossl-backup.json                which project's backups these are
    objects/ab/abcdef…                what a file holds, by the BLAKE2b hash of it; never changed
    backups/20261126T192300Z.json.gz  one backup: every file of the store, and its object

An object is there whole or not at all, and a backup is written when all of its objects are. So a kill at any moment
leaves the backups that were there; what a file holds is stored once, however many backups and files have it; and
every byte that comes back is checked against its name. The folder may be copied on by rsync at any time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from geossl.errors import StoreError
from geossl.imagery.buckets import BUCKETS, open_bucket
from geossl.progress import Progress

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FORMAT = 1

_ABOUT = "geossl-backup.json"
_WHOLE = 64 << 20
"""Bytes of a file that is read at once."""
_PART = 8 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of a backup."""

    object: str
    """Its object."""
    size: int
    mtime: int
    """Nanoseconds, as the file system had it."""


@dataclass(frozen=True)
class Backup:
    """A store as it was at one moment."""

    project: str
    time: str
    """ISO 8601, UTC."""
    version: str
    """Of the geossl that made it."""
    snapshot: str | None
    """Newest snapshot of the cube; None where there was none."""
    project_file: str | None
    """Text of ``geossl.yaml``, where the project has a file of that name."""
    files: dict[str, Stored] = field(default_factory=dict)
    """By path below the store."""
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links, by path: where they lead."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(stored.size for stored in self.files.values())

    def to_bytes(self) -> bytes:
        content = asdict(self) | {"files": {path: [f.object, f.size, f.mtime] for path, f in self.files.items()}}
        return gzip.compress(json.dumps({"format": FORMAT} | content).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        data = json.loads(gzip.decompress(content))
        data.pop("format")
        return cls(**data | {"files": {path: Stored(*said) for path, said in data["files"].items()}})


class Vault:
    """The backups at an address.

    Parameters
    ----------
    uri:
        A folder, or ``s3://bucket/prefix``, ``gs://…``, ``az://…``; credentials come from the environment.
    create:
        Whether to make it where there is none yet.

    Raises
    ------
    StoreError
        It cannot be reached, or there are no backups.
    """

    def __init__(self, uri: str, *, create: bool = False) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore

        self.uri = uri
        self.folder = None if uri.partition("://")[0] in BUCKETS and "://" in uri else Path(uri).absolute()
        self._store: ObjectStore
        self._prefix = ""
        if self.folder is None:
            self._store, prefix = open_bucket(uri)
            self._prefix = f"{prefix}/" if prefix else ""
        else:
            if create:
                self.folder.mkdir(parents=True, exist_ok=True)
            if not self.folder.is_dir():
                raise StoreError(f"there is no folder {self.folder}", "`geossl backup FOLDER` makes one")
            self._store = LocalStore(self.folder)
        try:
            self.about: dict[str, Any] | None = json.loads(self._get(_ABOUT))
        except FileNotFoundError:
            self.about = None
        except BaseError as error:
            raise StoreError(f"{uri} cannot be read: {error}", "check the address and the credentials") from error
        if self.about is None and not create:
            raise StoreError(f"{uri} holds no backup of geossl", "name the place that `geossl backup` was given")
        if self.about is not None and self.about["format"] > FORMAT:
            raise StoreError(f"the backups at {uri} were made by a newer geossl", "update geossl")

    def claim(self, project: str) -> None:
        """See that these are the backups of this project, or of none yet."""
        if self.about is None:
            if any(one["path"] != ".lock" for page in self._store.list(self._prefix or None) for one in page):
                raise StoreError(f"{self.uri} is not empty and holds no backups", "name another place")
            self.about = {"format": FORMAT, "project": project}
            self._put(_ABOUT, json.dumps(self.about).encode())
        if self.about["project"] != project:
            raise StoreError(
                f"{self.uri} holds backups of project {self.about['project']!r}, not of {project!r}",
                "name another place, one for each project",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One backup at a time in a folder; StoreError where another runs. Buckets need none: objects are shared."""
        if self.folder is None:
            yield
            return
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise StoreError(f"another backup to {self.uri} is running", "wait for its end") from None

    def names(self) -> list[str]:
        """All backups, oldest first."""
        paths = (one["path"] for page in self._store.list(f"{self._prefix}backups") for one in page)
        return sorted(path.rpartition("/")[2].removesuffix(".json.gz") for path in paths)

    def read(self, name: str) -> Backup:
        """A backup by its name."""
        try:
            return Backup.from_bytes(self._get(f"backups/{name}.json.gz"))
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none"
            raise StoreError(f"{self.uri} has no backup {name!r}", f"there are: {known}") from None

    def write(self, backup: Backup) -> str:
        """Write a backup whose objects are all there; returns its name."""
        if self.folder is not None:
            os.sync()  # not one object shall be less safe than what refers to it
        name = "".join(letter for letter in backup.time[:23] if letter not in ":-.") + "Z"
        self._put(f"backups/{name}.json.gz", backup.to_bytes())
        return name

    def objects(self) -> dict[str, int]:
        """Name and size of every object."""
        found = (one for page in self._store.list(f"{self._prefix}objects", chunk_size=1000) for one in page)
        return {one["path"].rpartition("/")[2]: one["size"] for one in found}

    def keep(self, path: Path, there: dict[str, int]) -> tuple[str, int]:
        """Store what a file holds now, unless that is ``there``; its object and its size.

        Raises
        ------
        FileNotFoundError
            It went.
        """
        if path.stat().st_size <= _WHOLE:
            content = path.read_bytes()
            return self.keep_bytes(content, there), len(content)
        name, size = _digest(path)
        if there.get(name) == size:
            return name, size
        self._store.put(self._path(_place(name)), path)
        if _digest(path) != (name, size):
            self._store.delete(self._path(_place(name)))
            raise StoreError(f"{path} changed while it was copied", "back up again when nothing writes to it")
        there[name] = size
        return name, size

    def keep_bytes(self, content: bytes, there: dict[str, int]) -> str:
        """Store bytes, unless they are there; their object."""
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        if there.get(name) != len(content):
            self._put(_place(name), content)
            there[name] = len(content)
        return name

    def fetch(self, stored: Stored, path: Path) -> None:
        """Write a file as it was, in one move; one that is there already, of the same content, stays.

        Raises
        ------
        StoreError
            Its object is gone or damaged.
        """
        if path.is_file() and path.stat().st_size == stored.size and _digest(path)[0] == stored.object:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{path.name}")
        digest = hashlib.blake2b(digest_size=16)
        with partial.open("wb") as file:
            for part in self._parts(stored.object):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != stored.object:
            partial.unlink()
            raise StoreError(f"object {stored.object} of {self.uri} is damaged", "restore an older backup: --at")
        os.utime(partial, ns=(stored.mtime, stored.mtime))
        partial.replace(path)

    def damaged(self, backup: Backup, progress: Progress) -> dict[str, str]:
        """Read all objects of a backup; path → what is wrong. A damaged object is deleted, so that it is stored anew."""
        wrong: dict[str, str] = {}
        checked: dict[str, str] = {}
        for number, (path, stored) in enumerate(backup.files.items(), 1):
            progress("files", number, len(backup.files))
            if stored.object not in checked:
                checked[stored.object] = self._objection(stored.object)
            if checked[stored.object]:
                wrong[path] = checked[stored.object]
        return wrong

    def prune(self, keep: int) -> None:
        """Delete all backups but the newest, and what only those had."""
        names = self.names()
        if old := names[:-keep]:
            self._store.delete([self._path(f"backups/{name}.json.gz") for name in old])
        used = {stored.object for name in names[-keep:] for stored in self.read(name).files.values()}
        if unused := [name for name in self.objects() if name not in used]:
            self._store.delete([self._path(_place(name)) for name in unused])
        if self.folder is not None:
            for left in self.folder.glob("objects/*/*#*"):  # of writers that were killed
                left.unlink()

    def _objection(self, name: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        try:
            for part in self._parts(name):
                digest.update(part)
        except StoreError as error:
            return error.what
        if digest.hexdigest() == name:
            return ""
        self._store.delete(self._path(_place(name)))
        return f"object {name} was damaged, and is deleted"

    def _parts(self, name: str) -> Iterator[bytes]:
        try:
            stream = self._store.get(self._path(_place(name))).stream(min_chunk_size=_PART)
        except FileNotFoundError:
            raise StoreError(f"object {name} of {self.uri} is gone", "restore another backup: --at") from None
        yield from map(bytes, stream)

    def _path(self, name: str) -> str:
        return self._prefix + name

    def _get(self, name: str) -> bytes:
        return bytes(self._store.get(self._path(name)).bytes())

    def _put(self, name: str, content: bytes) -> None:
        self._store.put(self._path(name), content)


def _place(name: str) -> str:
    return f"objects/{name[:2]}/{name}"


def _digest(path: Path) -> tuple[str, int]:
    """The hash of a large file, and its size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return digest.hexdigest(), file.tell()
