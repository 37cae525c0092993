"""Parent, scheduler and workers of an ingest are killed at random, over and over; the cube comes out the same."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.cube.check import check
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.imagery.scene import Scene

from .conftest import GRID, SENSOR, SceneMaker, digest

SCRIPT = Path(__file__).with_name("ingest_process.py")
KILLS = 100
SERIES = 5
"""After each, the ingest is left to end, and its cube compared."""
WORKERS = 2
PYTHON = [sys.executable, "-W", "ignore"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}


class Processes:
    """A scheduler, workers without nannies and the ingest itself; whichever ends is started again."""

    def __init__(self, folder: Path, cube: Path, scenes: Path, port: int) -> None:
        self.folder, self.cube, self.scenes, self.port = folder, cube, scenes, port
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.done = False
        self.ends: list[int] = []
        """Exit codes of ingests that ended by themselves."""

    def keep_up(self) -> None:
        """Start what is not running; an ingest that succeeded is not started again."""
        for name in ("scheduler", *(f"worker {number}" for number in range(WORKERS)), "parent"):
            process = self.running.get(name)
            if process is not None and process.poll() is None:
                continue
            if name == "parent" and process is not None and process.returncode != -signal.SIGKILL:
                self.ends.append(process.returncode)
                self.done = self.done or process.returncode == 0
            if not (name == "parent" and self.done):
                self.running[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        address = f"tcp://127.0.0.1:{self.port}"
        # the kills here are no task's fault
        environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000000"}
        dask = [*PYTHON, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard"]
        worker = [*PYTHON, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
        command = {
            "scheduler": [*dask, "--port", str(self.port)],
            "parent": [*PYTHON, str(SCRIPT), str(self.cube), str(self.scenes), address],
        }.get(name, [*worker, "--nthreads", "1", "--local-directory", str(self.folder)])
        if name != "parent":
            return subprocess.Popen(command, env=environment, **QUIET)
        with (self.folder / "parent.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Whether there was one to be killed."""
        names = [name for name, process in self.running.items() if name.startswith(kind) and process.poll() is None]
        if names:
            self.running[rng.choice(names)].kill()
        return bool(names)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
def scenes(make_scene: SceneMaker, tmp_path: Path) -> list[Scene]:
    """Scenes with tiles without data; two of them again from other files; one that cannot be read."""
    west = (slice(None), slice(0, 256))
    made = [make_scene(number, nodata=west if number % 3 == 1 else None) for number in range(14)]
    broken = Path(made[4].bands["B04"].href)
    broken.write_bytes(broken.read_bytes()[:5000])
    (tmp_path / "scenes.pickle").write_bytes(pickle.dumps(made))
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_kills_change_nothing(tmp_path: Path, scenes: list[Scene]) -> None:
    calm = Cube.create(str(tmp_path / "calm"))
    ingest(calm, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2))
    wanted = digest(calm.view())
    rng = random.Random(1)
    killed: Counter[str] = Counter()
    for series in range(SERIES):
        cube = tmp_path / f"killed-{series}"
        with _processes(tmp_path, cube) as processes:
            until = killed.total() + KILLS // SERIES
            while killed.total() < until:
                processes.keep_up()
                if processes.done:
                    # it was faster than the kills: another cube, for the rest of this series
                    _compare(cube, scenes, wanted)
                    cube = cube.with_name(f"{cube.name}-again")
                    processes.cube, processes.done = cube, False
                    continue
                time.sleep(rng.uniform(0.05, 0.6))
                # starting takes an ingest longest of all, so it is killed less often than the others
                kind = rng.choices(["worker", "scheduler", "parent"], [3, 1, 1])[0]
                killed[kind] += processes.kill(kind, rng)
            deadline = time.monotonic() + 120
            while not processes.done:
                processes.keep_up()
                time.sleep(0.1)
                assert time.monotonic() < deadline, (tmp_path / "parent.log").read_text()[-3000:]
        _compare(cube, scenes, wanted)
    assert killed.total() >= KILLS
    assert min(killed.values()) >= KILLS // 10, killed
    log = (tmp_path / "parent.log").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


def _compare(cube: Path, scenes: list[Scene], wanted: dict[str, str]) -> None:
    """Pixels, records and quarantine are those of an undisturbed ingest; every byte is sound."""
    opened = Cube.open(str(cube))
    assert digest(opened.view()) == wanted
    found = opened.view().collection("s2")
    for tile_id in found.tile_ids:
        assert max(Counter(found.scene_ids(tile_id)).values()) == 1
    assert set(found.items()) == {scene.id for scene in scenes} - {scenes[4].id}
    assert check(opened).damage == []


@contextlib.contextmanager
def _processes(folder: Path, cube: Path) -> Iterator[Processes]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = Processes(folder, cube, folder / "scenes.pickle", port)
    try:
        yield processes
    finally:
        processes.close()
