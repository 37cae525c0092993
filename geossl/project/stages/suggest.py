"""`geossl suggest`: where the next labels would help a task most, as a layer to be filled in QGIS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely

from geossl.cube.label_files import is_raster
from geossl.cube.settings import LabelSettings
from geossl.cube.vectors import read_vectors
from geossl.downstream.data import TaskData
from geossl.downstream.suggest import SIDE, Places
from geossl.downstream.suggest import suggest as choose_places
from geossl.downstream.task import load_task
from geossl.errors import SettingsError, StoreError
from geossl.files import write_bytes
from geossl.legend import LandClass, Legend
from geossl.maps.places import write_places
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project
from geossl.project.settings import ChangeTask
from geossl.report.pictures import OVERLAYS, quicklook
from geossl.report.records import Picture
from geossl.report.sheet import Cell, contact_sheet

_VIEW = 48
"""Pixels around a place that its picture shows."""


@dataclass(frozen=True)
class Suggestion:
    """What was written."""

    layer: Path
    sheet: Path
    lines: list[str]


def suggest(project: Project, name: str, count: int, out: Path, progress: Progress) -> Suggestion:
    """Write the places where a task's model would learn most from labels; see :mod:`geossl.downstream.suggest`.

    Raises
    ------
    SettingsError
        There is no such task with labels, no squares with classes can be joined to them, or the file exists.
    StoreError
        The task has no model yet.
    LabelError
        All ground that may be suggested is labelled.
    """
    task = project.settings.tasks.get(name)
    if task is None or task.labels is None:
        labelled = [known for known, each in project.settings.tasks.items() if each.labels is not None]
        raise SettingsError(
            f"the project has no task {name!r} with labels", f"its tasks with labels are: {', '.join(labelled) or '–'}"
        )
    if any(map(is_raster, task.labels.paths)):
        raise SettingsError(
            f"the labels of task {name!r} are a raster, which cannot be joined with other files",
            "make polygons of it, such as by gdal_polygonize, and name those instead",
        )
    if isinstance(task, ChangeTask) and task.labels.date_column is not None:
        raise SettingsError(
            f"the labels of task {name!r} are clearings with dates, to which squares with classes cannot be joined",
            "draw what is missing into the file itself, and widen `labels.area` to all ground that was looked at",
        )
    if out.suffix.lower() != ".gpkg":
        raise SettingsError(f"--out {out}: places are written as a GeoPackage", "name it *.gpkg")
    if out.exists():
        raise SettingsError(f"--out {out} exists, and may hold labels that somebody filled in", "name another file")
    champion = project.registry.find(name, "champion")
    if champion is None:
        raise StoreError(f"the task {name!r} has no model whose doubts could be asked", "run `geossl finetune` first")
    data = project.task_data(name)
    assert isinstance(data, TaskData), "it has labels"
    model = load_task(project.store / champion.folder)
    encoder, card = load_encoder(project.encoder_folder())
    card.require(data.sensor, f"collection {data.collection.name!r}")
    places = choose_places(data, model, encoder, card.statistics, count, progress=progress)
    column = task.labels.column or "class"
    values = file_values(project, task.labels, model.legend)
    frame = _frame(data, places, model.legend, column, task.labels.date_column or "date", numbers=_numeric(values))
    write_places(out, frame, column, values)
    sheet = out.with_suffix(".png")
    write_bytes(sheet, contact_sheet(list(_cells(project, data, places, model.legend))))
    lines = [f"{len(places)} places to label next, each {SIDE} × {SIDE} pixels: {out}; pictures: {sheet}"]
    if len(places) < count:
        lines.append("there are no more in training blocks, away from labelled ground and from each other")
    lines.append(
        f"choose a class for each in QGIS (column `{column}`; what you cannot tell stays empty), then add the file to "
        f"`tasks.{name}.labels.path` and run `geossl ingest`"
    )
    return Suggestion(out, sheet, lines)


def file_values(project: Project, labels: LabelSettings, legend: Legend) -> dict[LandClass, int | str]:
    """What a label file of the task writes for each class: so that places filled in are read as its labels are."""
    numbers = False
    if labels.column is not None:
        frame = read_vectors([project.root / path for path in labels.paths], labels.layer, "EPSG:4326").frame
        numbers = frame[labels.column].dtype.kind in "iufb"
    if isinstance(labels.classes, tuple):
        claimed = {c.code: c.values for c in labels.classes}
        wanted = int if numbers else str
        return {
            land: next(
                (value for value in claimed[land.code] if isinstance(value, wanted)),
                land.code if numbers else land.name,
            )
            for land in legend
        }
    return {land: land.code if numbers else land.name for land in legend}


def _numeric(values: dict[LandClass, int | str]) -> bool:
    return all(isinstance(value, int) for value in values.values())


def _frame(
    data: TaskData, places: Places, legend: Legend, column: str, date: str, *, numbers: bool
) -> geopandas.GeoDataFrame:
    grid = data.collection.grid
    shapes, dates = [], []
    for tile_id, row, col in zip(places.tile, places.row, places.col, strict=True):
        tile = data.collection.tile(tile_id)
        left, top = tile.transform @ (int(col), int(row))
        shapes.append(shapely.box(left, top - SIDE * grid.resolution, left + SIDE * grid.resolution, top))
        steps = data.steps(tile_id)
        assert steps is not None, "it was looked at"
        dates.append(str(data.collection.times(tile_id)[steps[-1]])[:10])
    order = np.argsort(-places.proba, axis=1)
    return geopandas.GeoDataFrame(
        {
            "rank": np.arange(1, len(places) + 1),
            column: np.full(len(places), np.nan) if numbers else np.full(len(places), None, object),
            "predicted": [legend.names[best] for best in order[:, 0]],
            "uncertainty": places.uncertainty.astype(float).round(3),
            "reason": list(_reasons(places, legend)),
            date: dates,
        },
        geometry=shapes,
        crs=grid.crs,
    ).astype({column: "Int32" if numbers else "string"})


def _reasons(places: Places, legend: Legend) -> Iterator[str]:
    for proba in places.proba:
        first, second = np.argsort(-proba)[:2]
        yield f"{legend.names[first]} {proba[first]:.2f} or {legend.names[second]} {proba[second]:.2f}"


def _cells(project: Project, data: TaskData, places: Places, legend: Legend) -> Iterator[Cell]:
    """A picture of each place at the newest of the task's dates, the place outlined."""
    statistics = data.collection.statistics or project.scenes().statistics
    assert statistics is not None, "a model was trained with some"
    for rank, (tile_id, row, col) in enumerate(zip(places.tile, places.row, places.col, strict=True), start=1):
        steps = data.steps(tile_id)
        assert steps is not None, "it was looked at"
        size = data.collection.grid.tile_size
        y, x = (int(np.clip(at + SIDE // 2 - _VIEW // 2, 0, size - _VIEW)) for at in (row, col))
        stored = data.collection.image(tile_id)[steps[-1], :, y : y + _VIEW, x : x + _VIEW]
        picture = _outlined(quicklook(np.asarray(stored), data.sensor, statistics), int(row) - y, int(col) - x)
        proba = places.proba[rank - 1]
        first, second = np.argsort(-proba)[:2]
        yield Cell(
            picture,
            [f"{rank}: {legend.names[first]} {proba[first]:.2f}", f"or {legend.names[second]} {proba[second]:.2f}"],
        )


def _outlined(picture: Picture, row: int, col: int) -> Picture:
    """A frame of one pixel around the place."""
    mask = np.zeros(picture.shape[:2], bool)
    mask[max(row - 1, 0) : row + SIDE + 1, max(col - 1, 0) : col + SIDE + 1] = True
    mask[row : row + SIDE, col : col + SIDE] = False
    picture = picture.copy()
    picture[mask] = OVERLAYS[0]
    return picture
