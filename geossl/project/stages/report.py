"""`geossl report`: one page of pictures and figures that needs no network."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import geossl
from geossl.bands import Statistics
from geossl.cube.scenes import quarantined
from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER
from geossl.downstream.floors import SCRATCH
from geossl.downstream.images import DatedImages
from geossl.errors import StoreError
from geossl.legend import Legend
from geossl.nets.weights import load_card, load_encoder
from geossl.progress import Progress
from geossl.project import pictures
from geossl.project.curves import read_curves
from geossl.project.project import Project, StageResult
from geossl.project.settings import ChangeTask
from geossl.project.stages import alerts, area, labels
from geossl.project.state import Record, fingerprint
from geossl.report.page import build_report
from geossl.report.records import (
    AlertSheet,
    AreaTable,
    CaptionedPicture,
    ChangeExample,
    ClassMap,
    Comparison,
    Confusion,
    FootprintMap,
    ReportData,
    Ring,
    Score,
    SetAside,
    StageTime,
    TrainingCurves,
)

_TELLING = {(PRETRAINED, SCRATCH), (f"LDA, {PRETRAINED}", "LDA, random encoder")}
"""Pairs of models that differ in pretraining alone: fine-tuned, and frozen."""

_PACKAGES = ("torch", "lightning", "timm", "zarr", "icechunk", "dask", "rasterio", "numpy")


def run(project: Project, progress: Progress) -> StageResult:
    """Write the report from what exists; what does not exist yet is left out, and said."""
    records = [record for record in project.state.records() if record.stage != "report"]
    key = fingerprint(
        records=[(record.stage, record.key, record.finished) for record in records], version=geossl.__version__
    )
    if project.state.fresh("report", key) is not None and project.report_file.exists():
        return StageResult("report", skipped=True)
    with project.state.recording("report", key):
        build_report(_gather(project, records, progress), project.report_file)
    return StageResult("report", [str(project.report_file.relative_to(project.root))])


def _gather(project: Project, records: list[Record], progress: Progress) -> ReportData:
    parts = 6
    view = project.cube().view()
    scenes = project.scenes()
    statistics = scenes.statistics
    if statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    progress("report", 0, parts)
    images = project.task_images()
    scene_pictures = pictures.scene_pictures(scenes, statistics)
    progress("report", 1, parts)
    composites = [] if project.composite_name is None else pictures.composite_pictures(images, statistics)
    clouds = pictures.cloud_mask(scenes, statistics)
    progress("report", 2, parts)
    trained = project.state.get("pretrain") is not None
    learnt = load_encoder(project.encoder_folder()) if trained else None
    views = pictures.views(scenes, *learnt) if learnt else []
    neighbours = pictures.neighbours(scenes, *learnt) if learnt else []
    progress("report", 3, parts)
    maps = list(_maps(project))
    progress("report", 4, parts)
    changes = list(_changes(project))
    progress("report", 5, parts)
    headline, comparisons = _comparisons(project)
    data = ReportData(
        project=project.settings.name,
        region=_region(project),
        created=datetime.now(UTC),
        snapshot=view.snapshot,
        headline=headline,
        comparisons=comparisons,
        footprints=_footprints(project),
        scenes=scene_pictures,
        composites=composites,
        labels=list(_labels(project)),
        clouds=clouds,
        training=[_curves(project.encoder_folder())] if trained else [],
        views=views,
        neighbours=neighbours,
        scores=_scores(project),
        confusions=list(_confusions(project)),
        maps=maps,
        alerts=list(_alerts(project)),
        areas=list(_areas(project)),
        changes=changes,
        times=[StageTime(record.stage, record.seconds) for record in records],
        set_aside=[SetAside(i.source, i.reason, i.remedy) for i in quarantined(view, scenes.name)],
        versions={
            "geossl": geossl.__version__,
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        absent={} if trained else {"training": "no encoder was pretrained yet"},
    )
    progress("report", parts, parts)
    return data


def _labels(project: Project) -> Iterator[CaptionedPicture]:
    view = project.cube().view()
    for name in sorted({*project.settings.tasks} & {*view.label_names()}):
        found = view.labels(name)
        caption = f"from {found.source}: {'. '.join(found.report.lines())}." if found.report else f"from {found.source}"
        yield CaptionedPicture(f"{name}, version {found.version}", labels.draw(project, name, found), caption)


def _footprints(project: Project) -> FootprintMap:
    scenes = project.scenes()
    outlines = [ring for item in scenes.items().values() for ring in _rings(item["geometry"])]
    tiles = [
        ring for tile_id in scenes.tile_ids for ring in _rings(scenes.tile(tile_id).extent.to_crs("EPSG:4326").json)
    ]
    area = project.area()
    return FootprintMap(outlines, tiles, list(_rings(area.json)) if area is not None else ())


def _rings(geometry: Mapping[str, Any]) -> Iterator[Ring]:
    """Outer rings of a GeoJSON geometry."""
    if geometry["type"] == "Polygon":
        yield [(point[0], point[1]) for point in geometry["coordinates"][0]]
    elif geometry["type"] == "MultiPolygon":
        for polygon in geometry["coordinates"]:
            yield [(point[0], point[1]) for point in polygon[0]]


def _region(project: Project) -> str:
    scenes = project.scenes()
    boxes = [scenes.tile(tile_id).extent.to_crs("EPSG:4326").boundingbox for tile_id in scenes.tile_ids]
    west, south = min(box.left for box in boxes), min(box.bottom for box in boxes)
    east, north = max(box.right for box in boxes), max(box.top for box in boxes)
    grid = scenes.grid
    return (
        f"{west:.3f}, {south:.3f} to {east:.3f}, {north:.3f} degrees; {grid.crs}, {grid.resolution:g} m, "
        f"{len(boxes)} tile{'s' if len(boxes) > 1 else ''} of {grid.tile_size} pixels; {scenes.sensor.title or scenes.sensor.name}"
    )


def _curves(folder: Path) -> TrainingCurves:
    card = load_card(folder)
    return read_curves(folder, card.id, _verdict(card.health))


def _verdict(health: Any) -> str:
    return f"healthy: effective rank {health['rank']:.1f}, feature std {health['std']:.2f}" if health else ""


def _task_records(project: Project) -> Iterator[tuple[str, Record]]:
    for name in ("evaluate", *(f"finetune.{task}" for task in project.settings.tasks)):
        if (record := project.state.get(name)) is not None:
            yield name, record


def _scores(project: Project) -> list[Score]:
    return [
        Score(**row, floor=PRETRAINED not in row["model"] and row["model"] != WITHOUT_ENCODER)
        for row in project.scores()
    ]


def _comparisons(project: Project) -> tuple[list[Comparison], list[Comparison]]:
    """Pretrained against not pretrained with all else alike, by each task's first metric; then everything else."""
    names = {field.name for field in fields(Comparison)}
    headline: list[Comparison] = []
    others: list[Comparison] = []
    for _, record in _task_records(project):
        rows = record.result.get("differences", [])
        for row in rows:
            if row["metric"] != rows[0]["metric"]:
                continue
            most = row["labels"] == max(other["labels"] for other in rows)
            telling = most and (row["model"], row["against"]) in _TELLING
            (headline if telling else others).append(Comparison(**{k: v for k, v in row.items() if k in names}))
    return headline, others


