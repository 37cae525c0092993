"""A training as processes of torchrun, on this machine or on several that meet."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from geossl.progress import Progress
from geossl.train.remote.job import Job
from geossl.train.remote.settings import TorchrunSettings

_GRACE = 40.0
"""Seconds until an agent that was asked to end is ended; it gives its ranks 30."""


def train(settings: TorchrunSettings, job: Job, progress: Progress) -> None:
    """Start the ranks and wait for them; after a crash all start again from the checkpoint.

    They wait for GPUs that another training has. They end with this process, however it ends. torchrun's own restarts are left alone: they fail as soon as
    one of several agents is lost.

    Raises
    ------
    TrainingError
        A rank says that it is of no use, or they crashed too often.
    """
    from geossl.train.device import alone_on, gpus  # torch takes its time

    with alone_on(gpus(settings.nproc), f"the training in {job.root}", progress):
        for attempt in range(settings.restarts + 1):
            if attempt:
                time.sleep(min(3 * attempt, 30))  # the others see that one is lost, and let go of the port
            status = _attempt(settings, job, progress)
            job.require_sound()
            if status == 0:
                return
    raise job.lost(f"torchrun ended {settings.restarts + 1} times without an encoder, at last with status {status}")


def arguments(job: Job, *, nnodes: int, nproc: int) -> list[str]:
    """What torchrun is told by whatever starts it, after where to meet."""
    python = ["-m", job.module, str(job.folder)]
    return [f"--nnodes={nnodes}", f"--nproc-per-node={nproc}", "--max-restarts=0", *python]


def rendezvous(endpoint: str, name: str) -> list[str]:
    """Where and under which name several machines meet."""
    return ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={name}"]


def _attempt(settings: TorchrunSettings, job: Job, progress: Progress) -> int:
    meet = ["--standalone"] if settings.endpoint is None else rendezvous(settings.endpoint, job.name)
    told = arguments(job, nnodes=settings.nnodes, nproc=settings.nproc)
    command = [sys.executable, "-m", "geossl.train.remote.agent", str(os.getpid()), *meet, *told]
    environment = {"OMP_NUM_THREADS": "1"} if settings.nproc > 1 else {}  # as torchrun does, without its remark
    with job.log.open("ab") as log, stoppable():
        # a session of its own: what ends it is decided here, not by a Ctrl-C that reaches all at once
        agent = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment | os.environ,
            start_new_session=True,
        )
        try:
            while agent.poll() is None:
                job.tell(progress)
                time.sleep(0.2)
        finally:
            if agent.poll() is None:
                agent.terminate()  # it tells its ranks, which write a checkpoint
                with contextlib.suppress(subprocess.TimeoutExpired):
                    agent.wait(_GRACE)
                agent.kill()
                agent.wait()
    job.tell(progress)
    return agent.returncode


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end this process by way of what it has to clear up, unless it is listened to already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
