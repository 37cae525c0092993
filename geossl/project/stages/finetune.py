"""`geossl finetune`: each task learnt from its labels, and scored on held-out blocks."""

from __future__ import annotations

from typing import Any

from geossl.downstream import change, landcover, unlabelled
from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER, evaluate_task
from geossl.downstream.task import save_task
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import LandcoverTask
from geossl.project.stages.evaluate import keep, summary
from geossl.project.state import fingerprint
from geossl.registry import Version


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
    with project.state.recording(f"finetune.{name}", key) as result:
        version = _fit(project, name, result, progress)
        project.registry.promote(name, version.number, why="fine-tuned by hand")
    return _lines(name, result)


def challenge(project: Project, name: str, progress: Progress) -> list[str]:
    """Fit a task whose encoder, labels or settings are new, and register the model without promoting it.

    New imagery alone is no reason where there are labels: the champion maps that too. What becomes of the
    challenger is for the gate to say, and :func:`settle` to note; the first of a task is champion at once.
    """
    task = project.settings.tasks[name]
    key = fingerprint(encoder=project.encoder_folder().name, task=project.task_key(name, images=task.labels is None))
    done = project.state.fresh(f"challenger.{name}", key)
    if done is not None and (project.tasks / name / done.result["model"]).exists():
        return []
    with project.state.recording(f"challenger.{name}", key) as result:
        result["by_hand"] = _key(project, name)
        version = _fit(project, name, result, progress)
    if version == project.registry.find(name, "champion"):
        settle(project, name, promoted=True)
    return _lines(name, result)


def settle(project: Project, name: str, *, promoted: bool) -> None:
    """Note what became of a challenger: scores and reports are of the model that makes the maps."""
    record = project.state.get(f"challenger.{name}")
    assert record is not None
    if promoted:
        with project.state.recording(f"finetune.{name}", record.result["by_hand"]) as result:
            result.update(record.result)


def _key(project: Project, name: str) -> str:
    return fingerprint(
        encoder=project.encoder_folder().name, task=project.task_key(name), evaluate=project.settings.evaluate
    )


def _fit(project: Project, name: str, result: dict[str, Any], progress: Progress) -> Version:
    """Learn a task from the newest encoder, score and register it; ``result`` is told what came out."""
    task = project.settings.tasks[name]
    encoder, card = load_encoder(project.encoder_folder())
    data = project.task_data(name)
    kept: dict[str, list[dict[str, Any]]] = {}
    if not isinstance(data, TaskData):
        fitted = unlabelled.fit(data, encoder, card, progress=progress)
    else:
        if isinstance(task, LandcoverTask):
            fitted = landcover.fit(data, encoder, card, task.settings, progress=progress)
        else:
            fitted = change.fit(data, encoder, card, task.settings, progress=progress)
        found = evaluate_task(
            data, fitted, card, task.settings, project.settings.evaluate, name=name, progress=progress
        )
        kept = keep(found, name)
    home = project.tasks / name / fitted.id
    save_task(home, fitted)
    project.cube().tag(f"task-{name}-{fitted.id}", data.collection.snapshot)
    scores = [row for row in kept.get("scores", []) if row["model"] in (PRETRAINED, WITHOUT_ENCODER)]
    result.update(kept, model=fitted.id, encoder=card.id, notes=list(fitted.card.notes))
    return project.registry.register(name, home, scores=scores, card={"id": fitted.id, "encoder": card.id})


def _lines(name: str, result: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {result['model']}",
        *result["notes"],
        *summary(result.get("scores", []), result.get("differences", [])),
    ]
