"""One rank of a training that runs elsewhere: it ends with whoever started it, and says why it failed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from geossl.errors import GeosslError
from geossl.files import write_json
from geossl.progress import Progress, silent
from geossl.train.remote.job import Job, Told

GRACE = 20.0
"""Seconds from being asked to end until a rank that waits for others in vain ends without a checkpoint."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(job: Job, work: Callable[[Progress], dict[str, Any]]) -> int:
    """Do the work of one rank; the first one says how far it is and what came out. Returns the exit status."""
    die_with_parent()
    end_in_time(GRACE)
    first = os.environ.get("RANK", "0") == "0"
    job.require_sound()
    try:
        result = work(Told(job.progress) if first else silent)
    except GeosslError as error:
        print(f"geossl: {error}", file=sys.stderr)  # noqa: T201  # the log is for people
        write_json(job.failure, {"what": error.what, "remedy": error.remedy})
        return 1
    if first:
        job.end(result)
    return 0


def die_with_parent(parent: int | None = None) -> None:
    """Let the system send SIGTERM to this process when the one that started it (``parent``) is no more."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:  # it was gone before
        sys.exit(128 + signal.SIGTERM)


def end_in_time(grace: float) -> None:
    """End ``grace`` seconds after SIGTERM or SIGUSR1 whatever this process does by then.

    A rank whose fellows are gone may wait for them inside of torch, where no Python handler runs. The
    system's own handler still writes to a pipe, which a thread reads.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    asked = {int(signal.SIGTERM), int(signal.SIGUSR1)}

    def watch() -> None:
        while True:
            for number in os.read(reading, 64):
                if number in asked:
                    time.sleep(grace)
                    os._exit(128 + number)

    threading.Thread(target=watch, daemon=True, name="end in time").start()
