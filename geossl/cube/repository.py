"""Open, lock, commit, tag: the repository that holds a cube.

A cube is one `Icechunk <https://icechunk.io>`_ repository of Zarr arrays. Readers pin a snapshot
(:meth:`Cube.view`) and never see half a change; writers replace the tip of ``main`` in one commit.

A local folder cannot order two commits by itself, so writers hold an operating-system lock from
plan to commit (:meth:`Cube.writing`); a killed writer's lock frees itself. Object stores order
commits by conditional writes, and whoever comes second plans again (:meth:`Cube.transact`).
"""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import icechunk
import zarr
from filelock import FileLock
from zarr.errors import ContainsGroupError

from geossl.cube import layout, leftovers, seal, tags
from geossl.cube.chunks import reason
from geossl.cube.collection import Collection, Labels
from geossl.cube.storage import local_folder, open_storage, require_ordered_commits
from geossl.errors import StoreError

BRANCH = "main"

LONGEST_INGEST = dt.timedelta(days=7)
"""Unreferenced chunks younger than this may belong to a running writer: cleaning keeps them, and a writer
that has run for longer refuses to commit."""

_ATTEMPTS = 20
"""How often a writer plans again after losing the race for a commit on an object store."""

# Icechunk warns of what the lock below already prevents; ICECHUNK_LOG still overrides it.
if "ICECHUNK_LOG" not in os.environ:
    icechunk.set_logs_filter("error")

# A thread of Icechunk that has just handed over what it read needs the interpreter once more to clean up.
# Before Python 3.14, one that asks for it while the interpreter ends is unwound in the middle of that, and the
# process dies of a segmentation fault with all its work done (PyO3/pyo3-async-runtimes issue 40). A moment of
# leaving the interpreter to them lets all of them finish.
if sys.version_info < (3, 14):
    atexit.register(time.sleep, 0.1)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit of the cube's history."""

    snapshot: str
    time: dt.datetime
    message: str
    scenes: Mapping[str, int]
    """Collection → number of its scenes; of commits by geossl 0.1 unknown, and empty."""
    tags: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """The cube as one snapshot shows it. Read-only; can be pickled to other processes."""

    snapshot: str
    session: icechunk.Session = field(repr=False)

    @property
    def root(self) -> zarr.Group:
        return zarr.open_group(self.session.store, mode="r")

    @property
    def id(self) -> str:
        """Random id of the cube: differs when it is deleted and made again at the same address."""
        return layout.cube_id(self.root)

    def collections(self) -> list[str]:
        """Names of all collections, sorted."""
        return layout.collection_names(self.root)

    def collection(self, name: str) -> Collection:
        """The collection of that name.

        Raises
        ------
        StoreError
            There is none; the message names those that exist.
        """
        if name not in (names := self.collections()):
            raise StoreError(
                f"the cube has no collection {name!r}",
                f"it holds {', '.join(names)}" if names else "ingest imagery first",
            )
        return Collection(self.session, name)

    def label_names(self) -> list[str]:
        """Names of all label layers, sorted."""
        return layout.label_names(self.root)

    def labels(self, name: str) -> Labels:
        """The label layer of that name; :class:`StoreError` names those that exist."""
        if name not in (names := self.label_names()):
            raise StoreError(
                f"the cube has no labels {name!r}", f"it holds {', '.join(names)}" if names else "add labels first"
            )
        return Labels(self.session, name)


