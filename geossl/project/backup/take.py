"""Take a backup while an ingest, a training or a map may run.

What comes back from a backup is a store as a kill might have left it, which every stage goes on from:

1. The small truth (stage records, registry, log of trainings, the note of ``geossl watch``) is read at one moment:
   again until no file of it changed meanwhile. All that it refers to is there by then.
2. The cube's ``repo`` file is read, which says what snapshots there are. So the cube is never older than what is
   said of it, and everything else in it never changes once it is there.
3. All other files are copied; outside the cube, what changed or came meanwhile is copied again. A note beside a
   raster that still changes is left out: a map then predicts that tile again.

Where files of the cube, an encoder or a model went meanwhile, since the store was cleaned, it begins again.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from geossl.cube.repository import Cube
from geossl.errors import StoreError
from geossl.progress import Progress
from geossl.project.backup.vault import Backup, Stored, Vault

_TRUTH = ("state/", "registry/", "trainings/")
"""Folders whose JSON files are read at one moment."""
_NOTE = "watch.npz"
_REPO = "cube/repo"

_LASTING = ("cube/", "encoders/", "tasks/")
"""Folders whose files go only when the store is cleaned."""
_FLEETING = re.compile(r"cube/overwritten/.*|.*/checkpoints/.*")
"""But for what was replaced, and for checkpoints of a training that ended."""

_DERIVED = ("registry/mlflow.db", "registry/artifacts", "embeddings/milvus.db")
"""What `geossl registry rebuild` and `geossl embed` make again."""
_PASSING = re.compile(r"(.*/)?(\.partial-.*|[^/]*\.lock|_milvus\.json)|cube/.*#\d+")
"""Files that are just being written, locks, and what says how far something derived is."""

_AT_ONCE = 8
_PASSES = 4
_TRIES = 3
_PATIENCE = 60.0
"""Seconds to wait for a moment at which nothing writes to the small truth."""

_Stamp = tuple[int, int, int, int]
"""Inode, size, and times of change."""


class _Cleaned(Exception):
    """A file that stays as long as something refers to it went while the backup was taken."""


@dataclass
class Taken:
    """What a backup came to."""

    files: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    """Of objects that were not there before."""
    snapshot: str | None = None
    """The newest of the cube; None where there is no cube."""


def take(store: Path, vault: Vault, before: Backup | None, progress: Progress) -> Taken:
    """Store every file of a store in a vault.

    Parameters
    ----------
    before:
        The last backup: a file of the same size and time as then is not read again.

    Raises
    ------
    StoreError
        The store is cleaned again and again, or its records change all the time.
    """
    before_it = vault.objects()
    there = dict(before_it)
    for _ in range(_TRIES):
        try:
            taken = _Copy(store, vault, before, there, progress).run()
        except _Cleaned:
            continue
        new = {stored.object: stored.size for stored in taken.files.values() if stored.object not in before_it}
        taken.bytes = sum(new.values())
        return taken
    raise StoreError(f"the store {store} is being cleaned", "back up again afterwards")


@dataclass
class _Copy:
    store: Path
    vault: Vault
    before: Backup | None
    there: dict[str, int]
    progress: Progress
    done: Taken = field(default_factory=Taken)
    stamps: dict[str, _Stamp] = field(default_factory=dict)
    """Path → what the file was like when it was copied."""

    def run(self) -> Taken:
        truth = self._truth()
        if (repo := self.store / _REPO).is_file():
            truth[_REPO] = self._repo(repo)
        for path, (content, mtime) in truth.items():
            self.done.files[path] = Stored(self.vault.keep_bytes(content, self.there), len(content), mtime)
        for number in range(_PASSES):
            listed = self._listed(truth, cube=number == 0)
            waiting = [path for path, stamp in listed if self.stamps.get(path) != stamp]
            if not waiting:
                return self.done
            self._copy(waiting)
        self._leave_out_notes({path for path, stamp in self._listed(truth) if self.stamps.get(path) != stamp})
        return self.done

    def _truth(self) -> dict[str, tuple[bytes, int]]:
        """Path → content and time of every file of the small truth, at one moment."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            before = dict(self._small())
            try:
                found = {path: ((self.store / path).read_bytes(), stamp[2]) for path, stamp in before.items()}
            except FileNotFoundError:
                continue
            if dict(self._small()) == before:
                return found
            time.sleep(0.05)
        raise StoreError(f"the records in {self.store} change all the time", "back up again later")

    def _repo(self, path: Path) -> tuple[bytes, int]:
        """Content and time of the file that says what snapshots there are, and so which is the newest."""
        while True:
            snapshot = self._snapshot()
            found = path.read_bytes(), path.stat().st_mtime_ns
            if self._snapshot() == snapshot:
                self.done.snapshot = snapshot
                return found

    def _snapshot(self) -> str:
        return Cube.open_unchecked(str(self.store / "cube")).snapshot()

    def _small(self) -> Iterator[tuple[str, _Stamp]]:
        listed = itertools.chain.from_iterable(_files(self.store, name.rstrip("/")) for name in _TRUTH)
        yield from ((path, stamp) for path, stamp in listed if _is_small(path))
        if (note := self.store / _NOTE).is_file():
            yield _NOTE, _stamp(note.stat())

    def _listed(self, truth: Collection[str], *, cube: bool = False) -> list[tuple[str, _Stamp]]:
        """All other files, as they are now; those that are passing, derived, or part of the small truth are not."""
        top = [entry.name for entry in os.scandir(self.store) if cube or entry.name != "cube"]
        listed = itertools.chain.from_iterable(_files(self.store, name) for name in top)
        return [
            (path, stamp)
            for path, stamp in listed
            if path not in truth
            and not _is_small(path)
            and path != _REPO
            and not path.startswith(_DERIVED)
            and not _PASSING.fullmatch(path)
        ]

    def _copy(self, paths: list[str]) -> None:
        done = itertools.count(1)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for part in itertools.batched(paths, 1000):
                for path, found in zip(part, pool.map(self._one, part), strict=True):
                    self.progress("files", next(done), len(paths))
                    if found is None:
                        self._gone(path)
                    elif isinstance(found, str):
                        self.done.links[path] = found
                    else:
                        self.done.files[path] = found

    def _one(self, path: str) -> Stored | str | None:
        """Store one file; where a link leads; None where it is gone."""
        here = self.store / path
        try:
            stamp = _stamp(here.lstat())
            if here.is_symlink():
                target = os.readlink(here)
                self.stamps[path] = stamp
                return target
            known = self.before.files.get(path) if self.before is not None else None
            if known is None or (known.size, known.mtime) != stamp[1:3] or self.there.get(known.object) != known.size:
                known = Stored(*self.vault.keep(here, self.there), stamp[2])
            self.stamps[path] = stamp
            return known
        except FileNotFoundError:
            return None

    def _gone(self, path: str) -> None:
        if path.startswith(_LASTING) and not _FLEETING.fullmatch(path):
            raise _Cleaned
        for known in (self.stamps, self.done.files, self.done.links):
            known.pop(path, None)

    def _leave_out_notes(self, changing: Collection[str]) -> None:
        for path in changing:
            stem = path.rpartition(".")[0]
            if f"{stem}.tif" in self.done.files:
                self.done.files.pop(f"{stem}.json", None)


def _is_small(path: str) -> bool:
    return path == _NOTE or (path.startswith(_TRUTH) and path.endswith(".json") and not _PASSING.fullmatch(path))


def _files(store: Path, below: str) -> Iterator[tuple[str, _Stamp]]:
    """A file, or every file and link below a folder of a store, by path, as it is now."""
    waiting = [below]
    while waiting:
        path = waiting.pop()
        try:
            said = (store / path).lstat()
            if stat.S_ISDIR(said.st_mode):
                waiting += [f"{path}/{name}" for name in os.listdir(store / path)]
            else:
                yield path, _stamp(said)
        except FileNotFoundError:  # it went just now
            continue


def _stamp(said: os.stat_result) -> _Stamp:
    return said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns
