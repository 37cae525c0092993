"""The log of trainings: when, why, for how long, on how many devices, from which snapshot.

One file a training below ``<store>/trainings``. It is kept up while the training runs, so that what a killed
one has cost is counted as well.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from geossl.files import read_json, write_json
from geossl.progress import Progress
from geossl.project.state import Record

EVERY = 10.0
"""Seconds between two notes of a training that runs."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training, finished or not."""

    started: str
    """ISO 8601, UTC."""
    why: str
    snapshot: str
    """Of the cube when it started."""
    devices: int
    seconds: float
    """So far; of a finished one, altogether."""
    finished: bool = False

    @property
    def hours(self) -> float:
        """Device-hours."""
        return self.seconds * self.devices / 3600

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls(**data)


class Trainings:
    """All trainings of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / "trainings"

    def all(self) -> list[Training]:
        """Oldest first."""
        found = [Training.from_dict(content) for path in self.folder.glob("[!.]*.json") if (content := read_json(path))]
        return sorted(found, key=lambda training: training.started)

    def cut_off(self, trained: Record | None) -> Training | None:
        """The last training, if it has not come to its end and no encoder came since, by hand or just before its end was
        noted; ``trained`` is the record of `pretrain`."""
        last, moment = next(reversed(self.all()), None), dt.datetime.fromisoformat
        if last is None or last.finished:
            return None
        overtaken = trained is not None and moment(trained.finished) > moment(last.started)
        return None if overtaken else last

    def hours(self, month: dt.date) -> float:
        """Device-hours of trainings that started in the calendar month (UTC) of a day."""
        return sum(each.hours for each in self.all() if each.started.startswith(f"{month:%Y-%m}"))

    @contextmanager
    def running(self, why: str, snapshot: str, devices: int, progress: Progress) -> Iterator[Progress]:
        """Log a training while it runs; yields the progress to give it, by which the log is kept up.

        Its clock starts when it says how far it is: what waits for a device, or in a cluster's queue, uses none.
        """
        start, noted = 0.0, 0.0
        training = Training(dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), why, snapshot, devices, 0.0)
        path = self.folder / f"{training.started.replace(':', '')}.json"

        def note(*, finished: bool = False) -> None:
            nonlocal noted
            noted = time.monotonic()
            seconds = noted - start if start else 0.0
            write_json(path, dataclasses.asdict(dataclasses.replace(training, seconds=seconds, finished=finished)))

        def watched(what: str, done: int, total: int | None, also: str = "") -> None:
            nonlocal start
            if total is not None and not start:
                start = time.monotonic()
            if time.monotonic() - noted > EVERY:
                note()
            progress(what, done, total, also)

        note()
        finished = False
        try:
            yield watched
            finished = True
        finally:
            note(finished=finished)
