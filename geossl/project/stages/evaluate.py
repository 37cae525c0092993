"""`geossl evaluate`: what the frozen encoder knows, beside the floors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import Evaluation, evaluate_encoder
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import LandcoverTask
from geossl.project.state import fingerprint
from geossl.train.device import alone_on, gpus


@dataclass
class _Scores:
    """What a stage keeps of its evaluations."""

    scores: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    confusions: list[dict[str, Any]]


def run(project: Project, progress: Progress) -> StageResult:
    """Score frozen features on the held-out blocks of every land-cover task."""
    tasks = [name for name, task in project.settings.tasks.items() if isinstance(task, LandcoverTask)]
    folder = project.encoder_folder()
    key = fingerprint(
        encoder=folder.name, settings=project.settings.evaluate, tasks={name: project.task_key(name) for name in tasks}
    )
    if project.state.fresh("evaluate", key) is not None:
        return StageResult("evaluate", skipped=True)
    if not tasks:
        return StageResult("evaluate", ["no land-cover task has labels, so there is nothing to score against"])
    encoder, card = load_encoder(folder)
    kept = _Scores([], [], [])
    with (
        project.state.recording("evaluate", key) as result,
        alone_on(gpus(), f"the scores of {project.root}", progress),
    ):
        for name in tasks:
            data = project.task_data(name)
            assert isinstance(data, TaskData), "land-cover tasks have labels"
            found = evaluate_encoder(data, encoder, card, project.settings.evaluate, name=name, progress=progress)
            for field, rows in keep(found, name).items():
                getattr(kept, field).extend(rows)
        result.update(vars(kept), encoder=card.id)
    return StageResult("evaluate", summary(kept.scores, kept.differences))


def keep(found: Evaluation, task: str) -> dict[str, list[dict[str, Any]]]:
    """An evaluation as JSON-ready lists of rows."""
    confusions = [
        {
            "task": task,
            "model": model,
            "matrix": m.tolist(),
            "reliability": found.reliability[model].tolist() if model in found.reliability else [],
            "classes": found.classes.get(model, []),
        }
        for model, m in found.confusions.items()
    ]
    return {"scores": found.rows, "differences": found.differences, "confusions": confusions}


def summary(scores: list[dict[str, Any]], differences: list[dict[str, Any]]) -> list[str]:
    """Lines for people: each model's first metric, then what was gained over what."""
    if not scores:
        return []
    metric = scores[0]["metric"]
    lines = [
        f"{row['task']}, {row['labels']} labels, {row['model']}: {metric} {row['mean']:.3f}{interval(row)}"
        for row in scores
        if row["metric"] == metric
    ]
    lines += [
        f"{row['model']} against {row['against']} ({row['labels']} labels): {row['mean']:+.3f}{interval(row)}, {_verdict(row)}"
        for row in differences
        if row["metric"] == metric
    ]
    return lines


def _verdict(row: dict[str, Any]) -> str:
    without_zero = row["low"] is not None and not row["low"] <= 0 <= row["high"]
    doubted = row["verdict"] == "no gain" and without_zero
    return "no gain, since repeated draws of labels disagree" if doubted else str(row["verdict"])


def interval(row: dict[str, Any]) -> str:
    """`` (0.41 … 0.52)``, or nothing where there were too few blocks for one."""
    return "" if row["low"] is None else f" ({row['low']:.3f} … {row['high']:.3f})"
