"""`geossl map`: every task's map, published."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from geossl.cluster import ClusterSettings, dask_client
from geossl.downstream.finetune import device
from geossl.downstream.images import DatedImages
from geossl.downstream.task import WEIGHTS, load_task
from geossl.errors import StoreError
from geossl.maps.models import describe_model
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.qgis import PROJECT
from geossl.maps.seam import GOAL, SeamError
from geossl.maps.stac import MODELS
from geossl.progress import Progress
from geossl.project.background import write_background
from geossl.project.project import Project, StageResult
from geossl.project.refined import Refined, refined
from geossl.train.launch import memory_kept

if TYPE_CHECKING:
    from distributed import Client


def run(project: Project, progress: Progress) -> StageResult:
    """Predict and publish each task's map; tiles whose inputs and model are unchanged are left alone."""
    lines = []
    champions = project.champions()
    for name in project.settings.tasks:
        if name in champions or not champions:  # without any, the error says what to do
            lines += _map(project, name, progress)
    if lines:
        lines += [f"{name}: no map, since it has no model yet" for name in project.settings.tasks.keys() - champions]
        lines.append(f"all maps in QGIS: {(project.maps / PROJECT).relative_to(project.root)}")
    if not project.settings.tasks:
        lines = ["the project file names no tasks"]
    return StageResult("map", lines, skipped=not lines)


def _map(project: Project, name: str, progress: Progress) -> list[str]:
    champion = project.registry.find(name, "champion")
    if champion is None:
        raise StoreError(
            f"task {name!r} has no model yet",
            "run `geossl finetune` first (after `geossl ingest`); it says what else it needs",
        )
    folder = project.store / champion.folder
    images = project.task_images(name)
    key = project.map_key(name, folder.name)
    done = project.state.fresh(f"map.{name}", key)
    if done is not None and (project.maps / str(done.result["release"])).exists():
        return []
    task = load_task(folder)
    with project.state.recording(f"map.{name}", key) as result:
        labelled = project.task_data(name)
        data = DatedImages(images, labelled.dates, labelled.forest)  # everywhere, not only where labels are
        tiles = tiles_folder(project.maps, name)
        images.load("time", "clear_fraction")
        steps = {tile_id: data.steps(tile_id) or () for tile_id in data.require_dates()}
        with memory_kept(), _workers(project.settings.cluster) as client:
            report = predict_map(
                task, images, steps, tiles, settings=project.settings.map, client=client, progress=progress
            )
        out = Refined(report, tiles, task.legend, {})
        if task.dates == 2:
            out = refined(project, name, data, task, report, tiles, progress)
        write_background(project, images)
        release = publish_map(
            out.report,
            project.maps,
            name,
            legend=out.legend,
            grid=images.grid,
            encoder=task.card.encoder or None,
            settings=project.settings.map,
            polygon_codes=out.legend.codes[1:] if task.dates == 2 else None,
            tiles=out.folder,
            about=out.about,
            pinned=project.pinned_releases(name),
            pin=functools.partial(_pin, project, name, images.snapshot),
            model=describe_model(task, os.path.relpath(folder / WEIGHTS, project.maps / name / MODELS)),
            progress=progress,
        )
        result.update(
            release=str(release.folder.relative_to(project.maps)),
            model=champion.folder,
            legend=out.legend.to_dict(),
            computed=list(report.computed),
            seam=None if report.seam is None else asdict(report.seam),
        )
    return [
        f"{name}: {release.classes.relative_to(project.root)}",
        f"{len(report.computed)} of {len(report.records)} tiles predicted",
        *_seam(report.seam),
    ]


def _pin(project: Project, name: str, snapshot: str, release: str) -> None:
    """Keep the snapshot that a release is made from; the first, where later ones changed no tile of it."""
    cube = project.cube()
    if (tag := f"map-{name}-{release}") not in cube.tags():
        cube.tag(tag, snapshot)


def _seam(seam: SeamError | None) -> list[str]:
    """What a person should know of the windows' edges."""
    if seam is None:
        return []
    line = (
        f"seam error: probabilities differ by {seam.edge:.1e} where windows meet from a prediction without windows, "
        f"steps across edges by {seam.step:.1e}"
    )
    if seam.edge < GOAL:
        return [line]
    return [f"{line}: map.margin (with map.window) lowers that, but not for a transformer, which sees the whole window"]


@contextlib.contextmanager
def _workers(settings: ClusterSettings) -> Iterator[Client | None]:
    """The workers of a cluster; None where this process, with its GPU or all its processors, does as well."""
    if device().type != "cpu" or (settings.scheduler is None and settings.slurm is None):
        yield None
    else:
        with dask_client(settings) as client:
            yield client
