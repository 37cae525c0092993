"""The main job as flows.

``python -m flows.main PROJECT`` runs all of it once; ``geossl deploy`` puts the same flows on a server,
where `ingest` runs on a schedule and what it ingests wakes `renew`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact

from flows.events import INGESTED, PUBLISHED, TRAINED, announce
from geossl.project.project import Project, StageResult
from geossl.project.stages import run as stages


def _task_run_name() -> str:
    return str(runtime.task_run.parameters["verb"])


@task(task_run_name=_task_run_name, retries=1, retry_delay_seconds=10)
def stage(verb: str, project_file: Path, overrides: list[str]) -> StageResult:
    """Run one stage of a project; what is done is skipped."""
    logger = get_run_logger()

    def progress(what: str, done: int, total: int | None) -> None:
        if total and done and done * 4 // total != (done - 1) * 4 // total:
            logger.info("%s: %d of %d", what, done, total)

    result = stages.stage(verb)(Project.load(project_file, overrides), progress)
    for line in result.lines:
        logger.info("%s", line)
    return result


@flow(name="geossl-ingest", flow_run_name="ingest {project_file}")
def ingest(project_file: Path, overrides: list[str] | None = None) -> bool:
    """Tile new scenes into the cube and say so by an event.

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
    result = stage("ingest", project_file, overrides or [])
    if not result.skipped:
        announce(INGESTED, Project.load(project_file, overrides or []))
    return not result.skipped


@flow(name="geossl-renew", flow_run_name="renew {project_file}")
def renew(project_file: Path, overrides: list[str] | None = None) -> list[StageResult]:
    """Bring everything up to date with the imagery: statistics, encoder, tasks, maps, alerts, report.

    Each stage compares what exists with what is wanted and does only what is missing.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.
    """
    project = Project.load(project_file, overrides or [])
    results = [stage(verb, project_file, overrides or []) for verb in stages.order(project)]
    done = {result.stage for result in results if not result.skipped}
    for verb, event in (("ingest", INGESTED), ("pretrain", TRAINED), ("retrain", TRAINED), ("map", PUBLISHED)):
        if verb in done:
            announce(event, project)
    create_table_artifact(
        key=f"{project.settings.name}-scores",
        table=project.scores(),
        description="Scores on held-out blocks, beside the floors",
    )
    return results


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m flows.main PROJECT [key.path=value ...]")
    renew(Path(sys.argv[1]).resolve(), sys.argv[2:])
