"""Progress bars for whatever a stage reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from geossl.progress import PIXELS
from geossl.progress import Progress as Listener

EVERY = 20.0
"""Seconds between two lines of a log, at most."""

_RECENT = 600.0
"""Seconds over which speed is estimated: longer than one wave of an ingest, whose scenes end together."""


@contextmanager
def bars(console: Console) -> Iterator[Listener]:
    """A listener that draws one bar per kind of work; on a log file it prints a line as each ends."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        _Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=_RECENT) as progress:
        tasks: dict[str, TaskID] = {}
        last: dict[str, int] = {}

        def listen(what: str, done: int, total: int | None, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, note="")
            elif done < last[what]:  # the same work once more, such as another network
                progress.reset(tasks[what])
            last[what] = done
            progress.update(tasks[what], completed=done, total=total, note=note)

        yield listen


class _Amount(MofNCompleteColumn):
    """How many of how many; of pixels, how many bytes and how fast."""

    def render(self, task: Task) -> Text:
        if task.description != PIXELS:
            speed = task.finished_speed or task.speed
            return super().render(task).append(f", {_speed(speed)}" if speed else "")
        return Text(_rate(task.completed, task.elapsed or 0), style="progress.data.speed")


def _amount(done: int, total: int | None, seconds: float) -> str:
    """How many of how many; while it goes on, how fast and how long still."""
    text = f"{done}" + (f" of {total}" if total else "")
    if not total or not 0 < done < total or seconds < 1:
        return text
    return f"{text}, {_speed(done / seconds)}, {timedelta(seconds=round(seconds / done * (total - done)))} left"


def _speed(speed: float) -> str:
    """Things a second, or a minute where they take longer."""
    return f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"


def _rate(size: float, seconds: float) -> str:
    return decimal(round(size)) + (f", {decimal(round(size / seconds))}/s" if seconds >= 1 else "")


class _Lines:
    """For output that is not a terminal: a line at each quarter and every so often, so that a log shows life."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.said: dict[str, tuple[int, float]] = {}
        self.began: dict[str, tuple[int, float]] = {}
        """Kind of work → how much of it was done last, and when it began."""

    def __call__(self, what: str, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        last, began = self.began.get(what, (0, now))
        if done < last:  # the same work once more, such as another network
            began = now
            self.said.pop(what, None)
        self.began[what] = done, began
        quarter = 4 * done // total if total else 0
        before, when = self.said.get(what, (-1, -EVERY))
        if quarter != before or now - when > EVERY:
            self.said[what] = quarter, now
            amount = _rate(done, now - began) if what == PIXELS else _amount(done, total, now - began)
            self.console.print(f"  {what}: {amount}" + (f"; {note}" if note else ""), highlight=False)
