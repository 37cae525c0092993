"""`geossl map`: every task's map, published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from geossl.downstream.images import DatedImages
from geossl.downstream.task import TrainedTask, load_task
from geossl.errors import StoreError
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint

CLEARING = 1
"""The class of a change map that polygons are made of."""


def run(project: Project, progress: Progress) -> StageResult:
    """Predict and publish each task's map; tiles whose inputs and model are unchanged are left alone."""
    lines = []
    for name in project.settings.tasks:
        lines += _map(project, name, progress)
    if not project.settings.tasks:
        lines = ["the project file names no tasks"]
    return StageResult("map", lines, skipped=not lines)


def _map(project: Project, name: str, progress: Progress) -> list[str]:
    champion = project.registry.find(name, "champion")
    if champion is None:
        raise StoreError(
            f"task {name!r} has no model yet", "run `geossl ingest`, `stats`, `pretrain` and `finetune` first"
        )
    folder = project.store / champion.folder
    images = project.task_images()
    key = fingerprint(model=folder.name, images=content(images), settings=project.settings.map)
    done = project.state.fresh(f"map.{name}", key)
    if done is not None and (project.maps / str(done.result["release"])).exists():
        return []
    task = load_task(folder)
    with project.state.recording(f"map.{name}", key) as result:
        steps = _steps(project.task_data(name))
        report = predict_map(
            task, images, steps, tiles_folder(project.maps, name), settings=project.settings.map, progress=progress
        )
        release = publish_map(
            report,
            project.maps,
            name,
            legend=task.legend,
            grid=images.grid,
            encoder=task.card.encoder or None,
            settings=project.settings.map,
            polygon_codes=_polygon_codes(task),
            pinned=project.pinned_releases(name),
            progress=progress,
        )
        project.cube().tag(f"map-{name}-{release.id}", images.snapshot)
        result.update(
            release=str(release.folder.relative_to(project.maps)),
            legend=task.legend.to_dict(),
            computed=list(report.computed),
            seam=None if report.seam is None else asdict(report.seam),
        )
    seam = report.seam
    shown = "" if seam is None else f"; steps across window edges {seam.edge:.1e}, elsewhere {seam.inside:.1e}"
    return [
        f"{name}: {release.classes.relative_to(project.root)}",
        f"{len(report.computed)} of {len(report.records)} tiles predicted{shown}",
    ]


def _steps(data: DatedImages) -> dict[str, Sequence[int]]:
    """The steps to map of every tile that has one for each date."""
    found = {tile_id: data.steps(tile_id) for tile_id in data.collection.tile_ids}
    return {tile_id: steps for tile_id, steps in found.items() if steps is not None}


def _polygon_codes(task: TrainedTask) -> list[int] | None:
    return [CLEARING] if task.dates == 2 else None
