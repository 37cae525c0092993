"""`infra/local`: every service really starts, is used, is killed, is taken up again, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from . import stack

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(stack.absent()), reason=stack.absent()),
]

SERVICES = {"postgres", "s3", "dask-scheduler", "dask-worker-1", "dask-worker-2", "prefect-server", "mlflow-server"}

SLEEPY = """\
import os, subprocess, sys
from pathlib import Path
from prefect import flow

@flow
def sleepy(folder: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (Path(folder) / "started.part").write_text(f"{os.getpid()} {child.pid}")
    (Path(folder) / "started.part").rename(Path(folder) / "started")
    child.wait()

if __name__ == "__main__":
    from prefect.deployments import run_deployment
    folder = sys.argv[1]
    there = flow.from_source(source=folder, entrypoint="sleepy.py:sleepy")
    there.deploy(name="test", work_pool_name="geossl", print_next_steps=False)
    print(run_deployment("sleepy/test", parameters={"folder": folder}, timeout=0).id)
"""


@pytest.fixture(scope="module")
def up() -> Iterator[Path]:
    with stack.folder() as folder:
        stack.local("up", folder)
        yield folder


def ask(folder: Path, path: str, **body: Any) -> Any:
    """The Prefect server's answer."""
    address = stack.environment(folder)["PREFECT_API_URL"] + path
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def mlflow_names(folder: Path) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(stack.environment(folder)["MLFLOW_TRACKING_URI"])
    return {experiment.name for experiment in client.search_experiments()}


def psql(folder: Path, statement: str, database: str = "postgres") -> str:
    command = ["psql", "-X", "-t", "-A", "-d", database, "-c", statement]
    environment = os.environ | stack.environment(folder)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_every_service_answers_and_works(up: Path) -> None:
    from distributed import Client
    from mlflow import MlflowClient
    from obstore.store import S3Store

    told = stack.environment(up)
    assert set(stack.pids(up)) == SERVICES | {"worker-1"}
    assert stack.local("status", up).count(" well ") == len(SERVICES) + 1
    # nobody but the owner reads the password
    assert all((up / name).stat().st_mode & 0o077 == 0 for name in ("environment", "stack.json", "logs", "postgres"))
    # the worker has made its pool
    assert [pool["name"] for pool in ask(up, "/work_pools/filter")] == ["geossl"]
    with Client(told["DASK_SCHEDULER_ADDRESS"]) as client:
        client.wait_for_workers(2, timeout=30)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        assert {worker["nthreads"] for worker in client.scheduler_info()["workers"].values()} == {1}
    MlflowClient(told["MLFLOW_TRACKING_URI"]).create_experiment("kept")
    keys = {"access_key_id": told["AWS_ACCESS_KEY_ID"], "secret_access_key": told["AWS_SECRET_ACCESS_KEY"]}
    bucket = S3Store(
        "geossl", endpoint=told["AWS_ENDPOINT_URL"], region="us-east-1", client_options={"allow_http": True}, **keys
    )
    bucket.put("a", b"bytes")
    assert bytes(bucket.get("a").bytes()) == b"bytes"
    assert psql(up, "select count(*) from pg_extension where extname = 'pg_trgm'", "prefect") == "1"


def test_all_listen_on_loopback_alone(up: Path) -> None:
    sessions = set(stack.pids(up).values())
    mine = [process for process in psutil.process_iter() if stack.session(process.pid) in sessions]
    heard = [
        connection.laddr.ip
        for process in mine
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(heard) >= len(SERVICES)
    assert set(heard) == {"127.0.0.1"}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_database_asks_for_the_password(up: Path) -> None:
    command = ["psql", "-X", "-w", "-d", "prefect", "-c", "select 1"]
    wrong = os.environ | stack.environment(up) | {"PGPASSWORD": "wrong"}
    refused = subprocess.run(command, env=wrong, check=False, capture_output=True, text=True)
    assert "password authentication failed" in refused.stderr


def test_one_service_restarts_alone(up: Path) -> None:
    before = stack.pids(up)
    stack.local("restart", up, "dask-worker-1")
    after = stack.pids(up)
    assert {name for name in before if before[name] != after[name]} == {"dask-worker-1"}
    assert "no service is called 'nobody'" in stack.local("restart", up, "nobody", check=False)


def test_what_was_killed_is_taken_up(up: Path) -> None:
    before = stack.pids(up)
    for name in before:
        stack.local("kill", up, name)
    assert stack.pids(up) == {}
    assert "NOT WELL" in stack.local("status", up, check=False)
    stack.local("up", up)
    assert set(stack.pids(up)) == set(before)
    assert "kept" in mlflow_names(up)
    assert [pool["name"] for pool in ask(up, "/work_pools/filter")] == ["geossl"]
    stack.local("up", up)  # changes nothing
    assert "runs already" in stack.local("up", up)


def test_lost_databases_are_made_anew(up: Path) -> None:
    for name in ("prefect", "mlflow"):
        psql(up, f"drop database {name} with (force)")
    for name in ("prefect-server", "mlflow-server", "worker-1"):
        stack.local("restart", up, name)
    assert "kept" not in mlflow_names(up)
    assert [pool["name"] for pool in ask(up, "/work_pools/filter")] == ["geossl"]


def test_down_leaves_no_process(up: Path) -> None:
    (up / "sleepy.py").write_text(SLEEPY)
    told = stack.programs() | stack.environment(up)
    subprocess.run([sys.executable, up / "sleepy.py", up], env=told, check=True, capture_output=True)
    deadline = time.monotonic() + 120
    while not (up / "started").exists():
        assert time.monotonic() < deadline, (up / "logs/worker-1.log").read_text()
        time.sleep(0.2)
    flow, child = map(int, (up / "started").read_text().split())
    os.kill(stack.pids(up)["worker-1"], signal.SIGKILL)  # whose flow is then nobody's
    everyone = [*stack.pids(up).values(), flow, child]
    stack.local("down", up)
    assert not any(map(alive, everyone))
    assert stack.pids(up) == {}
    assert "ended 0 services" in stack.local("down", up)


def test_what_is_no_longer_asked_for_is_ended() -> None:
    with stack.folder() as folder:
        stack.local("up", folder, "--only", "dask-scheduler", "--only", "dask-worker", "--only", "s3")
        before = stack.pids(folder)
        assert set(before) == {"dask-scheduler", "dask-worker-1", "dask-worker-2", "s3"}
        stack.local("up", folder, "--dask-workers", "1", "--without", "s3")
        after = stack.pids(folder)
        assert after == {name: before[name] for name in ("dask-scheduler", "dask-worker-1")}
        assert not alive(before["s3"])
        assert "AWS_ENDPOINT_URL" not in stack.environment(folder)
        stack.local("down", folder)
        assert not any(map(alive, before.values()))


def test_a_database_that_was_killed_starts_at_once() -> None:
    with stack.folder() as folder:
        for _ in range(3):
            stack.local("up", folder, "--only", "postgres")
            assert psql(folder, "select 1") == "1"
            stack.local("kill", folder, "postgres")
        stack.local("up", folder)
        stack.local("restart", folder, "postgres")
        assert psql(folder, "select 1") == "1"


def test_a_folder_that_never_was(tmp_path: Path) -> None:
    assert "nothing was ever started" in stack.local("down", tmp_path)
    assert stack.local("status", tmp_path, check=False) == ""