@dataclass(frozen=True)
class Cube:
    """A cube at an address."""

    uri: str
    """A local path, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://account/container/prefix``."""
    repository: icechunk.Repository = field(repr=False)
    _sound: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """Files of the repository that were found as they were sealed."""

    @classmethod
    def open(cls, uri: str) -> Cube:
        """Open an existing cube.

        Raises
        ------
        StoreError
            Nothing is there, it is something else, it is damaged, or a newer geossl wrote it.
        """
        cube = cls.open_unchecked(uri)
        cube._check_format()
        return cube

    @classmethod
    def open_unchecked(cls, uri: str) -> Cube:
        """Open a cube of which nothing but its history was looked at; for whoever looks for damage."""
        storage = open_storage(uri)
        try:
            return cls(uri, icechunk.Repository.open(storage))
        except icechunk.RepositoryNotFoundError:
            raise StoreError(f"there is no cube at {uri}", "ingest imagery first, or check the address") from None
        except icechunk.IcechunkError as error:
            raise StoreError(
                f"the cube at {uri} cannot be opened: {reason(error)}",
                "where its file `repo` is damaged, the newest file in `overwritten` is the one before it",
            ) from error

    @classmethod
    def create(cls, uri: str) -> Cube:
        """Create an empty cube; :class:`StoreError` where there already is one."""
        with _lock(uri):
            if icechunk.Repository.exists(open_storage(uri)):
                raise StoreError(f"there already is a cube at {uri}", "open it, or choose another address")
            return cls._create(uri)

    @classmethod
    def open_or_create(cls, uri: str) -> Cube:
        """Open the cube, or create it where there is nothing yet."""
        with _lock(uri):
            storage = open_storage(uri)
            if not icechunk.Repository.exists(storage):
                # on a bucket another machine may be doing the same
                with contextlib.suppress(icechunk.ConflictError):
                    return cls._create(uri)
            cube = cls(uri, icechunk.Repository.open(storage))
            # killed between creating the repository and its first commit, or still about to make that
            if len(list(cube.repository.ancestry(branch=BRANCH))) == 1:
                cube._initialise()
        cube._check_format()
        return cube

    @classmethod
    def _create(cls, uri: str) -> Cube:
        # files may lie there already: of another machine at the same moment, or of one that was killed doing this
        cube = cls(uri, icechunk.Repository.create(open_storage(uri), check_clean_root=False))
        cube._initialise()
        return cube

    def _initialise(self) -> None:
        # another machine may do the same, before or after this session begins
        with contextlib.suppress(icechunk.ConflictError, ContainsGroupError):
            session = self.repository.writable_session(BRANCH)
            layout.create_root(session.store)
            self._commit(session, "create the cube")

    def _check_format(self) -> None:
        try:
            version = layout.format_version(self.view().root)
        except (FileNotFoundError, KeyError):
            raise StoreError(f"{self.uri} is an Icechunk repository, but not a cube of geossl") from None
        if version > layout.FORMAT:
            raise StoreError(
                f"the cube at {self.uri} has format {version}; this geossl knows formats up to {layout.FORMAT}",
                "update geossl",
            )

    def _commit(self, session: icechunk.Session, message: str) -> str:
        root = zarr.open_group(session.store, mode="r")
        snapshot = session.commit(message, metadata={"scenes": layout.scene_counts(root)})
        self._seal(snapshot)
        return snapshot

    def _seal(self, snapshot: str) -> None:
        if (folder := local_folder(self.uri)) is not None:
            seal.write_seal(folder, self.repository, snapshot)

    def seal_again(self, snapshot: str) -> None:
        """Replace the seal of a snapshot whose files were found sound by other means."""
        if (folder := local_folder(self.uri)) is not None:
            with _lock(self.uri):
                seal.drop_seal(folder, snapshot)
                self._seal(snapshot)

    def damaged_files(self, snapshot: str) -> list[str]:
        """Files of Icechunk's own that this snapshot rests on and that are damaged or gone, below the cube's folder.

        Object stores keep checksums of what they hold; there, none is ever named.
        """
        folder = local_folder(self.uri)
        return [] if folder is None else seal.damaged_files(folder, snapshot, self._sound)

    def snapshot(self) -> str:
        """Id of the newest snapshot."""
        return self.repository.lookup_branch(BRANCH)

    def resolve(self, snapshot: str | None) -> str:
        """The id of a snapshot by its id or tag; None: the newest."""
        if snapshot is None:
            return self.snapshot()
        return self.tags().get(snapshot, snapshot)

    def view(self, snapshot: str | None = None) -> View:
        """The cube at a snapshot (id or tag), by default the newest, pinned from now on.

        Raises
        ------
        StoreError
            There is no such snapshot, or a file that says what it holds is damaged.
        """
        snapshot = self.resolve(snapshot)
        if damaged := self.damaged_files(snapshot):
            raise StoreError(
                f"snapshot {snapshot} of the cube at {self.uri} is damaged: {damaged[0]} is not what was written",
                "run `geossl cube check --repair`, or read another snapshot (`geossl cube log`)",
            )
        try:
            return View(snapshot, self.repository.readonly_session(snapshot_id=snapshot))
        except icechunk.IcechunkError:
            raise StoreError(
                f"the cube at {self.uri} has no snapshot {snapshot!r}", "it may have expired; use the newest"
            ) from None

    @contextlib.contextmanager
    def writing(self, *, migrating: bool = False) -> Iterator[icechunk.Session]:
        """A session at the tip, locked until the block ends; the caller commits (or does not).

        A second writer on the same local folder waits here for the first.

        Raises
        ------
        StoreError
            The cube has an older format, and this is not its migration; or its newest snapshot is damaged.
        """
        with _lock(self.uri):
            view = self.view()
            self._seal(view.snapshot)  # of a writer that was killed before it came to that
            version = layout.format_version(view.root)
            if version < layout.FORMAT and not migrating:
                raise StoreError(
                    f"the cube at {self.uri} has format {version}; this geossl writes format {layout.FORMAT}",
                    "run `geossl cube migrate`",
                )
            yield self.repository.writable_session(BRANCH)

    def transact(self, work: Callable[[icechunk.Session], str | None], *, migrating: bool = False) -> str:
        """Run ``work`` on a session at the tip and commit what it wrote, all or nothing.

        Parameters
        ----------
        work:
            Writes into the session and returns the commit's message, or None to commit nothing.
            Called again with a new session where another writer was first (object stores), so it has
            to plan from what it finds in the session.
        migrating:
            Whether this brings a cube of an older format along, which nothing else may write to.

        Returns
        -------
        str
            Id of the newest snapshot afterwards.
        """
        for _ in range(_ATTEMPTS):
            with self.writing(migrating=migrating) as session:
                start = time.monotonic()
                message = work(session)
                if message is None or not session.has_uncommitted_changes:
                    return session.snapshot_id
                if time.monotonic() - start > LONGEST_INGEST.total_seconds():
                    raise StoreError(
                        f"this change to {self.uri} took longer than {LONGEST_INGEST.days} days",
                        "nothing was committed; use smaller waves",
                    )
                try:
                    return self._commit(session, message)
                except icechunk.ConflictError:
                    continue
        raise StoreError(f"{_ATTEMPTS} times another writer was faster at {self.uri}", "try again later")

    def tag(self, name: str, snapshot: str) -> None:
        """Name a snapshot, so that it never expires. The same name and snapshot again do nothing."""
        with _lock(self.uri):
            tags.create(self.repository, name, snapshot)

    def untag(self, name: str) -> None:
        """Take a tag away, if it is there; its snapshot may expire, unless another tag names it."""
        with _lock(self.uri):
            tags.delete(self.repository, name)

    def tags(self) -> dict[str, str]:
        """Tag → snapshot id."""
        return tags.snapshots(self.repository)

    def go_back(self, snapshot: str) -> None:
        """Make an earlier snapshot the newest. What came after it stays readable until garbage is collected."""
        with _lock(self.uri):
            self.repository.reset_branch(BRANCH, snapshot, from_snapshot_id=self.snapshot())

    def expire(self, keep: dt.timedelta, *, dry_run: bool = False) -> list[LogEntry]:
        """Forget snapshots that were not the newest for ``keep``, and return them; :meth:`collect_garbage` frees them.

        Tagged snapshots stay, and so does whatever was the newest less than ``keep`` ago: it may be being read.

        Parameters
        ----------
        dry_run:
            Only say which would be forgotten.
        """
        before = dt.datetime.now(dt.UTC) - keep
        with _lock(self.uri):
            log = self.log()
            # the newest of that time stays; Icechunk keeps the first snapshot, an empty repository
            oldest = next((entry.time for entry in log if entry.time <= before), None)
            going = [entry for entry in log[1:-1] if oldest and entry.time < oldest and not entry.tags]
            if oldest is not None and going and not dry_run:
                self.repository.expire_snapshots(oldest)
                there = {entry.snapshot for entry in self.log()}
                going = [entry for entry in going if entry.snapshot not in there]
        return going

    def collect_garbage(self, *, dry_run: bool = False) -> int:
        """Delete what no snapshot refers to any more: of expired snapshots and of writers that were killed.

        Everything younger than :data:`LONGEST_INGEST` stays, since it may belong to a writer that has not
        committed yet.

        Returns
        -------
        int
            Number of bytes that went, or with ``dry_run`` would go.
        """
        oldest = dt.datetime.now(dt.UTC) - LONGEST_INGEST
        with _lock(self.uri):
            folder = local_folder(self.uri)
            there = {*self.tags().values(), *(entry.snapshot for entry in self.log())}
            replaced, logs = ([], []) if folder is None else leftovers.find(folder, there, oldest)
            freed = sum(path.stat().st_size for path in replaced)
            freed += self.repository.garbage_collect(oldest, dry_run=dry_run).bytes_deleted
            if folder is not None and not dry_run:
                for path in (*replaced, *logs):
                    path.unlink(missing_ok=True)
                seal.drop_seals(folder)
        return freed

    def log(self) -> list[LogEntry]:
        """All commits, newest first."""
        named: dict[str, list[str]] = {}
        for tag, snapshot in self.tags().items():
            named.setdefault(snapshot, []).append(tag)
        return [
            LogEntry(
                entry.id,
                entry.written_at,
                entry.message,
                entry.metadata.get("scenes", {}),
                tuple(named.get(entry.id, ())),
            )
            for entry in self.repository.ancestry(branch=BRANCH)
        ]


@contextlib.contextmanager
def _lock(uri: str) -> Iterator[None]:
    """Hold the writers' lock of a local cube; of an object store, see that it needs none.

    The kernel owns the lock, so it is freed however its holder ends.
    """
    folder = local_folder(uri)
    if folder is None:
        require_ordered_commits(uri)
        yield
        return
    path = Path(f"{folder}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
