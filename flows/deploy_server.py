"""A Prefect server as `geossl deploy` sees it: what lies there of a project, and how that is made, changed, removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentScheduleUpdate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import FlowFilter, FlowFilterId, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import Flow, WorkPool, WorkQueue
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.deploy_changes import Change, Found
from flows.deploy_wanted import Thing, marker, normal_trigger
from geossl.errors import GeosslError, SettingsError

_PAGE = 200
"""What a server lists at most in one answer."""


class Server:
    """One server, and what lies there of one project."""

    def __init__(self, client: SyncPrefectClient, project: str) -> None:
        self.client = client
        self.project = project

    def found(self, queues: Collection[str] = ()) -> list[Found]:
        """Everything that was put there for this project, and nothing else.

        Parameters
        ----------
        queues:
            Work queues that are the project's too where nobody has described them: `prefect deploy` makes them so.
        """
        flows = self._flows()
        deployments = list(self._deployments(flows))
        names = {one.id: f"{flows[one.flow_id].name}/{one.name}" for one in deployments}
        return [
            *(Found(_pool(pool), pool.id) for pool in _all(self.client.read_work_pools) if self._made(pool)),
            *(
                Found(_queue(queue), queue.id)
                for queue in _all(self.client.read_work_queues)
                if self._made(queue) or (not queue.description and _queue(queue).name in queues)
            ),
            *(Found(_deployment(one, names[one.id]), one.id) for one in deployments),
            *(
                Found(_automation(automation, names), automation.id)
                for automation in _all(self.client.read_automations)
                if {"geossl", self.project} <= set(automation.tags) or self._by_prefect_deploy(automation, names)
            ),
        ]

    def foreign_pool(self, name: str) -> bool:
        """Whether there is a work pool of this name that was not made for this project."""
        return any(pool.name == name and not self._made(pool) for pool in _all(self.client.read_work_pools))

    def others_in(self, pool: str) -> int:
        """How many deployments of others a work pool serves."""
        ours = {deployment.id for deployment in self._deployments(self._flows())}
        others = _all(self.client.read_deployments)
        return sum(deployment.work_pool_name == pool and deployment.id not in ours for deployment in others)

    def online(self, pool: str) -> bool:
        """Whether any worker of a pool is at work."""
        return any(worker.status == "ONLINE" for worker in self.client.read_workers_for_work_pool(pool))

    def do(self, change: Change) -> None:
        """Make one change."""
        try:
            getattr(self, f"_{change.verb}_{change.thing.kind.replace(' ', '_')}")(change)
        except ObjectAlreadyExists:
            raise GeosslError(
                f"{change.thing.kind} {change.thing.name} is on the Prefect server already, and was not made by geossl",
                "rename or remove it there, or give this project another `name:`",
            ) from None
        except PrefectHTTPStatusError as error:
            said = error.response.json().get("detail", error.response.text)
            raise GeosslError(
                f"the Prefect server does not {change.verb} {change.thing.kind} {change.thing.name}: {said}"
            ) from None

    def remove_idle_flows(self, names: set[str]) -> Iterator[str]:
        """Forget flows that no deployment uses, but those of which runs are kept; the names of the forgotten."""
        used = {deployment.flow_id for deployment in _all(self.client.read_deployments)}
        for id, flow in self._flows().items():
            if flow.name in names and id not in used and not self._has_runs(id):
                self.client.delete_flow(id)
                yield flow.name

    def _made(self, one: WorkPool | WorkQueue) -> bool:
        """Whether a pool or queue was made for this project."""
        return (one.description or "").startswith(marker(self.project))

    def _by_prefect_deploy(self, automation: Automation, names: dict[UUID, str]) -> bool:
        """Whether `prefect deploy` has made it from the same ``prefect.yaml``: without tags, but it runs what is ours."""
        runs = {getattr(action, "deployment_id", None) for action in automation.actions}
        return automation.name.startswith(f"{self.project}: ") and bool(runs & set(names))

    def _has_runs(self, flow: UUID) -> bool:
        of_flow = FlowFilter(id=FlowFilterId(any_=[flow]))
        return bool(self.client.read_flow_runs(flow_filter=of_flow, flow_run_filter=FlowRunFilter(), limit=1))

    def _flows(self) -> dict[UUID, Flow]:
        ours = FlowFilter(name=FlowFilterName(like_="geossl-"))
        found = self.client.read_flows(flow_filter=ours, limit=_PAGE)
        return {flow.id: flow for flow in found if flow.name.startswith("geossl-")}

    def _deployments(self, flows: dict[UUID, Flow]) -> Iterator[DeploymentResponse]:
        for deployment in _all(self.client.read_deployments):
            flow = flows.get(deployment.flow_id)
            if flow is not None and deployment.name == f"{self.project}-{flow.name.removeprefix('geossl-')}":
                yield deployment

    def _add_work_pool(self, change: Change) -> None:
        self.client.create_work_pool(WorkPoolCreate(name=change.thing.name, **change.thing.fields))

    def _change_work_pool(self, change: Change) -> None:
        if "type" in change.fields:
            assert change.found is not None
            old, new = change.found.thing.fields["type"], change.thing.fields["type"]
            raise SettingsError(
                f"work pool {change.thing.name} is of type {old}, and deploy.kind says {new}: Prefect changes no pool's type",
                "name another deploy.pool, or `geossl undeploy` first",
            )
        self.client.update_work_pool(change.thing.name, WorkPoolUpdate(description=change.thing.fields["description"]))

    def _remove_work_pool(self, change: Change) -> None:
        self.client.delete_work_pool(change.thing.name)

    def _add_work_queue(self, change: Change) -> None:
        pool, name = change.thing.name.split("/", 1)
        self.client.create_work_queue(name, work_pool_name=pool, **change.thing.fields)

    def _change_work_queue(self, change: Change) -> None:
        self.client.update_work_queue(_id(change), **{name: change.thing.fields[name] for name in change.fields})

    def _remove_work_queue(self, change: Change) -> None:
        self.client.delete_work_queue_by_id(_id(change))

    def _add_deployment(self, change: Change) -> None:
        flow, name = change.thing.name.split("/", 1)
        fields = dict(change.thing.fields)
        schedules = [DeploymentScheduleCreate(schedule=_schedule(said)) for said in fields.pop("schedules")]
        id = self.client.create_flow_from_name(flow)
        self.client.create_deployment(
            id, name, schedules=schedules, pull_steps=[], enforce_parameter_schema=True, **fields
        )

    def _change_deployment(self, change: Change) -> None:
        fields = {name: change.thing.fields[name] for name in change.fields}
        if {"work_pool_name", "work_queue_name"} & set(fields):  # a queue is found by both
            fields |= {name: change.thing.fields[name] for name in ("work_pool_name", "work_queue_name")}
        if "schedules" in fields:
            fields["schedules"] = [DeploymentScheduleUpdate(schedule=_schedule(said)) for said in fields["schedules"]]
        self.client.update_deployment(_id(change), DeploymentUpdate(**fields))

    def _remove_deployment(self, change: Change) -> None:
        self.client.delete_deployment(_id(change))

    def _add_automation(self, change: Change) -> None:
        self.client.create_automation(self._automation(change, enabled=True))

    def _change_automation(self, change: Change) -> None:
        now = self.client.read_automation(_id(change))
        core = self._automation(change, enabled=now is None or now.enabled)
        said = {name: getattr(core, name) for name in core.model_fields_set - {"owner_resource"}}  # that never changes
        self.client.update_automation(_id(change), AutomationCore(**said))

    def _remove_automation(self, change: Change) -> None:
        self.client.delete_automation(_id(change))

    def _automation(self, change: Change, *, enabled: bool) -> AutomationCore:
        flows = self._flows()
        ids = {f"{flows[one.flow_id].name}/{one.name}": one.id for one in self._deployments(flows)}
        actions, owner = [], None
        for action in change.thing.fields["actions"]:
            if "deployment" in action:
                id = ids[action["deployment"]]
                actions.append({"type": action["type"], "deployment_id": id})
                owner = f"prefect.deployment.{id}"  # who deletes the deployment in the UI deletes its trigger
            else:
                actions.append(action)
        fields = change.thing.fields | {"name": change.thing.name, "actions": actions, "enabled": enabled}
        return AutomationCore.model_validate(fields | {"owner_resource": owner})


@contextmanager
def connected(project: str) -> Iterator[Server]:
    """The server that PREFECT_API_URL names, if it is a suitable one.

    Raises
    ------
    SettingsError
        None is named, none answers, it asks for a password, or its version does not suit.
    """
    address = PREFECT_API_URL.value()
    if not address:  # Prefect would start a server of its own that ends with this command
        raise SettingsError(
            "no Prefect server is named",
            "start one with `prefect server start`, and set PREFECT_API_URL, such as http://127.0.0.1:4200/api",
        )
    with get_client(sync_client=True) as client:
        try:
            require_suitable(client.api_version(), address)
            yield Server(client, project)
        except httpx.TransportError as error:
            raise SettingsError(
                f"no Prefect server answers at {address}: {error}",
                "start one with `prefect server start`, or set PREFECT_API_URL to where it is",
            ) from None
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (401, 403):
                raise
            raise SettingsError(
                f"the Prefect server at {address} asks for a user and a password, or refuses those given",
                "set PREFECT_API_AUTH_STRING to user:password",
            ) from None


def require_suitable(version: str, address: str) -> None:
    """Refuse a server that is older than this Prefect by more than its last digit, or of another generation."""
    (own, own_minor), (theirs, their_minor) = _release(prefect.__version__), _release(version)
    if theirs != own or their_minor < own_minor:
        raise SettingsError(
            f"the Prefect server at {address} is version {version}; the flows here are written for Prefect "
            f"{prefect.__version__}, and need a server of {own}.{own_minor} or a later {own}.x",
            "update the server, or use another",
        )


def _release(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def _all(read: Callable[..., list[Any]]) -> Iterator[Any]:
    """Page through one of the client's lists."""
    offset = 0
    while page := read(limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)
        if len(page) < _PAGE:
            return


