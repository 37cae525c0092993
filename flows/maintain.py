"""Upkeep: what grows is kept within its limits, in the store and on the Prefect server."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from prefect import flow

from flows.history import trim
from flows.stage import flow_run_name, run_stage
from geossl.project.project import Project


@flow(name="geossl-maintain", flow_run_name=flow_run_name, persist_result=False)
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
    if importlib.util.find_spec("geossl.project.stages.maintain") is not None:
        run_stage("maintain", project_file, overrides)
    trim(Project.load(project_file, overrides or []).settings.name, history_days)
