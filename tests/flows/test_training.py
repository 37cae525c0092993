"""A training under Prefect that is cancelled, or whose flow, worker, server or database is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import torch
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling

from flows.deploy import deploy
from geossl.files import read_json
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import stage
from tests.project.test_launch import ranks

from .projects import NEVER
from .server import PrefectServer, Process, has_postgres, postgres, server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "trained"
SETTINGS = f"""\
name: {NAME}
grid: {{ tile: 256 }}
cluster: {{ workers: 1 }}
sensor: {{ name: sentinel-2-l2a, bands: [B02, B03, B04, B08] }}
sources:
  - {{ kind: folder, path: imagery/scenes }}
composite: null
pretrain: {{ encoder: {{ name: unet-tiny }}, epochs: 100000, chip: 32, batch_size: 8, threads: 1 }}
deploy: {{ {NEVER} }}
"""

GONE = 30.0
"""Seconds in which everything that a killed run had started is gone."""
AGAIN = 150.0
"""Seconds in which it is started again."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has everything but an encoder, and whose training takes for ever."""
    from geossl.demo.landscape import LandscapeSettings, write_landscape

    folder = tmp_path_factory.mktemp("trained")
    write_landscape(folder / "imagery", LandscapeSettings(size=256))
    (folder / "geossl.yaml").write_text(SETTINGS)
    for verb in ("ingest", "stats"):
        stage(verb)(Project.load(folder), silent)
    return folder


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[PrefectServer]:
    with server(tmp_path_factory.mktemp("server")) as started, started.reached():
        list(deploy(prepared))
        yield started


