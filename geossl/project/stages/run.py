"""`geossl run`: all stages in order. Each stage is a module beside this one with a function `run`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Literal

from geossl.locks import held
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


_VERBS = {name: (*verbs, *_PARTS_OF_THE_LOOP[name]) for name, verbs in _PARTS.items()}


def part(project: Project, name: Part) -> tuple[str, ...]:
    """The stages of one part of the work, in order."""
    return (_PARTS if project.settings.retrain is None else _PARTS_OF_THE_LOOP)[name]


def order(project: Project) -> tuple[str, ...]:
    """The stages of a project, in order."""
    return tuple(verb for name in _PARTS for verb in part(project, name))


def stage(verb: str) -> Stage:
    """The function of a verb; its module is imported now, not before.

    Of all that does one part of a project's work, one process at a time runs; the next waits, and mostly finds that
    there is nothing left to do.
    """
    run: Stage = importlib.import_module(f"geossl.project.stages.{verb}").run

    def in_turn(project: Project, progress: Progress) -> StageResult:
        with _turn(project, verb, progress):
            return run(project, progress)

    return in_turn


def _turn(project: Project, verb: str, progress: Progress) -> contextlib.AbstractContextManager[None]:
    name = next((name for name, verbs in _VERBS.items() if verb in verbs), None)
    torchrun = project.settings.pretrain.launch.torchrun
    together = name == "learn" and torchrun is not None and torchrun.nnodes > 1  # it runs on each of several machines
    if name is None or together or not project.store.exists():  # without a store there is nothing to get wrong
        return contextlib.nullcontext()
    path = project.store / "locks" / name
    return held(path, f"what else is to {name} in project {project.settings.name}", f"geossl {verb}", progress)


def run_all(project: Project, progress: Progress) -> list[StageResult]:
    """Every stage in order; what is done is skipped."""
    return [stage(verb)(project, progress) for verb in order(project)]
