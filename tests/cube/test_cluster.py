"""The same ingest on worker processes, and what those processes are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from geossl.cluster import ClusterSettings, dask_client
from geossl.cube import statistics, work
from geossl.cube.composite import composite
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings, IngestSettings
from geossl.cube.work import run
from geossl.errors import SettingsError

from .conftest import GRID, SENSOR, SceneMaker, digest


def test_a_cluster_writes_the_same_cube(tmp_path: Path, make_scene: SceneMaker, client: Client) -> None:
    scenes = [make_scene(number, cloud=(slice(0, 99), slice(number, 300))) for number in range(5)]
    cubes = []
    for name, where in (("here", None), ("there", client)):
        cube = Cube.create(str(tmp_path / name))
        ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=3), where)
        composite(cube, "s2", CompositeSettings(months=1), where)
        collection = cube.view().collection("s2")
        statistics.store(cube, "s2", statistics.compute(collection, client=where))
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


def test_a_scheduler_that_is_not_there() -> None:
    nowhere = ClusterSettings(scheduler="tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(SettingsError, match="no Dask scheduler answers"),
        dask_client(nowhere),
    ):
        pass
