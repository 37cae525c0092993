"""New scenes into the cube, made ready to be mapped and learnt from."""

from __future__ import annotations

from pathlib import Path

from flows import artifacts
from flows.events import ACCEPTED, INGESTED, announce
from flows.stage import of_project, run_stage
from geossl.project.project import Project
from geossl.project.stages import run as stages


@of_project
def ingest(project_file: Path, overrides: list[str] | None = None) -> bool:
    """Tile new scenes into the cube, hold back what looks like a fault, and wake maps and loop.

    Scenes are judged here and not in the loop, so that maps never wait for a training.

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
    project = Project.load(project_file, overrides or [])
    ingested, *judged = (
        run_stage(verb, project_file, overrides) for verb in ("ingest", *stages.part(project, "accept"))
    )
    # not only after an ingest: an earlier run may have ended in between
    if not all(result.skipped for result in (ingested, *judged)):
        record = project.state.get("ingest")
        counts = {
            "scenes": len(record.result["ingested"]) if record is not None and not ingested.skipped else 0,
            "set_aside": ingested.set_aside,
            "held": sum(result.set_aside for result in judged),
        }
        announce(ACCEPTED, project, **counts)
        announce(INGESTED, project, **counts)
        artifacts.scenes(project)
    return not ingested.skipped
