"""Putting a project's flows on a Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect import deploy as register
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from flows.events import INGESTED, resource_id
from flows.ingest import ingest
from flows.retrain import retrain
from geossl.errors import SettingsError
from geossl.project.project import Project

INGEST_EVERY = timedelta(hours=1)


def deployments(project_file: Path, project: str) -> list[RunnerDeployment]:
    """The deployments of one project: `ingest` looks for scenes every hour, what it finds wakes `retrain`.

    Flows are named by module, so a worker needs only geossl installed, not a checkout.
    """
    wake = DeploymentEventTrigger(
        name=f"{project}: new imagery",
        expect={INGESTED},
        match={"prefect.resource.id": resource_id(project)},
        parameters={"project_file": str(project_file)},
    )

    def deployment(flow: Flow[Any, Any], name: str, **when: Any) -> RunnerDeployment:
        return RunnerDeployment.from_flow(
            flow,
            name=f"{project}-{name}",
            parameters={"project_file": str(project_file)},
            tags=["geossl", project],
            entrypoint_type=EntrypointType.MODULE_PATH,
            concurrency_limit=1,  # two runs of one project would only wait for each other's lock
            **when,
        )

    return [deployment(ingest, "ingest", interval=INGEST_EVERY), deployment(retrain, "retrain", triggers=[wake])]


def deploy(project_file: Path, *, pool: str) -> Iterator[str]:
    """Register a project's deployments; doing it again changes nothing.

    Parameters
    ----------
    project_file:
        Absolute path of the project file, as workers will see it.
    pool:
        Name of the work pool; made, of type process, where there is none.

    Yields
    ------
    What was done, a line each.

    Raises
    ------
    SettingsError
        No Prefect server answers.
    """
    project = Project.load(project_file).settings.name
    with get_client(sync_client=True) as client:
        if (problem := client.api_healthcheck()) is not None:
            raise SettingsError(
                f"no Prefect server answers at {client.api_url}: {problem}",
                "start one with `prefect server start`, and set PREFECT_API_URL to it",
            )
        if _make_pool(client, pool):
            yield f"made work pool {pool}"
    register(
        *deployments(project_file, project),
        work_pool_name=pool,
        build=False,
        push=False,
        print_next_steps_message=False,
    )
    yield f"registered geossl-ingest/{project}-ingest (every hour) and geossl-retrain/{project}-retrain (on new imagery)"
    yield f"start a worker: prefect worker start --pool {pool}"


def _make_pool(client: SyncPrefectClient, name: str) -> bool:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        return True
    return False
