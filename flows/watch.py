"""Whether the sources have anything new."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.ingest import ingest
from flows.stage import flow_run_name, run_stage


@flow(name="geossl-watch", flow_run_name=flow_run_name, persist_result=False)
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
    ingest(project_file, overrides)
    return True
