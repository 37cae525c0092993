"""New scenes into the cube."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.events import INGESTED, announce
from flows.stage import flow_run_name, run_stage
from geossl.project.project import Project
from geossl.project.stages import stats


@flow(name="geossl-ingest", flow_run_name=flow_run_name, persist_result=False)
def ingest(project_file: Path, overrides: list[str] | None = None) -> bool:
    """Tile new scenes into the cube, and wake the loop where there are scenes that it has not seen.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file, such as ``ingest.min_clear=0.1``.

    Returns
    -------
    Whether there was anything new.
    """
    result = run_stage("ingest", project_file, overrides)
    project = Project.load(project_file, overrides or [])
    # not only after an ingest: an earlier event may have been lost
    if not result.skipped or not stats.fresh(project):
        record = project.state.get("ingest")
        announce(
            INGESTED,
            project,
            scenes=len(record.result["ingested"]) if record is not None and not result.skipped else 0,
            set_aside=result.set_aside,
        )
    return not result.skipped
