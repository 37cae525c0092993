"""Progress bars for whatever a stage reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geossl.progress import Progress as Listener


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
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def listen(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield listen


class _Lines:
    """For output that is not a terminal: a line at each quarter, so that a log shows life."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.quarter: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if not total:
            return
        quarter = 4 * done // total
        if quarter > self.quarter.get(what, 0 if done else -1):
            self.quarter[what] = quarter
            self.console.print(f"  {what}: {done}/{total}", highlight=False)
