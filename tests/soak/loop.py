"""The loop without any server: in this process, or as one of its own that may be killed at any time."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from geossl.progress import silent
from geossl.project.project import Project, StageResult
from geossl.project.stages.run import run_all
from tests.soak.world import BETTER, Arrival, Landing, World

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
"""Of every command that is started."""


def go_round(folder: Path) -> list[StageResult]:
    """The loop, once."""
    return run_all(Project.load(folder), silent)


def reference(world: World, folder: Path, cluster: str) -> Project:
    """Where the loop comes to rest when nothing ever goes wrong: the history, then the whole year at once."""
    landing = Landing(folder, cluster)
    landing.begin(world)
    go_round(folder)
    for arrival in world.year():
        if arrival.scene is not None:
            landing.happen(arrival)
    landing.edit(BETTER)
    go_round(folder)
    return Project.load(folder)


def arrive_one_by_one(world: World, landing: Landing) -> Iterator[Arrival]:
    """Whatever happens in the year, and what happened already where this was cut off."""
    note = landing.folder / "happened.json"
    if not note.exists():
        landing.begin(world)
        note.write_text("0")
    go_round(landing.folder)
    happened = json.loads(note.read_text())
    for number, arrival in enumerate(world.year()):
        if number >= happened:
            landing.happen(arrival)
            note.write_text(str(number + 1))
            yield arrival


@contextmanager
def process(folder: Path) -> Iterator[BaseProcess]:
    """The loop once, as a process that leads a session of its own; what it prints goes to ``loop.log``.

    It is forked off a server that has imported what takes long, so that it is soon where it can be killed at; not
    icechunk, whose threads do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "lightning.pytorch", "timm", "kornia", "sklearn.covariance"])
    started = context.Process(target=_alone, args=(folder,))
    started.start()
    try:
        yield started
    finally:
        started.kill()
        started.join()


def _alone(folder: Path) -> None:
    os.setsid()
    with (folder / "loop.log").open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        for result in go_round(folder):
            if not result.skipped:
                print(time.strftime("%H:%M:%S"), result.stage, *result.lines, sep="\n    ", file=log)


def left_of(leaders: Collection[int]) -> list[psutil.Process]:
    """Processes of groups whose leader was killed, a minute later at most."""
    deadline = time.monotonic() + 60
    while found := [each for each in psutil.process_iter() if _session(each) in leaders]:
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return found


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return 0
