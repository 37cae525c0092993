"""Runs that the server is wrong about, or that wait in vain.

Automations of the server mark a run as crashed that falls silent, and start it again. They know nothing of one that
fell silent while the server itself was away, as in a power cut: it stays Running, and in its queue nothing ever runs
again. And after a weekend without a worker a hundred runs wait of which one would do.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventNameFilter, EventOrder, EventResourceFilter
from prefect.states import Cancelled, Crashed

from flows.stage import flow_run_name, project_name

LOOK_AGAIN = 75.0
"""Seconds after which whoever was silent is looked at once more: more than two heartbeats. When a server has just
started again, everybody was silent."""

STARTING = dt.timedelta(minutes=30)
"""How long it may take until a run's process or job is there: an image may have to be fetched."""

_PAGE = 200


@flow(name="geossl-mend", flow_run_name=flow_run_name, persist_result=False)
def mend(project_file: Path, overrides: list[str] | None = None, minutes: float = 5) -> list[str]:  # noqa: ARG001
    """Mark runs of this project as crashed whose process is gone, and drop those that wait in vain behind another.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file; none has any effect here.
    minutes:
        After how long without a sign of life a run counts as silent.

    Returns
    -------
    What was done, a line each.
    """
    project = project_name(project_file)
    with get_client(sync_client=True) as client:
        done = [*drop_redundant(client, project), *bury_silent(client, project, dt.timedelta(minutes=minutes))]
    for line in done:
        get_run_logger().warning("%s: %s", project, line)
    return done


def bury_silent(client: SyncPrefectClient, project: str, patience: dt.timedelta) -> Iterator[str]:
    """Mark runs as crashed that gave no sign of life for so long, nor in a second look."""
    if not (suspects := _silent(client, project, patience)):
        return
    time.sleep(LOOK_AGAIN)
    for id, run in _silent(client, project, patience).items():
        if id in suspects and run.state_name == suspects[id].state_name:
            client.set_flow_run_state(id, Crashed(message="no sign of life: its process or machine is gone"))
            yield f"{run.name} gave no sign of life for {patience} and counts as crashed"


def drop_redundant(client: SyncPrefectClient, project: str) -> Iterator[str]:
    """Cancel runs that are due and would only do again what another one does that is due: flows look at what there is."""
    due = FlowRunFilterExpectedStartTime(before_=dt.datetime.now(dt.UTC))
    seen = set()
    for run in _runs(client, project, StateType.SCHEDULED, due):
        same = (run.deployment_id, repr(sorted(run.parameters.items())))
        if same in seen and run.run_count == 0:
            client.set_flow_run_state(run.id, Cancelled(message="another run that is due does the same"))
            yield f"{run.name}, due at {run.expected_start_time}, is dropped: another run that is due does the same"
        seen.add(same)


def _silent(client: SyncPrefectClient, project: str, patience: dt.timedelta) -> dict[UUID, FlowRun]:
    now = dt.datetime.now(dt.UTC)
    long = max(patience, STARTING)
    running = [(run, patience) for run in _runs(client, project, StateType.RUNNING)]
    suspected = [(run, patience) for run in _runs(client, project, StateType.PAUSED) if run.state_name == "Silent"]
    starting = [(run, long) for run in _runs(client, project, StateType.PENDING)]
    return {
        run.id: run
        for run, allowed in running + suspected + starting
        if str(run.id) != runtime.flow_run.id and _last_sign(client, run) < now - allowed
    }


def _last_sign(client: SyncPrefectClient, run: FlowRun) -> dt.datetime:
    """When a run was last heard of: a heartbeat, or the change to the state that it is in."""
    beats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        order=EventOrder.DESC,
    )
    signs: list[dt.datetime] = [event.occurred for event in client.read_events(beats, limit=1).events]
    if run.state is not None:
        signs.append(run.state.timestamp)
    return max(signs)


def _runs(
    client: SyncPrefectClient, project: str, kind: StateType, due: FlowRunFilterExpectedStartTime | None = None
) -> list[FlowRun]:
    """A project's deployed runs in states of one type, those that are due first first."""
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=["geossl", project]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[kind])),
        expected_start_time=due,
    )
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=_PAGE, offset=len(found)
    ):
        found += page
    return [run for run in found if run.deployment_id is not None]
