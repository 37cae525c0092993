"""The servers that other tests stand on: they answer, a worker runs what is asked, and kill -9 loses nothing kept."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun

from tests.flows.server import answers, has_postgres, postgres, server, wait_for

pytestmark = pytest.mark.slow

FLOW = """\
from pathlib import Path
from prefect import flow

@flow(log_prints=True)
def hello(file: Path, text: str):
    file.write_text(text)
"""


def test_a_worker_runs_what_is_asked_and_both_come_back_after_being_killed(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(FLOW)
    with server(tmp_path) as prefect, prefect.reached():
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name="pool", type="process"))
            where = {"path": str(tmp_path), "entrypoint": "hello.py:hello", "work_pool_name": "pool"}
            deployed = client.create_deployment(client.create_flow_from_name("hello"), "hello", **where)

        def run(text: str) -> FlowRun:
            with get_client(sync_client=True) as client:
                asked = {"file": str(tmp_path / text), "text": text}
                run = client.create_flow_run_from_deployment(deployed, parameters=asked)
                return wait_for(lambda: _ended(client.read_flow_run(run.id)), text, log=worker.said)

        with prefect.worker("pool") as worker:
            assert run("first").state_name == "Completed"
            worker.kill()
        prefect.kill()
        assert not answers(prefect.api)
        prefect.start()
        with prefect.worker("pool") as worker:
            assert run("second").state_name == "Completed"
        pid = prefect.pid
    assert (tmp_path / "first").read_text() == "first"
    assert (tmp_path / "second").read_text() == "second"
    assert not psutil.pid_exists(pid)


def test_a_server_that_asks_for_a_password_on_postgresql(tmp_path: Path) -> None:
    if not has_postgres():
        pytest.skip("there is no PostgreSQL 15 here")
    with postgres() as database, server(tmp_path, database.url, auth="admin:secret") as prefect, prefect.reached():
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name="kept", type="process"))
        database.kill()
        database.start()
        with get_client(sync_client=True) as client:
            assert client.read_work_pool("kept").name == "kept"


def _ended(run: FlowRun) -> FlowRun | None:
    return run if run.state is not None and run.state.is_final() else None
