"""The events that geossl's flows emit.

They only wake other flows: a flow that is woken compares what exists with what is wanted, so a lost,
doubled or late event changes nothing.
"""

from __future__ import annotations

from prefect.events import emit_event

from geossl.project.project import Project

INGESTED = "geossl.imagery.ingested"
TRAINED = "geossl.encoder.trained"
PUBLISHED = "geossl.map.published"


def resource_id(project_name: str) -> str:
    """The Prefect resource that stands for a project."""
    return f"geossl.project.{project_name}"


def announce(event: str, project: Project) -> None:
    """Emit one event about a project, with the cube snapshot that it is about."""
    name = project.settings.name
    emit_event(
        event,
        resource={"prefect.resource.id": resource_id(name), "prefect.resource.name": name},
        payload={"project": name, "snapshot": project.cube().snapshot()},
    )