def _confusions(project: Project) -> Iterator[Confusion]:
    view = project.cube().view()
    for stage, record in _task_records(project):
        if stage == "evaluate":
            continue
        for found in record.result.get("confusions", []):
            if found["model"] in (PRETRAINED, WITHOUT_ENCODER):
                names = view.labels(found["task"]).legend.names
                yield Confusion(
                    found["task"],
                    found["model"],
                    names,
                    np.array(found["matrix"]),
                    found.get("classes", ()),
                    found.get("reliability", ()),
                )


def _published(project: Project) -> Iterator[tuple[str, Record, Path]]:
    for name in project.settings.tasks:
        if (record := project.state.get(f"map.{name}")) is not None:
            yield name, record, project.maps / str(record.result["release"])


def _maps(project: Project) -> Iterator[ClassMap]:
    for name, record, folder in _published(project):
        data, legend = project.task_data(name), Legend.from_dict(record.result["legend"])
        yield pictures.class_map(folder / f"{name}.tif", name, legend, data, _statistics(project, data))


def _alerts(project: Project) -> Iterator[AlertSheet]:
    for name, settings in project.settings.alerts.items():
        if (record := project.state.get(f"alerts.{name}")) is None:
            continue
        folder = alerts.folder_of(project, name) / str(record.result["release"])
        data = DatedImages(project.task_images(), (settings.since, None))
        yield pictures.alert_sheet(folder, name, data, _statistics(project, data), project.root)


def _areas(project: Project) -> Iterator[AreaTable]:
    for record in project.state.records():
        if record.stage.startswith("area."):
            figures = record.result
            title = f"{figures['map']}, {' and '.join(figures['dates'])}: {figures['answered']} points"
            yield AreaTable(title, list(area.table_rows(figures)), list(area.lines(figures)))


def _changes(project: Project) -> Iterator[ChangeExample]:
    for name, _, folder in _published(project):
        if isinstance(project.settings.tasks[name], ChangeTask):
            data = project.task_data(name)
            yield from pictures.change_examples(data, folder / f"{name}-polygons.gpkg", _statistics(project, data))


def _statistics(project: Project, data: TaskData | DatedImages) -> Statistics:
    """What stretches the pictures of a task's images."""
    statistics = data.collection.statistics or project.scenes().statistics
    assert statistics is not None
    return statistics
