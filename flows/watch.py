"""Whether the sources have anything new."""

from __future__ import annotations

from pathlib import Path

from prefect import tags

from flows.ingest import ingest
from flows.stage import of_project, project_name, run_stage


@of_project
def watch(project_file: Path, overrides: list[str] | None = None) -> bool:
    """Ask the sources of a project for what is new, without reading a pixel, and ingest it where there is anything.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.

    Returns
    -------
    Whether there was anything new.
    """
    if run_stage("watch", project_file, overrides).skipped:
        return False
    with tags("geossl", project_name(project_file)):  # those of a deployment do not reach the flows that it calls
        ingest(project_file, overrides)
    return True