@pytest.fixture
def client(prefect: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def begin(client: SyncPrefectClient) -> UUID:
    """Start a training."""
    deployment = client.read_deployment_by_name(f"geossl-pretrain/{NAME}-pretrain")
    return client.create_flow_run_from_deployment(deployment.id).id


def told(folder: Path, since: float = 0.0) -> int | None:
    """The step that a training has told of last, after some time (seconds since 1970)."""
    for path in folder.glob("store/encoders/unfinished-*/launch/progress.json"):
        with contextlib.suppress(FileNotFoundError):
            written, said = path.stat().st_mtime, read_json(path)
            if written > since and said is not None and said["what"] == "pretraining":
                return int(said["done"])
    return None


def trains(folder: Path, after: int = 0) -> int:
    """Wait until a training has come some steps further, and say how far it is."""

    def far() -> int | None:
        step = told(folder)
        return step if step is not None and step > after + 5 and ranks(folder) else None

    return wait_for(far, f"a training beyond step {after}", seconds=240)


def flow_process(folder: Path) -> psutil.Process:
    """The process of the flow run that has started the training."""
    [agent] = [process for process in ranks(folder) if "geossl.train.remote.agent" in process.cmdline()]
    parent = agent.parent()
    assert parent is not None
    return parent


def checkpoint(folder: Path) -> int:
    """The step of the last checkpoint."""
    [path] = folder.glob("store/encoders/unfinished-*/checkpoints/last.ckpt")
    return int(torch.load(path, weights_only=True)["step"])


def gone(folder: Path) -> None:
    wait_for(lambda: not ranks(folder), "the end of all that trains", seconds=GONE)


def state(client: SyncPrefectClient, run: UUID) -> StateType | None:
    return client.read_flow_run(run).state_type


def cancel(client: SyncPrefectClient, run: UUID) -> FlowRun:
    """As the button of the UI does."""
    client.set_flow_run_state(run, Cancelling(), force=True)
    return wait_for(
        lambda: found if (found := client.read_flow_run(run)).state_type == StateType.CANCELLED else None,
        "a run that is cancelled",
        seconds=90,
    )


def started_again(
    client: SyncPrefectClient, run: UUID, folder: Path, since: float, *, left: int, gone_at: float
) -> None:
    """It trains again in time, from the last checkpoint; then it is cancelled."""
    wait_for(
        lambda: client.read_flow_run(run).run_count > 1 and state(client, run) == StateType.RUNNING,
        "the run, started again",
        seconds=AGAIN - (time.monotonic() - since),
        log=lambda: str(client.read_flow_run(run)),
    )
    first = wait_for(lambda: told(folder, since=gone_at), "the first step of the run that goes on", seconds=240)
    assert first > left, "it goes on from the checkpoint, not from the beginning"
    cancel(client, run)
    gone(folder)


def test_cancelled_it_leaves_a_checkpoint_and_no_process(
    prefect: PrefectServer, client: SyncPrefectClient, prepared: Path
) -> None:
    with prefect.worker(NAME):
        run = begin(client)
        before = trains(prepared)
        # what a person sees of it while it runs
        [curve] = wait_for(
            lambda: [each for each in client.read_artifacts() if each.flow_run_id == run], "a curve", seconds=90
        )
        assert str(curve.data).startswith("data:image/svg+xml;base64,")
        assert "loss" in str(curve.description)
        found = cancel(client, run)
        gone(prepared)
    assert found.run_count == 1
    assert checkpoint(prepared) >= before


Kill = Callable[[psutil.Process, Process], None]


def kill_flow(flow: psutil.Process, worker: Process) -> None:
    flow.kill()


def kill_worker(flow: psutil.Process, worker: Process) -> None:
    worker.kill()


def kill_both(flow: psutil.Process, worker: Process) -> None:
    os.kill(worker.pid, signal.SIGSTOP)  # so that it says nothing of the flow
    flow.kill()
    worker.kill()


@pytest.mark.parametrize("kill", [kill_flow, kill_worker, kill_both])
def test_killed_it_is_started_again_and_goes_on(
    kill: Kill, prefect: PrefectServer, client: SyncPrefectClient, prepared: Path
) -> None:
    with prefect.worker(NAME) as worker:
        run = begin(client)
        before = trains(prepared)
        since = time.monotonic()
        kill(flow_process(prepared), worker)
        gone(prepared)
        gone_at = time.time()
        left = checkpoint(prepared)
        assert left >= before
        if kill is kill_flow:
            started_again(client, run, prepared, since, left=left, gone_at=gone_at)
            return
    with prefect.worker(NAME):  # as whoever looks after the worker starts it again
        started_again(client, run, prepared, since, left=left, gone_at=gone_at)


def test_it_goes_on_while_the_server_is_dead(prefect: PrefectServer, client: SyncPrefectClient, prepared: Path) -> None:
    with prefect.worker(NAME) as worker:
        run = begin(client)
        before = trains(prepared)
        flow = flow_process(prepared)
        prefect.kill()
        time.sleep(100)  # longer than it takes until a run that is silent counts as crashed
        assert flow.is_running()
        before = trains(prepared, after=before)
        prefect.start()
        time.sleep(100)
        assert flow_process(prepared) == flow, "nobody took it for dead"
        assert client.read_flow_run(run).run_count == 1
        trains(prepared, after=before)
        worker.kill()  # Prefect 3.8 no longer listens for a cancellation once its server was away
        gone(prepared)


@pytest.mark.skipif(not has_postgres(), reason="PostgreSQL is not installed")
def test_it_goes_on_while_the_database_is_dead(prepared: Path, tmp_path: Path) -> None:
    with (
        postgres() as database,
        server(tmp_path, database.url) as prefect,
        prefect.reached(),
        get_client(sync_client=True) as client,
    ):
        list(deploy(prepared))
        with prefect.worker(NAME) as worker:
            run = begin(client)
            before = trains(prepared)
            flow = flow_process(prepared)
            database.kill()
            time.sleep(60)
            before = trains(prepared, after=before)
            database.start()
            trains(prepared, after=before)
            assert flow_process(prepared) == flow
            wait_for(lambda: state(client, run) == StateType.RUNNING, "the server with its database", seconds=60)
            worker.kill()
            gone(prepared)
