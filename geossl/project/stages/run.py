"""`geossl run`: all stages in order. Each stage is a module beside this one with a function `run`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping

from geossl.progress import Progress
from geossl.project.project import Project, StageResult

Stage = Callable[[Project, Progress], StageResult]

ORDER = ("ingest", "stats", "pretrain", "evaluate", "finetune", "map", "report")


class _Stages(Mapping[str, Stage]):
    """Verb → function; a stage's module is imported when it is asked for."""

    def __getitem__(self, verb: str) -> Stage:
        if verb not in ORDER:
            raise KeyError(verb)
        stage: Stage = importlib.import_module(f"geossl.project.stages.{verb}").run
        return stage

    def __iter__(self) -> Iterator[str]:
        return iter(ORDER)

    def __len__(self) -> int:
        return len(ORDER)


STAGES = _Stages()


def run_all(project: Project, progress: Progress) -> list[StageResult]:
    """Every stage in order; what is done is skipped."""
    return [STAGES[verb](project, progress) for verb in ORDER]
