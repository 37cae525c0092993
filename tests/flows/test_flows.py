"""The flows on a real Prefect server, over a project that is done: each stage is a task that has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import order, run_all


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.usefixtures("server")
def test_the_main_job_as_a_flow_skips_what_is_done(small_project: Path) -> None:
    from flows.ingest import ingest
    from flows.publish import publish
    from flows.retrain import retrain

    run_all(Project.load(small_project), silent)
    assert not ingest(small_project)
    results = [*retrain(small_project), *publish(small_project)]
    assert [result.stage for result in results] == list(order(Project.load(small_project)))[1:]
    assert all(result.skipped for result in results)
