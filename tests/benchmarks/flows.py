"""What Prefect adds: to a verb that runs as a flow, and between an event and the run that it wakes."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event

from flows.deploy import deploy
from flows.events import ACCEPTED, resource_id
from geossl.demo.landscape import LandscapeSettings, write_landscape
from tests.flows.projects import NEVER, TASK, project
from tests.flows.server import PrefectServer, server, wait_for

from .harness import Sides, bench

DATES = (dt.date(2022, 7, 18), dt.date(2022, 9, 1))
MORE = """\
grid: {tile: 256}
cluster: {workers: 1}
sensor: {name: sentinel-2-l2a, bands: [B02, B03, B04, B08]}
"""


@bench(
    "flow-overhead", unit="s", reference="the limit: 5 s more than the verb alone", better="lower", goal=1.0, rounds=3
)
def flow_overhead(folder: Path) -> Iterator[Sides]:
    """`ingest` with nothing new, once as a flow on a running server and once as a verb; from process start to its end."""
    write_landscape(folder / "imagery", LandscapeSettings(size=256, dates=DATES))
    file = project(folder, "overhead", MORE)
    file.write_text(file.read_text().replace("path: imagery", "path: imagery/scenes"))
    verb = [sys.executable, "-m", "geossl.cli.app", "ingest", "--project", str(file)]
    flow = [sys.executable, "-c", "import sys; from flows.ingest import ingest; ingest(sys.argv[1])", str(file)]
    with server(folder / "server") as prefect:
        environment = prefect.client_environment()
        _took(verb, environment)  # the first one does the work
        yield Sides(lambda: _took(flow, environment) - _took(verb, environment), lambda: 5.0)


@bench("event-latency", unit="s", reference="the limit: 10 s", better="lower", goal=1.0, rounds=5)
def event_latency(folder: Path) -> Iterator[Sides]:
    """From an event to the first line that the flow says which it wakes: on SQLite, with a worker that looks every 2 s."""
    file = project(folder, "latency", f"{TASK}deploy: {{{NEVER}}}")
    with server(folder / "server") as prefect, prefect.reached(), get_client(sync_client=True) as client:
        list(deploy(file))
        with prefect.worker("latency"):
            yield Sides(lambda: _latency(client, prefect), lambda: 10.0)


def _took(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    took = time.perf_counter() - start
    assert done.returncode == 0, done.stdout + done.stderr
    return took


def _latency(client: SyncPrefectClient, prefect: PrefectServer) -> float:
    before = {run.id for run in _runs(client)}
    start = time.time()
    emit_event(ACCEPTED, resource={"prefect.resource.id": resource_id("latency")}, payload={"project": "latency"})
    run = wait_for(lambda: [run for run in _runs(client) if run.id not in before], "the run", log=prefect.said)[0]

    def lines() -> list[float]:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
        return [
            log.timestamp.timestamp() for log in logs if log.name == "prefect.flow_runs"
        ]  # its own, not the worker's

    first = min(wait_for(lines, "its first line", log=prefect.said))
    wait_for(lambda: client.read_flow_run(run.id).state_name == "Completed", "its end", log=prefect.said)
    return first - start


def _runs(client: SyncPrefectClient) -> list[FlowRun]:
    return [run for run in client.read_flow_runs(limit=200) if not run.auto_scheduled]