def _id(change: Change) -> UUID:
    assert change.found is not None, change
    return change.found.id


def _pool(pool: WorkPool) -> Thing:
    return Thing("work pool", pool.name, {"type": pool.type, "description": pool.description})


def _queue(queue: WorkQueue) -> Thing:
    fields = {"concurrency_limit": queue.concurrency_limit, "description": queue.description}
    return Thing("work queue", f"{queue.work_pool_name}/{queue.name}", fields)


def _deployment(deployment: DeploymentResponse, name: str) -> Thing:
    plain = (
        "entrypoint",
        "description",
        "parameters",
        "work_pool_name",
        "work_queue_name",
        "job_variables",
        "parameter_openapi_schema",
    )
    said = deployment.model_dump(mode="json", include=set(plain))
    schedules = [_said(one.schedule) for one in deployment.schedules]
    fields = {name: said[name] for name in plain} | {"tags": sorted(deployment.tags), "schedules": schedules}
    return Thing("deployment", name, fields)


def _automation(automation: Automation, names: dict[UUID, str]) -> Thing:
    actions = []
    for action in automation.actions:
        said = action.model_dump(mode="json", exclude_defaults=True) | {"type": action.type}
        if (id := getattr(action, "deployment_id", None)) is not None:
            said = {"type": action.type, "deployment": names.get(id, str(id))}
        actions.append(said)
    fields = {
        "description": automation.description,
        "tags": sorted(automation.tags),
        "trigger": normal_trigger(automation.trigger.model_dump(mode="json")),
        "actions": actions,
    }
    return Thing("automation", automation.name, fields)


def _schedule(said: dict[str, Any]) -> CronSchedule | IntervalSchedule:
    try:
        return CronSchedule(**said) if "cron" in said else IntervalSchedule(**said)
    except ValueError as error:
        raise SettingsError(f"deploy: {said} is no schedule: {error}") from None


def _said(schedule: Any) -> dict[str, Any]:
    if isinstance(schedule, CronSchedule):
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    if isinstance(schedule, IntervalSchedule):
        return {"interval": int(schedule.interval.total_seconds())}
    return schedule.model_dump(mode="json")
