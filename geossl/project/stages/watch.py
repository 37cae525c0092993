"""`geossl watch`: is there anything in the sources that the cube does not hold and has not set aside?

Sources are listed and no pixel is read. What was met when the cube last held all there is was noted
(``<store>/watch.npz``: a fingerprint of every file and item, see :mod:`geossl.imagery.seen`), so only what came or
changed since is looked at, and compared with the ledger by id and checksum as ingest does. A note that is lost, or
that knows scenes that the cube does not hold (it was restored, repaired, or taken back), counts for nothing: then
everything is compared. So a watch that comes too often, too late or after a crash decides the same.

What only a web server could say, that a file behind an unchanged item is another one now, is left to ingest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geossl.cube.arrays import subgroup
from geossl.cube.scenes import SceneEntry, read_quarantine, read_table
from geossl.errors import GeosslError, NothingFoundError, SceneError
from geossl.files import read_arrays, write_arrays
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.seen import Seen, fingerprint
from geossl.imagery.sources import open_source
from geossl.progress import Progress
from geossl.project import state
from geossl.project.project import Project, StageResult
from geossl.project.stages import labels

NOTE = "watch.npz"

_LISTED = 10
"""Inputs that are named one by one."""

_AT_ONCE = 16
"""Scenes whose files are looked at together."""


@dataclass
class News:
    """What the cube does not have yet."""

    new: list[str] = field(default_factory=list)
    """Ids of scenes that the cube does not hold."""
    changed: list[str] = field(default_factory=list)
    """Ids of scenes that it holds from other files."""
    unusable: list[Rejected] = field(default_factory=list)
    """What ingest will set aside, and has not yet."""
    labels: list[str] = field(default_factory=list)
    """Tasks whose label files changed."""
    settings: bool = False
    """Whether the project file says otherwise than when the cube was last brought up to date."""

    def __bool__(self) -> bool:
        return self != News()

    @property
    def count(self) -> int:
        """Inputs to ingest."""
        return len(self.new) + len(self.changed) + len(self.unusable)

    def lines(self) -> list[str]:
        """In plain words."""
        found = [
            *_named(len(self.new), "new", self.new),
            *_named(len(self.changed), "changed since they were ingested", self.changed),
            *_named(len(self.unusable), "to be set aside", [f"{item.source}: {item.reason}" for item in self.unusable]),
        ]
        if self.labels:
            found.append(f"label files changed: {', '.join(self.labels)}")
        if self.settings:
            found.append("the cube was not yet brought up to date with the project file as it is now")
        return found


def run(project: Project, progress: Progress) -> StageResult:
    """Say what is new; skipped where nothing is, so that nobody need start an ingest."""
    news = look(project, progress)
    return StageResult("watch", news.lines(), skipped=not news)


def look(project: Project, progress: Progress) -> News:
    """What ingest would find to do; nothing is written but the note of what was met.

    Raises
    ------
    SettingsError
        A source cannot be read.
    """
    ledger = _Ledger.read(project)
    before = _read_note(project)
    known = before is not None and ledger.holds(before)
    seen = Seen(before.files if before is not None and known else None)
    candidates = list(_candidates(project, seen, progress))
    news = ledger.compare(candidates, retried=known)
    if ledger.rows:
        news.labels = list(labels.outdated(project))
    news.settings = before is None or before.settings != _settings(project)
    if not ledger.rows and not candidates:
        news.settings = False  # there is nothing to bring up to date
    if not news and seen.changed:
        note(project, seen)
    return news


def keep_watching(
    project: Callable[[], Project],
    minutes: float,
    work: Callable[[Project], object],
    tell: Callable[[str], None],
    progress: Progress,
) -> None:
    """Look again and again, and do the work whenever there is something new; ends by a signal only.

    What a person or a later look can mend (a server that does not answer, a scene that is written just now) is told.
    """
    while True:
        start = time.monotonic()
        try:
            opened = project()  # its file may have changed
            if news := look(opened, progress):
                for line in news.lines():
                    tell(line)
                work(opened)
        except GeosslError as error:
            tell(str(error))
        time.sleep(max(0.0, minutes * 60 - (time.monotonic() - start)))


def note(project: Project, seen: Seen) -> None:
    """Note what was met, once the cube holds it or has set it aside."""
    rows = _Ledger.read(project).marks()
    write_arrays(project.store / NOTE, files=seen.found, scenes=rows, settings=_settings(project))


@dataclass(frozen=True)
class _Note:
    """What was met when all of it was in the cube."""

    files: NDArray[np.uint64]
    scenes: NDArray[np.uint64]
    """A fingerprint of every row of the ledger then."""
    settings: str


def _read_note(project: Project) -> _Note | None:
    # where it is lost or damaged, everything is compared
    kept = read_arrays(project.store / NOTE, "files", "scenes", "settings")
    return None if kept is None else _Note(kept["files"], kept["scenes"], str(kept["settings"]))


def _settings(project: Project) -> str:
    """Names all settings that what is ingested follows from."""
    said = project.settings.dump()
    return state.fingerprint(**{key: said[key] for key in ("sources", "sensor", "grid", "area", "ingest")})


def _candidates(project: Project, seen: Seen, progress: Progress) -> Iterable[Scene | Rejected]:
    """What is new to the note, whatever the cube says of it."""
    found = 0
    for settings in project.settings.sources:
        try:
            for item in open_source(settings, project.root).scenes(project.sensor, seen):
                yield item
                found += 1
                progress("looking for scenes", found, None)
        except NothingFoundError:
            continue  # a landing folder that is empty


@dataclass(frozen=True)
class _Ledger:
    """What the cube holds, and what it has set aside."""

    rows: Mapping[str, SceneEntry]
    quarantine: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, project: Project) -> _Ledger:
        if not (project.store / "cube").exists():
            return cls({}, {})
        root, name = project.cube().view().root, project.sensor.name
        return cls(read_table(subgroup(root, name)) if name in root else {}, read_quarantine(root, name))

    def marks(self) -> NDArray[np.uint64]:
        return np.array([fingerprint(scene, row.checksum) for scene, row in self.rows.items()], np.uint64)

    def holds(self, noted: _Note) -> bool:
        """Whether everything is there that was there when the note was made."""
        return bool(np.isin(noted.scenes, self.marks()).all())

    def compare(self, found: Iterable[Scene | Rejected], *, retried: bool) -> News:
        """What of this is not there.

        Parameters
        ----------
        retried:
            Whether what was set aside is worth another try, since its files changed.
        """
        news = News()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for item, checksum in zip(found, pool.map(self._checksum, found), strict=True):
                if isinstance(checksum, Rejected):
                    if self.quarantine.get(checksum.source) != (checksum.reason, checksum.remedy):
                        news.unusable.append(checksum)
                    continue
                assert isinstance(item, Scene)
                row = self.rows.get(item.id)
                if (row is not None and row.checksum == checksum) or (not retried and self._set_aside(item)):
                    continue
                (news.new if row is None else news.changed).append(item.id)
        return news

    def _checksum(self, item: Scene | Rejected) -> str | Rejected:
        """Of a scene that the cube holds, what its files are now; or why it is set aside."""
        if isinstance(item, Rejected):
            return item
        try:
            return item.checksum() if item.id in self.rows else ""
        except SceneError as error:
            return Rejected(item.id, error.what, error.remedy)

    def _set_aside(self, scene: Scene) -> bool:
        """As :func:`geossl.cube.scenes.is_source_of`, for many scenes and many sources."""
        if not self.quarantine:
            return False
        hrefs = [asset.href for asset in (*scene.bands.values(), *scene.masks.values())]
        folders = {href[:end] for href in hrefs for end, letter in enumerate(href) if letter == "/"}
        return any(name in self.quarantine or f"{name}/" in self.quarantine for name in {scene.id, *hrefs, *folders})


def _named(number: int, what: str, names: list[str]) -> list[str]:
    if not number:
        return []
    more = f" and {number - _LISTED} more" if number > _LISTED else ""
    return [f"{number} {what}: {', '.join(names[:_LISTED])}{more}"]
