"""The flows on a real Prefect server, over a project that is done: each stage is a task that has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow, get_run_logger, tags
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.testing.utilities import prefect_test_harness

from flows.history import trim
from flows.stage import by_quarters
from geossl.errors import SettingsError
from geossl.progress import silent
from geossl.project import notify
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
    from flows.watch import watch

    run_all(Project.load(small_project), silent)
    with tags("geossl", "small"):
        assert not watch(small_project)
        assert not ingest(small_project)
        results = [*retrain(small_project), *publish(small_project)]
    assert [result.stage for result in results] == list(order(Project.load(small_project)))[1:]
    assert all(result.skipped for result in results)
    with get_client(sync_client=True) as client:
        assert {run.name for run in client.read_flow_runs()} == {
            f"{what} small" for what in ("watch", "ingest", "retrain", "publish")
        }
        tasks = {run.name: set(run.tags) for run in client.read_task_runs()}
    assert {"watch small", "ingest small", "stats small", "pretrain small", "map small"} <= tasks.keys()
    assert {"geossl", "small", "model:landcover-v1"} <= tasks["map small"]


@pytest.mark.usefixtures("server")
def test_a_person_hears_of_a_flow_that_fails_until_it_succeeds(small_project: Path) -> None:
    from flows.watch import watch

    project = Project.load(small_project)
    run_all(project, silent)
    with pytest.raises(SettingsError):
        watch(small_project, ["grid.nonsense=1"])
    [told] = notify.open_conditions(project)
    assert (told["kind"], told["what"]) == ("failed", "geossl-watch")
    assert "nonsense" in told["body"]
    watch(small_project)
    assert notify.open_conditions(project) == []


@pytest.mark.usefixtures("server")
def test_old_runs_of_a_project_are_deleted_with_what_they_said_and_showed(small_project: Path) -> None:
    @flow
    def says(project: str) -> None:
        get_run_logger().info("said")
        create_markdown_artifact(f"of {project}", key=f"{project}-shown")

    for name in ("tidy", "other"):
        with tags("geossl", name):
            says(name)
    assert trim("tidy", days=1) == 0
    assert trim("tidy", days=0) == 1
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["says"])))
        shown = {artifact.key for artifact in client.read_artifacts()}
    assert [set(run.tags) for run in runs] == [{"geossl", "other"}]
    assert shown & {"tidy-shown", "other-shown"} == {"other-shown"}


def test_progress_is_logged_by_quarters_however_often_it_is_told() -> None:
    said: list[str] = []
    progress = by_quarters(said.append)
    progress("looking", 0, None)
    for step in range(9):
        for _ in range(3):  # as of a training, which is looked at several times a step
            progress("training", step, 8)
    assert said == ["looking", *(f"training: {step} of 8" for step in (0, 2, 4, 6, 8))]
