"""`geossl maintain`: what nothing needs any more goes, so that a store does not outgrow its disk.

Whatever is not needed is noted, and goes when it was not needed for a whole week: a training, map or ingest that
runs meanwhile may be about to need it. What is needed is found anew each time from the files, see
:mod:`geossl.project.needed`. Killed at any point, the next run goes on.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from filelock import FileLock

from geossl.cube.repository import LONGEST_INGEST
from geossl.cube.scenes import forget_quarantine
from geossl.cube.space import human
from geossl.files import read_json, write_json
from geossl.progress import Progress
from geossl.project import litter, notify, observed
from geossl.project.attention import conditions
from geossl.project.litter import Item
from geossl.project.needed import Needed, needed
from geossl.project.notify import Condition
from geossl.project.project import Project, StageResult
from geossl.project.trainings import Trainings

GRACE = LONGEST_INGEST
"""How long something must have been of no use before it goes."""

SET_ASIDE = 5000
"""Most records of inputs that could not be read; all of them are in the cube's root, and read with it."""

RECORDS = dt.timedelta(days=800)
"""How long the log of a training stays."""


@dataclass
class Plan:
    """What goes now, and what later unless it is needed again."""

    now: list[Item] = field(default_factory=list)
    later: dict[str, tuple[Item, dt.datetime]] = field(default_factory=dict)
    """Name → the item, and when it goes at the earliest."""
    snapshots: int = 0
    """Of the cube, that are forgotten now."""
    garbage: int = 0
    """Bytes in the cube that nothing refers to, without what these snapshots still hold."""

    def lines(self) -> list[str]:
        """For people."""
        out = []
        for kind, items in _by_kind(self.now).items():
            out.append(f"{len(items)} {kind} ({human(sum(item.bytes() for item in items))})")
            out += [f"  {item.name}" for item in items[:_LISTED]]
            out += [f"  and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
        if self.snapshots:
            out.append(f"{self.snapshots} snapshots of the cube, with what they alone hold")
        if self.garbage:
            out.append(f"{human(self.garbage)} in the cube that no snapshot refers to")
        if self.later:
            items = [item for item, _ in self.later.values()]
            kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(item.kind for item in items).items())
            first = min(when for _, when in self.later.values())
            size = human(sum(item.bytes() for item in items))
            out.append(f"from {first:%Y-%m-%d} on, unless they are needed again: {kinds} ({size})")
        return out


_LISTED = 10
"""Items of a kind that are listed one by one."""


def run(project: Project, progress: Progress, *, now: dt.datetime | None = None) -> StageResult:
    """Delete what nothing needs any more, and tell whoever is to be told what needs a person.

    Parameters
    ----------
    now:
        For tests.
    """
    if not project.store.is_dir():
        return StageResult("maintain", skipped=True)
    now = now or dt.datetime.now(dt.UTC)
    folder = project.store / "maintain"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        progress("looking at what is needed", 0, None)
        plan, marks = _plan(project, needed(project), now)
        write_json(folder / MARKS, marks)
        freed = litter.remove(project, plan.now, lambda: needed(project))
        for path in _old_records(project, now):
            path.unlink(missing_ok=True)
        forgotten = dropped = 0
        if (project.store / "cube").exists():
            progress("cleaning the cube", 0, None)
            dropped = forget_quarantine(project.cube(), project.sensor.name, SET_ASIDE)
            forgotten, garbage = _clean(project)
            freed += garbage
    found = attend(project, now, sizes=True)
    lines = [f"{condition.title}: {condition.body}" for condition in found]
    if dropped:
        lines.append(f"forgot {dropped} inputs that were set aside and are gone")
    if plan.now or forgotten or freed:
        kinds = [f"{len(items)} {kind}" for kind, items in _by_kind(plan.now).items()]
        kinds += [f"{forgotten} snapshots"] if forgotten else []
        lines.append(f"removed {', '.join(kinds) or 'garbage of the cube'}: {human(freed)} freed")
    return StageResult("maintain", lines, skipped=not lines)


def attend(project: Project, now: dt.datetime | None = None, *, sizes: bool = False) -> list[Condition]:
    """Look at what needs a person, and tell what was not told yet; quick unless bytes are counted.

    Parameters
    ----------
    sizes:
        Whether bytes are counted too, which takes longer: once a day will do.
    """
    now = now or dt.datetime.now(dt.UTC)
    found = conditions(project, now, observed.look(project, now, sizes=sizes))
    notify.tell(project, found)
    return found


def plan(project: Project, *, now: dt.datetime | None = None) -> Plan:
    """What :func:`run` would do; nothing is written."""
    here = needed(project)
    found, _ = _plan(project, here, now or dt.datetime.now(dt.UTC))
    if (project.store / "cube").exists():
        cube = project.cube()
        going = cube.expire(_keep(project), dry_run=True)
        found.snapshots = sum(entry.snapshot not in here.snapshots for entry in going)
        found.garbage = cube.collect_garbage(dry_run=True)
    return found


MARKS = "unneeded.json"
"""Since when each thing has been of no use."""


def _plan(project: Project, here: Needed, now: dt.datetime) -> tuple[Plan, dict[str, str]]:
    """What goes now and later, and since when it has been of no use."""
    items = [*litter.find(project, here), *litter.find_tags(project, here)]
    before: dict[str, str] = read_json(project.store / "maintain" / MARKS) or {}
    marks = {_key(item): before.get(_key(item), now.isoformat(timespec="seconds")) for item in items}
    found = Plan()
    for item in items:
        since = dt.datetime.fromisoformat(marks[_key(item)])
        goes = max(since, dt.datetime.fromtimestamp(item.touched(), dt.UTC)) + GRACE
        if goes <= now:
            found.now.append(item)
        else:
            found.later[_key(item)] = item, goes
    return found, marks


def _clean(project: Project) -> tuple[int, int]:
    """Let the cube forget, but keep what is needed; how many snapshots and bytes went."""
    cube, keep = project.cube(), _keep(project)
    going = cube.expire(keep, dry_run=True)
    if going:
        here = needed(project)
        for entry in going:
            if entry.snapshot in here.snapshots:
                cube.tag(f"needed-{entry.snapshot}", entry.snapshot)
        going = cube.expire(keep)
    return len(going), cube.collect_garbage()


def _keep(project: Project) -> dt.timedelta:
    return dt.timedelta(days=project.settings.keep.snapshots)


def _old_records(project: Project, now: dt.datetime) -> list[Any]:
    """Logs of trainings long ago, but for the last one."""
    log = Trainings(project.store)
    paths = sorted(log.folder.glob("*.json"))[:-1]
    return [path for path in paths if dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC) < now - RECORDS]


def _key(item: Item) -> str:
    return f"{item.kind}: {item.name}"


def _by_kind(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.kind, []).append(item)
    return found
