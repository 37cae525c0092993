"""`geossl finetune`: each task learnt from its labels, and scored on held-out blocks."""

from __future__ import annotations

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


def run(project: Project, progress: Progress) -> StageResult:
    """Fit and score every task whose labels, images, encoder or settings changed."""
    lines = []
    for name in project.settings.tasks:
        lines += _task(project, name, progress)
    if not project.settings.tasks:
        lines = ["the project file names no tasks"]
    return StageResult("finetune", lines, skipped=not lines)


def _task(project: Project, name: str, progress: Progress) -> list[str]:
    task = project.settings.tasks[name]
    folder = project.encoder_folder() if _needs_encoder(task) else None
    key = fingerprint(
        encoder=folder.name if folder else None, task=project.task_key(name), evaluate=project.settings.evaluate
    )
    done = project.state.fresh(f"finetune.{name}", key)
    if done is not None and (project.tasks / name / done.result["model"]).exists():
        return []
    encoder, card = load_encoder(folder) if folder else (None, _no_encoder(project))
    data = project.task_data(name)
    if isinstance(task, ChangeTask):
        data.require_dates()
    with project.state.recording(f"finetune.{name}", key) as result:
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
        version = project.registry.register(
            name, home, scores=scores, card={"id": fitted.id, "encoder": fitted.card.encoder}
        )
        project.registry.promote(name, version.number, why="fine-tuned by hand")
        result.update(kept, model=fitted.id, encoder=fitted.card.encoder, notes=list(fitted.card.notes))
    return [f"{name}: {fitted.id}", *fitted.card.notes, *summary(kept.get("scores", []), kept.get("differences", []))]


def _needs_encoder(task: TaskSettings) -> bool:
    return task.labels is not None or task.settings.method == "embedding"


def _no_encoder(project: Project) -> Card:
    """The statistics of the scenes, as a card of no encoder."""
    scenes = project.scenes()
    if scenes.statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    return Card(EncoderSettings(), scenes.sensor, scenes.statistics, "none")
