"""The events that geossl's flows emit.

They only wake other flows: a flow that is woken compares what exists with what is wanted, so a lost,
doubled or late event changes nothing.
"""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

from geossl.project.project import Project

INGESTED = "geossl.imagery.ingested"
"""Scenes came in: wakes `retrain`."""
ACCEPTED = "geossl.imagery.accepted"
"""Scenes were judged and made ready to be mapped and learnt from: wakes `publish`."""
TRAINED = "geossl.encoder.trained"
PROMOTED = "geossl.model.promoted"
"""A task has a champion that did not make its map yet: wakes `publish`."""
PUBLISHED = "geossl.map.published"


def resource_id(project_name: str) -> str:
    """The Prefect resource that stands for a project."""
    return f"geossl.project.{project_name}"


def announce(event: str, project: Project, **counts: Any) -> None:
    """Emit one event about a project, with the cube snapshot that it is about and what was counted."""
    name = project.settings.name
    emit_event(
        event,
        resource={"prefect.resource.id": resource_id(name), "prefect.resource.name": name},
        payload={"project": name, "snapshot": project.snapshot, **counts},
    )
