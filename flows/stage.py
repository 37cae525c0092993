"""What a project's flows are made of: stages as tasks, with names, tags, log lines, time-outs, and when they are tried again."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.tasks import exponential_backoff

from flows.artifacts import followed
from geossl.errors import LabelError, RadiometryError, SettingsError, TrainingError
from geossl.progress import Progress
from geossl.project import notify
from geossl.project.project import Project, StageResult
from geossl.project.stages import run as stages
from geossl.train.remote.rank import die_with_parent

FINAL = (SettingsError, LabelError, RadiometryError, TrainingError)
"""What trying again does not mend."""

HOURS = {
    "ingest": 24.0,  # the store refuses what is older than a week
    "drift": 12.0,
    "stats": 12.0,
    "pretrain": 14 * 24.0,
    "retrain": 14 * 24.0,
    "report": 1.0,
    "maintain": 12.0,
}
"""Longest time of a stage; whatever hangs longer is ended, and tried again where that may help."""
USUAL_HOURS = 48.0

TRAINS = ("pretrain", "retrain")
"""Stages that train an encoder."""


def project_name(project_file: Path) -> str:
    """What a project calls itself; of one that does not open, its folder."""
    try:
        return Project.load(Path(project_file)).settings.name
    except Exception:  # the flow itself says what is wrong
        return Path(project_file).stem


def flow_run_name() -> str:
    """``ingest amazon``: what a flow does, and to which project."""
    name = str(runtime.flow_run.flow_name).removeprefix("geossl-")
    return f"{name} {project_name(runtime.flow_run.parameters['project_file'])}"


def of_project[**P, R](work: Callable[P, R]) -> Flow[P, R]:
    """A function of a project file as a flow: its name, those of its runs, and that a person hears of its failures."""
    made: Flow[P, R] = flow(
        name=f"geossl-{work.__name__}",
        flow_run_name=flow_run_name,
        persist_result=False,
        on_failure=[_tell_failed],
        on_crashed=[_tell_failed],
        on_completion=[_tell_succeeded],
    )(work)
    return made


def _tell_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    notify.failed(
        Project.load(Path(flow_run.parameters["project_file"])), flow.name, state.message or state.name or "failed"
    )


def _tell_succeeded(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    notify.succeeded(Project.load(Path(flow_run.parameters["project_file"])), flow.name)


def run_stage(verb: str, project_file: Path, overrides: list[str] | None = None) -> StageResult:
    """Run one stage of a project as a task of the flow that calls it; what is done is skipped.

    A flow run ends with the worker that started it: what cannot be cancelled any more must not go on by itself. Its
    training is a process of its own, which ends after a checkpoint; its memory is free again when the stage is done.
    """
    if runtime.deployment.id is not None:
        die_with_parent()
    overrides = list(overrides or [])
    project = Project.load(project_file, overrides)
    if verb in TRAINS and project.settings.pretrain.launch.here:
        overrides.append("pretrain.launch.torchrun.nproc=1")
    named = stage.with_options(
        name=verb,
        task_run_name=f"{verb} {project.settings.name}",
        tags=labels(project),
        timeout_seconds=3600 * HOURS.get(verb, USUAL_HOURS),
    )
    return named(verb, project_file, overrides)


def labels(project: Project) -> list[str]:
    """The tags of what is done to a project as it is now."""
    snapshot = [f"snapshot:{project.snapshot}"] if project.snapshot is not None else []
    models = [f"model:{task}-v{number}" for task, number in project.champions().items()]
    return ["geossl", project.settings.name, *snapshot, *models]


def _may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a stage that failed is worth another try."""
    return not isinstance(state.result(raise_on_failure=False), FINAL)


def by_quarters(say: Callable[[str], None]) -> Progress:
    """Progress in few lines: of each piece of work one at its beginning, and one at each quarter."""
    said: tuple[str, int] | None = None

    def progress(what: str, done: int, total: int | None, note: str = "") -> None:
        nonlocal said
        now = what, done * 4 // total if total else 0
        if now != said:
            said = now
            say((f"{what}: {done} of {total}" if total else what) + (f"; {note}" if note else ""))

    return progress


@task(
    retries=3,
    retry_delay_seconds=exponential_backoff(10),
    retry_jitter_factor=0.5,
    retry_condition_fn=_may_help,
    persist_result=False,
)
def stage(verb: str, project_file: Path, overrides: list[str]) -> StageResult:
    """Run one stage of a project; what is done is skipped."""
    logger = get_run_logger()
    project = Project.load(project_file, overrides)
    name = project.settings.name
    start = dt.datetime.now(dt.UTC)
    with followed(project) if verb in TRAINS else contextlib.nullcontext():
        result = stages.stage(verb)(project, by_quarters(lambda line: logger.info("%s: %s", name, line)))
    for line in result.lines:
        logger.info("%s: %s", name, line)
    took = (dt.datetime.now(dt.UTC) - start).total_seconds()
    now = Project.load(project_file, overrides)
    models = ", ".join(f"{task} v{number}" for task, number in now.champions().items()) or "none"
    logger.info(
        "%s: %s %s after %.1f s; snapshot %s, models: %s",
        name,
        verb,
        "has nothing to do" if result.skipped else "is done",
        took,
        now.snapshot,
        models,
    )
    return result
