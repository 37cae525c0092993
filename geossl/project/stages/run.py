"""`geossl run`: all stages in order. Each stage is a module beside this one with a function `run`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from geossl.progress import Progress
from geossl.project.project import Project, StageResult

Stage = Callable[[Project, Progress], StageResult]

ORDER = ("ingest", "stats", "pretrain", "evaluate", "finetune", "map", "alerts", "report")

ORDER_OF_THE_LOOP = ("ingest", "drift", "stats", "retrain", "map", "alerts", "report")
"""Of a project with a `retrain` policy: what looks like a fault is held back, what is learnt anew has to pass the gate."""


def order(project: Project) -> tuple[str, ...]:
    """The stages of a project, in order."""
    return ORDER if project.settings.retrain is None else ORDER_OF_THE_LOOP


def stage(verb: str) -> Stage:
    """The function of a verb; its module is imported now, not before."""
    run: Stage = importlib.import_module(f"geossl.project.stages.{verb}").run
    return run


def run_all(project: Project, progress: Progress) -> list[StageResult]:
    """Every stage in order; what is done is skipped."""
    return [stage(verb)(project, progress) for verb in order(project)]
