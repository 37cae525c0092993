"""What a server does by itself with deployed flows: events start runs, and runs whose process dies are started again.

Real servers on PostgreSQL, real workers, kill -9.
"""

from __future__ import annotations

import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.states import Pending, Running

from flows import mend
from flows.deploy import deploy
from flows.events import ACCEPTED, INGESTED, PROMOTED, resource_id
from tests.flows.projects import NEVER, SLEEPER, TASK, project
from tests.flows.server import PrefectServer, has_postgres, postgres, server, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(420),
    pytest.mark.skipif(not has_postgres(), reason="there is no PostgreSQL 15 here"),
]

STARTED = ("Pending", "Submitting", "Running", "Completed", "Failed", "AwaitingRetry")
"""States of a run that a worker has taken up."""


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server that the tests of this file may kill, if they start it again."""
    with postgres() as database, server(tmp_path_factory.mktemp("prefect"), database.url) as prefect, prefect.reached():
        yield prefect


@pytest.fixture
def client(prefect: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def test_events_start_flows_and_those_of_others_do_not(
    tmp_path: Path, prefect: PrefectServer, client: SyncPrefectClient
) -> None:
    list(deploy(project(tmp_path / "one", "eventful", f"{TASK}deploy: {{{NEVER}}}")))
    list(deploy(project(tmp_path / "other", "quiet", f"{TASK}deploy: {{{NEVER}}}")))
    with prefect.worker("eventful") as worker:
        emit(ACCEPTED, "eventful")
        emit(ACCEPTED, "unknown")
        run = wait_for(lambda: runs(client, "eventful-publish", "Completed"), "publish", seconds=150, log=worker.said)[
            0
        ]
        assert run.name == "publish eventful"
        assert {"geossl", "eventful"} <= set(run.tags)
        emit(PROMOTED, "eventful")
        wait_for(lambda: len(runs(client, "eventful-publish", *STARTED)) == 2, "publish again", log=worker.said)
        emit(INGESTED, "eventful")
        wait_for(lambda: runs(client, "eventful-retrain", *STARTED), "retrain", log=worker.said)
    assert not runs(client, "quiet-publish", "Scheduled", "Late")


def test_a_run_whose_machine_dies_is_started_again_but_not_for_ever(
    tmp_path: Path, prefect: PrefectServer, client: SyncPrefectClient
) -> None:
    list(deploy(project(tmp_path, "mortal", f"deploy: {{attempts: 2, {NEVER}}}")))
    run, started = sleeper(tmp_path, "mortal", client, seconds=600)
    with prefect.worker("mortal") as worker:
        wait_for(lambda: len(started()) == 1, "the first start", log=worker.said)
        worker.kill()
        os.kill(started()[0], signal.SIGKILL)
        killed = time.monotonic()
    with prefect.worker("mortal") as worker:
        wait_for(lambda: len(started()) == 2, "the second start", seconds=150, log=worker.said)
        assert time.monotonic() - killed < 150
        wait_for(lambda: client.read_flow_run(run).state_name == "Running", "the second attempt to run")
        os.kill(started()[1], signal.SIGKILL)  # the worker lives and says so at once
        wait_for(lambda: client.read_flow_run(run).state_name == "Crashed", "the end", seconds=60, log=worker.said)
        time.sleep(15)
        assert client.read_flow_run(run).state_name == "Crashed"
        assert client.read_flow_run(run).run_count == 2
        assert len(started()) == 2


def test_a_run_goes_on_while_its_server_is_dead(
    tmp_path: Path, prefect: PrefectServer, client: SyncPrefectClient
) -> None:
    list(deploy(project(tmp_path, "steady", f"deploy: {{{NEVER}}}")))
    run, started = sleeper(tmp_path, "steady", client, seconds=140)
    with prefect.worker("steady") as worker:
        wait_for(lambda: started(), "the start", log=worker.said)
        wait_for(lambda: client.read_flow_run(run).state_name == "Running", "the run")
        time.sleep(5)
        prefect.kill()
        time.sleep(60)  # longer than a run may be silent
        prefect.start()
        wait_for(lambda: client.read_flow_run(run).state_name == "Completed", "the end", seconds=150, log=worker.said)
    names = [state.name for state in client.read_flow_run_states(run)]
    assert "Crashed" not in names
    assert len(started()) == 1
    assert psutil.pid_exists(prefect.pid)


def test_after_a_power_cut_what_never_ended_is_found(
    tmp_path: Path, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(tmp_path, "dark", f"deploy: {{{NEVER}}}")
    list(deploy(file))
    gone, alive = (sleeper(tmp_path, "dark", client, seconds=1)[0] for _ in range(2))
    for run in (gone, alive):  # as a power cut of everything leaves them: no process, and no bucket of an automation
        client.set_flow_run_state(run, Pending())
        client.set_flow_run_state(run, Running())
    monkeypatch.setattr(mend, "LOOK_AGAIN", 14.0)
    time.sleep(13)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1):  # a server that was away is back, and whoever lives is heard again
            emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{alive}"})

    heart = threading.Thread(target=contextvars.copy_context().run, args=(beat,))
    heart.start()
    done = mend.mend(file, minutes=12 / 60)
    over.set()
    heart.join()
    assert len(done) == 1
    assert "Crashed" in {state.name for state in client.read_flow_run_states(gone)}  # and is started again by now
    assert client.read_flow_run(alive).state_name == "Running"


def test_of_many_runs_that_wait_one_is_left(tmp_path: Path, client: SyncPrefectClient) -> None:
    file = project(tmp_path, "late", f"deploy: {{{NEVER}}}")
    list(deploy(file))
    watch = next(one for one in client.read_deployments() if one.name == "late-watch")
    for _ in range(5):
        client.create_flow_run_from_deployment(watch.id)
    other = client.create_flow_run_from_deployment(watch.id, parameters={"overrides": ["map.minimum_ha=2"]})
    done = mend.mend(file)
    assert len(done) == 4
    left = runs(client, "late-watch", "Scheduled", "Late")
    assert len(left) == 2
    assert other.id in {run.id for run in left}


def emit(event: str, name: str) -> None:
    emit_event(event, resource={"prefect.resource.id": resource_id(name)}, payload={"project": name})


def sleeper(folder: Path, name: str, client: SyncPrefectClient, seconds: float) -> tuple[UUID, Callable[[], list[int]]]:
    """Deploy a flow that sleeps, beside a project's, and ask for one run of it; its id, and the processes it had."""
    (folder / "sleeper.py").write_text(SLEEPER)
    deployed = client.create_deployment(
        client.create_flow_from_name("geossl-sleeper"),
        f"{name}-by-hand",
        path=str(folder),
        entrypoint="sleeper.py:sleeper",
        work_pool_name=name,
        work_queue_name=f"{name}-training",
        tags=["geossl", name],
        job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}},
    )
    run = client.create_flow_run_from_deployment(deployed, parameters={"folder": str(folder), "seconds": seconds})
    said = folder / "said"

    def started() -> list[int]:
        lines = said.read_text().splitlines() if said.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith("start")]

    return run.id, started


def runs(client: SyncPrefectClient, deployment: str, *states: str) -> list[FlowRun]:
    """Runs of a deployment in these states."""
    found = next(one for one in client.read_deployments() if one.name == deployment)
    every = client.read_flow_runs(limit=200)
    return [run for run in every if run.deployment_id == found.id and run.state_name in states]
