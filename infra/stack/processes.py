"""Processes of Linux as ``/proc`` shows them: which are alive, which belong together, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process by its number and by when it started, since numbers are given again."""

    pid: int
    started: str
    """Clock ticks since boot."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process of that number; None where there is none, or where it has ended."""
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, fields[19])

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    @property
    def session(self) -> int:
        """The number of the process that leads its session; 0 where it has ended."""
        fields = _stat(self.pid)
        return 0 if fields is None else int(fields[3])

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _stat(pid: int) -> list[str] | None:
    """State, parent, group, session, …; the twentieth is when it started."""
    try:
        # a program's name may hold blanks and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def everyone() -> list[Process]:
    """All processes but this one."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = (Process.of(number) for number in numbers if number != os.getpid())
    return [process for process in found if process is not None]


def in_session(leader: int) -> list[Process]:
    """A process that started a session, and what it started in it."""
    return [process for process in everyone() if process.session == leader]


def with_variable(name: str, value: str) -> list[Process]:
    """Those that were started with an environment variable, whoever started them."""
    wanted, found = f"{name}={value}".encode(), []
    for process in everyone():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def wait(processes: Iterable[Process], seconds: float) -> bool:
    """Until all have ended; False where some have not in time."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if process.alive]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if process.alive]
    return not left


def end(processes: Iterable[Process], grace: float) -> None:
    """Ask processes to end, and kill those that are still there after so many seconds."""
    asked = list(processes)
    for process in asked:
        process.send(signal.SIGTERM)
    if not wait(asked, grace):
        for process in asked:
            process.send(signal.SIGKILL)
        wait(asked, 10)
