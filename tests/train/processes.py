"""Training processes to kill, forked from one that has imported what takes seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from geossl.errors import GeosslError

BATCHES = 8
"""Steps in an epoch."""
LONG: dict[str, Any] = {"method": {"name": "mae"}, "encoder": {"name": "vit-tiny", "patch": 8}, "epochs": 4}
"""Masks are random, the checkpoint is large, and a step is short."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.train.synthetic"])


def train(folder: Path, steps: Connection, every: float = 300.0, largest: int | None = None) -> None:
    """Train, with a checkpoint every so many seconds; say each step that is done; write no file larger than that."""
    from geossl.train import checkpoint

    from . import synthetic

    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    checkpoint.SAVE_EVERY = every
    loader = synthetic.Places(batches=BATCHES)
    try:
        synthetic.run(folder, loader, progress=lambda _, done, *__: steps.send(done), **LONG)
    except GeosslError as error:
        steps.send(str(error))
        sys.exit(1)


def start(folder: Path, **how: Any) -> tuple[BaseProcess, Connection]:
    """A process that trains, and where it says which steps it has done."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(folder, there), kwargs=how)
    process.start()
    there.close()
    return process, here


def finish(folder: Path, **how: Any) -> None:
    """Let a process train to the end."""
    process, steps = start(folder, **how)
    drain(steps)
    process.join()
    assert process.exitcode == 0


def drain(steps: Connection, wanted: int = 10**9) -> Any:
    """The last of so many more steps or, where it is cut off before, the last that it said."""
    said = None
    with contextlib.suppress(EOFError):
        for _ in range(wanted):
            said = steps.recv()
    return said
