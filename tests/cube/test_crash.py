"""Whatever ends an ingest, the cube is a committed one, and ingesting again completes it."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client

from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.imagery.scene import Scene

from .conftest import GRID, SENSOR, SceneMaker, digest

SCRIPT = Path(__file__).with_name("ingest_process.py")


@pytest.fixture
def scenes(make_scene: SceneMaker, tmp_path: Path) -> list[Scene]:
    """Eight scenes in four waves, with gaps: tiles without data, and one scene that cannot be read."""
    west = (slice(None), slice(0, 256))
    made = [make_scene(number, nodata=west if number % 3 == 1 else None) for number in range(8)]
    broken = Path(made[4].bands["B04"].href)
    broken.write_bytes(broken.read_bytes()[:5000])
    (tmp_path / "scenes.pickle").write_bytes(pickle.dumps(made))
    return made


def start(cube: Path, cluster: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(SCRIPT), str(cube), str(cube.with_name("scenes.pickle")), cluster]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output


def kill_at_random(process: subprocess.Popen[str], rng: random.Random) -> None:
    """Kill the ingest, with all workers of its own, some time after some line of its progress."""
    assert process.stdout is not None
    for _ in range(rng.randrange(6)):
        process.stdout.readline()
    time.sleep(rng.uniform(0, 0.05))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_and_compare(folder: Path, scenes: list[Scene], cluster: str, kills: int) -> None:
    rng = random.Random(kills)
    killed = folder / "killed"
    for _ in range(kills):
        kill_at_random(start(killed, cluster), rng)
        # every state in between is whole waves
        view = Cube.open_or_create(str(killed)).view()
        if "s2" in view.collections():
            assert len(view.collection("s2").items()) in (2, 4, 5, 7)
    finish(start(killed, cluster))
    calm = Cube.create(str(folder / "calm"))
    ingest(calm, scenes, SENSOR, GRID, "s2", IngestSettings(wave=3))
    assert digest(Cube.open(str(killed)).view()) == digest(calm.view())


def test_killed_ingests_end_like_an_undisturbed_one(tmp_path: Path, scenes: list[Scene], client: Client) -> None:
    """The workers outlive each ingest, and go on with what it had asked for."""
    kill_and_compare(tmp_path, scenes, client.scheduler_info()["address"], kills=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_clusters_end_like_an_undisturbed_one(tmp_path: Path, scenes: list[Scene]) -> None:
    """The workers are killed as well, in the middle of writing chunks."""
    kill_and_compare(tmp_path, scenes, "2", kills=15)


def test_two_ingests_at_once_end_as_one_after_the_other(tmp_path: Path, scenes: list[Scene]) -> None:
    cube = tmp_path / "cube"
    rivals = [start(cube, "0"), start(cube, "0")]
    for process in rivals:
        finish(process)
    alone = Cube.create(str(tmp_path / "alone"))
    ingest(alone, scenes, SENSOR, GRID, "s2", IngestSettings())
    assert digest(Cube.open(str(cube)).view()) == digest(alone.view())


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    """The lock holds between processes, and from the block's beginning to its end."""
    cube = Cube.create(str(tmp_path / "cube"))
    code = f"""if True:
        from geossl.cube.repository import Cube
        cube = Cube.open({cube.uri!r})
        print("ready", flush=True)
        with cube.writing():
            print("in")"""
    with cube.writing():
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=1)
    assert child.communicate(timeout=60)[0] == "in\n"
