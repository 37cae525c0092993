"""Whether a source has anything new."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.ingest import ingest
from flows.stage import flow_run_name


@flow(name="geossl-watch", flow_run_name=flow_run_name, persist_result=False)
def watch(project_file: Path, overrides: list[str] | None = None) -> bool:
    """Ask the sources of a project for new scenes, and ingest them where there are any.

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
    return ingest(project_file, overrides)
