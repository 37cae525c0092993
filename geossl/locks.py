"""One process at a time: a lock that says who holds it, and that the system frees when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from geossl.progress import Progress, silent

_LOOK_EVERY = 0.5
"""Seconds between two looks at a lock that another process holds."""


@contextlib.contextmanager
def held(path: Path, what: str, who: str, progress: Progress = silent, *, mode: int | None = None) -> Iterator[None]:
    """Hold the lock of a file while the block runs; wait for it, and say for whom, as long as another one holds it.

    Parameters
    ----------
    path:
        A file of its own, on a file system that all who want the lock share; it is made, and stays.
    what:
        What is locked, in words, for whoever waits.
    who:
        For whom it is held, in words; with process and machine it is what others read while they wait.
    mode:
        Of the file where it is made, such as 0o666 for all users of a machine; None: as the process makes files.

    Raises
    ------
    OSError
        The file cannot be made.
    """
    descriptor = _open(path, mode)
    try:
        said = None
        while not _taken(descriptor):
            if (holder := _read(descriptor)) != said:
                said = holder
                progress(f"waiting for {what}, which is held by {holder or 'another process'}", 0, None)
            time.sleep(_LOOK_EVERY)
        since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        _write(descriptor, f"{who} (process {os.getpid()} on {socket.gethostname()}, since {since} UTC)")
        try:
            yield
        finally:
            _write(descriptor, "")
    finally:
        os.close(descriptor)  # which frees it


def _open(path: Path, mode: int | None) -> int:
    # one that belongs to somebody else may be opened in a folder that all write to, but not by O_CREAT
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    if mode is not None and os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, mode)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode(errors="replace").strip()


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
