"""The same ingest on worker processes, and what those processes are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, Scheduler, SchedulerPlugin, WorkerPlugin, default_client
from pydantic import ValidationError

from geossl.cluster import ClusterSettings, SlurmSettings, dask_client
from geossl.cube import statistics, steps, work
from geossl.cube.composite import composite
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings, IngestSettings
from geossl.cube.work import run
from geossl.errors import ClusterError, SettingsError

from .conftest import GRID, SENSOR, SceneMaker, digest


def test_a_cluster_writes_the_same_cube(tmp_path: Path, make_scene: SceneMaker, client: Client) -> None:
    scenes = [make_scene(number, cloud=(slice(0, 99), slice(number, 300))) for number in range(5)]
    cubes = []
    for name, where in (("here", None), ("there", client)):
        cube = Cube.create(str(tmp_path / name))
        ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=3), where)
        composite(cube, "s2", CompositeSettings(months=1), where)
        collection = cube.view().collection("s2")
        statistics.store(cube, "s2", statistics.count(collection, client=where).statistics())
        cubes.append(digest(cube.view()))
    assert cubes[0] == cubes[1]
    assert not any(client.run(lambda: "torch" in sys.modules).values())


def test_workers_are_single_threaded_processes_on_the_loopback(client: Client) -> None:
    info = client.scheduler_info()
    assert {worker["nthreads"] for worker in info["workers"].values()} == {1}
    assert all(address.startswith("tcp://127.0.0.1:") for address in info["workers"])
    listening = [c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_task_of_a_worker_that_dies_runs_again(client: Client, tmp_path: Path) -> None:
    assert dict(run(_die_once, [tmp_path / "mark"], client)) == {0: "mark"}


def _die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return mark.name


def test_many_tasks_are_handed_out_bit_by_bit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "IN_FLIGHT", 3)
    assert sorted(run(str, range(20), client)) == [(number, str(number)) for number in range(20)]


def test_an_error_of_a_task_reaches_the_caller(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run(_invert, [1, 0, 2], client))


def _invert(number: int) -> float:
    return 1 / number


def test_an_existing_scheduler_is_used_and_left_running(client: Client) -> None:
    with dask_client(ClusterSettings(scheduler=client.scheduler_info()["address"])) as second:
        assert second.submit(sum, (1, 2)).result() == 3
    assert client.submit(sum, (3, 4)).result() == 7


def test_the_default_client_of_who_calls_stays_what_it_was(client: Client) -> None:
    address = client.scheduler_info()["address"]
    with Client(address) as mine, dask_client(ClusterSettings(scheduler=address)):
        assert default_client() is mine
    with dask_client(ClusterSettings(workers=1)), pytest.raises(ValueError, match="No clients found"):
        default_client()


class _Talk(SchedulerPlugin):
    """Says something to all clients right after a new one was greeted, once; both go out as one message."""

    done = False

    def add_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002  # the plugin protocol names it
        if not self.done:
            self.done = True
            asyncio.get_running_loop().call_soon(scheduler.report, {"op": "cancelled-keys", "keys": []})


def test_a_scheduler_that_others_use_is_joined_while_it_talks(client: Client) -> None:
    client.register_plugin(_Talk(), name="talk")
    try:
        with dask_client(ClusterSettings(scheduler=client.scheduler_info()["address"])) as second:
            assert second.submit(sum, (1, 2)).result() == 3
    finally:
        client.unregister_scheduler_plugin("talk")


def test_a_scheduler_that_is_not_there() -> None:
    nowhere = ClusterSettings(scheduler="tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(SettingsError, match="no Dask scheduler answers"),
        dask_client(nowhere),
    ):
        pass


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "tcp://host:8786", "slurm": {}},
        {"scheduler": "tcp://host:8786", "workers": 2},
        {"slurm": {}, "memory_limit": "4GB"},
        {"slurm": {"workers": [3, 2]}},
        {"slurm": {"workers": 0}},
    ],
)
def test_a_cluster_is_of_one_kind(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClusterSettings.model_validate(settings)


def test_slurm_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="sbatch"), dask_client(ClusterSettings(slurm=SlurmSettings())):
        pass


class _Crash(WorkerPlugin):
    """Ends every process that reads one scene, as a decoder with a segmentation fault does; also those that follow."""

    def __init__(self, scene_id: str) -> None:
        self.scene_id = scene_id

    def setup(self, worker: object) -> None:  # noqa: ARG002  # the plugin protocol names it
        read = steps.read_tile

        def crash(scene: Any, *args: Any, **kwargs: Any) -> Any:
            if scene.id == self.scene_id:
                os.kill(os.getpid(), signal.SIGSEGV)
            return read(scene, *args, **kwargs)

        steps.read_tile = crash


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_scene_that_kills_its_workers_is_set_aside_alone(tmp_path: Path, make_scene: SceneMaker) -> None:
    """Its neighbours die with it each time, and are ingested all the same."""
    scenes = [make_scene(number, (1, 1)) for number in range(4)]
    cube = Cube.create(str(tmp_path / "cube"))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        dask_client(ClusterSettings(workers=1)) as client,
    ):
        client.register_plugin(_Crash("scene-001"))
        report = ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(), client)
    assert report.ingested == ["scene-000", "scene-002", "scene-003"]
    assert [item.source for item in report.set_aside] == ["scene-001"]
    assert "killed" in report.set_aside[0].reason
    alone = Cube.create(str(tmp_path / "alone"))
    ingest(alone, [scenes[0], *scenes[2:]], SENSOR, GRID, "s2", IngestSettings())
    ours, theirs = digest(cube.view()), digest(alone.view())
    assert ours.pop("") != theirs.pop("")  # the root alone knows what was set aside
    assert ours == theirs


@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", ["while tasks run", "before they are submitted"])
def test_a_scheduler_that_dies_is_an_error_and_never_a_result(tmp_path: Path, when: str) -> None:
    """Nothing hangs, and no cancelled task is taken for one that found nothing."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--no-dashboard",
    ]
    file = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [*command, "--port", "0", "--scheduler-file", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not file.exists():
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
            dask_client(ClusterSettings(scheduler=address)) as client,
        ):
            kill = threading.Timer(0.5, scheduler.kill)
            if when == "while tasks run":
                kill.start()
            else:
                kill.run()
                scheduler.wait()
            with pytest.raises(ClusterError, match="scheduler is lost"):
                list(run(str, range(3), client))
    finally:
        scheduler.kill()
        scheduler.wait()
