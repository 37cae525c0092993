"""`geossl finetune`: each task learnt from its labels, and scored on held-out blocks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from geossl.downstream import change, landcover, unlabelled
from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER, evaluate_task
from geossl.downstream.task import save_task
from geossl.errors import StoreError
from geossl.nets.card import Card
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import ChangeTask, LandcoverTask, TaskSettings
from geossl.project.stages.evaluate import keep, summary
from geossl.project.state import fingerprint
from geossl.registry import Version
from geossl.train.device import alone_on, gpus


def run(project: Project, progress: Progress) -> StageResult:
    """Fit and score every task whose labels, images, encoder or settings changed."""
    lines = []
    for name in project.settings.tasks:
        lines += _task(project, name, progress)
    if not project.settings.tasks:
        lines = ["the project file names no tasks"]
    return StageResult("finetune", lines, skipped=not lines)


def _task(project: Project, name: str, progress: Progress) -> list[str]:
    key = _key(project, name)
    done = project.state.fresh(f"finetune.{name}", key)
    if done is not None and (project.tasks / name / done.result["model"]).exists():
        return []
    with project.state.recording(f"finetune.{name}", key) as result, _alone(project, name, progress):
        version = _fit(project, name, result, progress)
        project.registry.promote(name, version.number, why="fine-tuned by hand")
    return _lines(name, result)


def challenge(project: Project, name: str, progress: Progress) -> list[str]:
    """Fit a task whose encoder, labels or settings are new, and register the model without promoting it.

    New imagery alone is no reason where there are labels: the champion maps that too. What becomes of the
    challenger is for the gate to say, and :func:`settle` to note; the first of a task is champion at once.
    """
    task = project.settings.tasks[name]
    key = fingerprint(encoder=_encoder_name(project, name), task=project.task_key(name, images=task.labels is None))
    done = project.state.fresh(f"challenger.{name}", key)
    if done is not None and (project.tasks / name / done.result["model"]).exists():
        return []
    with project.state.recording(f"challenger.{name}", key) as result, _alone(project, name, progress):
        result["by_hand"] = _key(project, name)
        _fit(project, name, result, progress)
    return _lines(name, result)


def settle(project: Project, name: str) -> None:
    """Take over the last challenger's scores where it is the champion: reports are of the model that makes the maps."""
    record, noted = project.state.get(f"challenger.{name}"), project.state.get(f"finetune.{name}")
    champion = project.registry.find(name, "champion")
    if record is None or champion is None or Path(champion.folder).name != record.result["model"]:
        return
    if noted is None or noted.finished < record.finished:
        with project.state.recording(f"finetune.{name}", record.result["by_hand"]) as result:
            result.update(record.result)


def _alone(project: Project, name: str, progress: Progress) -> contextlib.AbstractContextManager[None]:
    return alone_on(gpus(), f"task {name} of {project.root}", progress)


def _key(project: Project, name: str) -> str:
    return fingerprint(
        encoder=_encoder_name(project, name), task=project.task_key(name), evaluate=project.settings.evaluate
    )


def _encoder_name(project: Project, name: str) -> str | None:
    return project.encoder_folder().name if _needs_encoder(project.settings.tasks[name]) else None


def _fit(project: Project, name: str, result: dict[str, Any], progress: Progress) -> Version:
    """Learn a task from the newest encoder, score and register it; ``result`` is told what came out."""
    task = project.settings.tasks[name]
    encoder, card = load_encoder(project.encoder_folder()) if _needs_encoder(task) else (None, _no_encoder(project))
    data = project.task_data(name)
    if isinstance(task, ChangeTask):
        data.require_dates()
    kept: dict[str, list[dict[str, Any]]] = {}
    if not isinstance(data, TaskData):
        assert isinstance(task, ChangeTask), "land-cover tasks have labels"
        fitted = unlabelled.fit(data, encoder, card, task.settings, progress=progress)
    else:
        assert encoder is not None, "tasks with labels need it"
        if isinstance(task, LandcoverTask):
            fitted = landcover.fit(data, encoder, card, task.settings, progress=progress)
        else:
            fitted = change.fit(data, encoder, card, task.settings, progress=progress)
        found = evaluate_task(
            data,
            fitted,
            card,
            task.settings,
            project.settings.evaluate,
            name=name,
            encoder=encoder,
            progress=progress,
        )
        kept = keep(found, name)
    home = project.tasks / name / fitted.id
    save_task(home, fitted)
    project.cube().tag(f"task-{name}-{fitted.id}", data.collection.snapshot)
    scores = [row for row in kept.get("scores", []) if row["model"] in (PRETRAINED, WITHOUT_ENCODER)]
    result.update(kept, model=fitted.id, encoder=fitted.card.encoder, notes=list(fitted.card.notes))
    return project.registry.register(name, home, scores=scores, card={"id": fitted.id, "encoder": fitted.card.encoder})


def _lines(name: str, result: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {result['model']}",
        *result["notes"],
        *summary(result.get("scores", []), result.get("differences", [])),
    ]


def _needs_encoder(task: TaskSettings) -> bool:
    return task.labels is not None or task.settings.method == "embedding"


def _no_encoder(project: Project) -> Card:
    """The statistics of the scenes, as a card of no encoder."""
    scenes = project.scenes()
    if scenes.statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    return Card(EncoderSettings(), scenes.sensor, scenes.statistics, "none")
