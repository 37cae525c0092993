"""What should lie on a Prefect server for a project: ``infra/prefect.yaml``, filled in from the project file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from griffe import Docstring, DocstringSectionKind, Parser, parse
from prefect import Flow
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint
from prefect.logging.loggers import disable_logger
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from geossl.project.deployment import DeploySettings, interval_seconds
from geossl.project.settings import ProjectSettings

Kind = Literal["work pool", "work queue", "deployment", "automation"]
KINDS: tuple[Kind, ...] = ("work pool", "work queue", "deployment", "automation")
"""In the order in which they are made; they are removed the other way round."""


@dataclass(frozen=True)
class Thing:
    """One object of a server, as far as geossl decides about it."""

    kind: Kind
    name: str
    """Of a work queue ``pool/queue``, of a deployment ``flow/deployment``."""
    fields: dict[str, Any]
    """JSON-ready; what is not named here (whether it is paused, for one) is left to the server's people."""


def marker(project: str) -> str:
    """What the descriptions of pools and queues begin with that were made for a project."""
    return f"geossl {project}:"


def pools(settings: ProjectSettings) -> tuple[str, str]:
    """The work pools of a project's flows: of most, and of those that train."""
    pool = settings.deploy.pool or settings.name
    return pool, settings.deploy.gpu_pool or pool


def wanted(settings: ProjectSettings, project_file: Path, overrides: list[str] | None = None) -> list[Thing]:
    """Everything that a project needs on a server.

    Parameters
    ----------
    settings:
        Of the project.
    project_file:
        Where workers find the project file, absolute.
    overrides:
        Settings that win over the file, in every run.
    """
    pool, gpu_pool = pools(settings)
    values = {
        "GEOSSL_PROJECT": settings.name,
        "GEOSSL_PROJECT_FILE": str(project_file),
        "GEOSSL_OVERRIDES": overrides or None,
        "GEOSSL_POOL": pool,
        "GEOSSL_GPU_POOL": gpu_pool,
        "GEOSSL_IMAGE": settings.deploy.image,
        "GEOSSL_STARTED_AGAIN_AFTER": [str(count) for count in range(1, settings.deploy.attempts)],
    }
    given = {name: value for name, value in values.items() if value is not None}  # a field without a value is left out
    declared = apply_values(YAML(typ="safe").load(declaration()), given)
    about = marker(settings.name)
    things = [
        Thing("work pool", name, {"type": settings.deploy.kind, "description": f"{about} runs its flows"})
        for name in dict.fromkeys((pool, gpu_pool))
    ]
    for queue in declared["work_queues"]:
        fields = {
            "concurrency_limit": queue["concurrency_limit"],
            "description": f"{about} its runs, so many at a time",
        }
        things.append(Thing("work queue", f"{queue['pool']}/{queue['name']}", fields))
    triggers: list[Thing] = []
    for deployment in declared["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
        full_name = f"{flow.name}/{deployment['name']}"
        things.append(Thing("deployment", full_name, _deployment(deployment, flow, settings.deploy)))
        for trigger in deployment.get("triggers", []):
            run = [{"type": "run-deployment", "deployment": full_name}]
            triggers.append(_automation(trigger | {"tags": deployment["tags"]}, _trigger(trigger), run))
    return (
        things
        + triggers
        + [_automation(found, found["trigger"], found["actions"]) for found in declared["automations"]]
    )


def declaration() -> Path:
    """``prefect.yaml``, as it is shipped or as it lies in a checkout."""
    shipped = Path(__file__).with_name("prefect.yaml")
    return shipped if shipped.exists() else Path(__file__).parents[1] / "infra" / "prefect.yaml"


def form(flow: Flow[..., Any]) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, with the descriptions of its docstring, which Prefect 3 reads only of Google's form."""
    schema = parameter_schema(flow).model_dump(mode="json")
    with disable_logger("griffe"):  # which misses types that are in the signature
        sections = parse(Docstring(flow.description or ""), Parser.numpy)
    for section in sections:
        if section.kind is DocstringSectionKind.parameters:
            for parameter in section.value:
                schema["properties"][parameter.name]["description"] = " ".join(parameter.description.split())
    return schema


def normal_trigger(trigger: dict[str, Any]) -> dict[str, Any]:
    """A trigger as Prefect stores it, whatever the order of its sets."""
    core = AutomationCore.model_validate({"name": "one", "trigger": trigger, "actions": []})
    said = core.trigger.model_dump(mode="json")
    return said | {name: sorted(said[name]) for name in ("after", "expect", "for_each") if name in said}


def _trigger(declared: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in declared.items() if name not in ("name", "description")}


def _automation(declared: dict[str, Any], trigger: dict[str, Any], actions: list[dict[str, Any]]) -> Thing:
    fields = {
        "description": declared["description"],
        "tags": sorted(declared["tags"]),
        "trigger": normal_trigger(trigger),
        "actions": actions,
    }
    return Thing("automation", declared["name"], fields)


def _deployment(declared: dict[str, Any], flow: Flow[..., Any], settings: DeploySettings) -> dict[str, Any]:
    return {
        "entrypoint": declared["entrypoint"],
        "description": declared["description"].strip(),
        "tags": sorted(declared["tags"]),
        "parameters": declared["parameters"],
        "work_pool_name": declared["work_pool"]["name"],
        "work_queue_name": declared["work_pool"]["work_queue_name"],
        "job_variables": declared["work_pool"]["job_variables"],
        "schedules": _schedules(flow.name.removeprefix("geossl-"), declared.get("schedules", []), settings),
        "parameter_openapi_schema": form(flow),
    }


def _schedules(flow: str, declared: list[dict[str, Any]], settings: DeploySettings) -> list[dict[str, Any]]:
    own: dict[str, str | None] = TypeAdapter(dict[str, str | None]).validate_python(settings.schedules)
    if flow not in own:
        return [schedule | {"timezone": settings.timezone} if "cron" in schedule else schedule for schedule in declared]
    if (schedule := own[flow]) is None:
        return []
    seconds = interval_seconds(schedule)
    return [{"cron": schedule, "timezone": settings.timezone} if seconds is None else {"interval": seconds}]
