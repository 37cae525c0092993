"""Maps, alerts and the page, brought up to date with imagery and champions."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger

from flows import artifacts
from flows.events import PUBLISHED, announce
from flows.stage import of_project, run_stage
from geossl.project.project import Project, StageResult
from geossl.project.stages import run as stages


@of_project
def publish(project_file: Path, overrides: list[str] | None = None) -> list[StageResult]:
    """Map the tiles whose imagery or champion changed, bring alerts and report up to date, and say so by an event.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.
    """
    project = Project.load(project_file, overrides or [])
    if project.settings.tasks and not project.champions():
        get_run_logger().info(
            "%s: no task has a model yet; its maps are made as soon as it has one", project.settings.name
        )
        return []
    results = [run_stage(verb, project_file, overrides) for verb in stages.part(project, "publish")]
    if not results[0].skipped or not results[1].skipped:
        announce(PUBLISHED, project, tasks=list(project.champions()))
        artifacts.maps(project)
    return results
