"""Ingest by jobs of a real Slurm cluster."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import dask
import pytest
from pydantic import ByteSize

from geossl.cluster import ClusterSettings, SlurmSettings, dask_client
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import SettingsError

from .conftest import GRID, SENSOR, SceneMaker, digest
from .slurm import absent, jobs, slurm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(absent()), reason=absent())]


def test_an_ingest_on_slurm_survives_a_cancelled_job(
    tmp_path: Path, make_scene: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [make_scene(number, cloud=(slice(0, 99), slice(number, 300))) for number in range(8)]
    here, there = (Cube.create(str(tmp_path / name)) for name in ("here", "there"))
    ingest(here, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2))
    monkeypatch.chdir(tmp_path)
    with slurm(tmp_path / "slurm") as environment, dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        with (
            pytest.raises(SettingsError, match="invalid partition"),
            dask_client(ClusterSettings(slurm=SlurmSettings(queue="nowhere"))),
        ):
            pass
        settings = SlurmSettings(queue="main", workers=2, memory=ByteSize(10**9))
        cancelled: list[str] = []

        def cancel(what: str, done: int, total: int | None, note: str = "") -> None:
            """One of two jobs, in the middle of the first wave."""
            if what == "tiles" and not cancelled:
                cancelled.extend(jobs(environment)[:1])
                subprocess.run(["scancel", *cancelled], env=environment, check=True)

        with dask_client(ClusterSettings(slurm=settings)) as client:
            client.wait_for_workers(2, timeout=60)
            first = jobs(environment)
            assert {worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()} == {1}
            report = ingest(there, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2), client, progress=cancel)
            assert cancelled
            deadline = time.monotonic() + 60
            while len(running := jobs(environment)) < 2 or set(running) & set(cancelled):
                assert time.monotonic() < deadline, "the cancelled job was not replaced"
                time.sleep(0.2)
            assert set(running) - set(first)
        deadline = time.monotonic() + 60
        while jobs(environment):
            assert time.monotonic() < deadline, "jobs outlive the ingest"
            time.sleep(0.2)
    assert report.ingested == [scene.id for scene in scenes]
    assert digest(there.view()) == digest(here.view())


def test_jobs_come_and_go_with_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with slurm(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        settings = SlurmSettings(workers=(0, 2), memory=ByteSize(10**9), logs=tmp_path / "logs")
        with dask_client(ClusterSettings(slurm=settings)) as client:
            assert jobs(environment) == []
            assert client.submit(str, 1).result(timeout=60) == "1"
            deadline = time.monotonic() + 60
            while jobs(environment):
                assert time.monotonic() < deadline, "an idle job stays"
                time.sleep(0.2)
    assert list((tmp_path / "logs").glob("*.err"))
