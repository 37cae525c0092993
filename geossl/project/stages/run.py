"""`geossl run`: all stages in order. Each stage is a module beside this one with a function `run`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal

from geossl.progress import Progress
from geossl.project.project import Project, StageResult

Stage = Callable[[Project, Progress], StageResult]

Part = Literal["ingest", "accept", "learn", "publish"]
"""New scenes come in; are made ready and judged; models are learnt from them; maps, alerts and the page follow."""

_PARTS: dict[Part, tuple[str, ...]] = {
    "ingest": ("ingest",),
    "accept": ("stats",),
    "learn": ("pretrain", "evaluate", "finetune"),
    "publish": ("map", "alerts", "report"),
}

_PARTS_OF_THE_LOOP: dict[Part, tuple[str, ...]] = _PARTS | {"accept": ("drift", "stats"), "learn": ("retrain",)}
"""Of a project with a `retrain` policy: what looks like a fault is held back, what is learnt anew has to pass the gate."""


def part(project: Project, name: Part) -> tuple[str, ...]:
    """The stages of one part of the work, in order."""
    return (_PARTS if project.settings.retrain is None else _PARTS_OF_THE_LOOP)[name]


def order(project: Project) -> tuple[str, ...]:
    """The stages of a project, in order."""
    return tuple(verb for name in _PARTS for verb in part(project, name))


def stage(verb: str) -> Stage:
    """The function of a verb; its module is imported now, not before."""
    run: Stage = importlib.import_module(f"geossl.project.stages.{verb}").run
    return run


def run_all(project: Project, progress: Progress) -> list[StageResult]:
    """Every stage in order; what is done is skipped."""
    return [stage(verb)(project, progress) for verb in order(project)]
