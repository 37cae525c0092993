"""Upkeep: what grows is kept within its limits, in the store and on the Prefect server."""

from __future__ import annotations

from pathlib import Path

from flows.history import trim
from flows.stage import of_project, run_stage
from geossl.project.project import Project


@of_project
def maintain(project_file: Path, overrides: list[str] | None = None, history_days: int = 90) -> None:
    """Check the store, delete what nobody needs, and delete old runs of this project from the Prefect server.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.
    history_days:
        For how long the Prefect server keeps this project's finished runs, with their logs and artifacts.
    """
    run_stage("maintain", project_file, overrides)
    trim(Project.load(project_file, overrides or []).settings.name, history_days)
