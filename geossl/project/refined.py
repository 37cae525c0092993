"""A change map's tiles within its forest and above its minimum mapping unit, and what a release keeps of that."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from geossl.cube.collection import Collection
from geossl.downstream.images import DatedImages
from geossl.downstream.settings import ForestSettings
from geossl.downstream.task import TrainedTask
from geossl.maps.predict import MapReport
from geossl.maps.refine import refine_change
from geossl.progress import Progress
from geossl.project.forest import forest_of
from geossl.project.project import Project
from geossl.project.settings import ChangeTask


def refined(
    project: Project,
    name: str,
    data: DatedImages,
    task: TrainedTask,
    report: MapReport,
    tiles: Path,
    progress: Progress,
) -> tuple[MapReport, Path, Mapping[str, Any]]:
    """What was predicted for a task's map, by its settings.

    Returns
    -------
    The report and folder of the tiles that came out, and what the map's lineage says of it.
    """
    settings, grid = project.settings.tasks[name], data.collection.grid
    forest = settings.forest if isinstance(settings, ChangeTask) else None
    smallest = max(1, math.ceil(project.settings.map.minimum_ha * 1e4 / grid.resolution**2))
    if forest is None and smallest == 1:
        return report, tiles, {}
    target = tiles.with_name("refined")
    report = refine_change(
        report,
        tiles,
        target,
        grid=grid,
        legend=task.legend,
        forest=data.forest,
        smallest=smallest,
        progress=progress,
    )
    kept = None if forest is None else {"settings": forest.model_dump(mode="json"), "key": project.forest_key(name)}
    return report, target, {"forest": kept, "smallest_pixels": smallest}


def refined_as(
    release: Path,
    name: str,
    project: Project,
    images: Collection,
    steps: Mapping[str, Sequence[int]],
    task: TrainedTask,
    report: MapReport,
    tiles: Path,
    progress: Progress,
) -> tuple[MapReport, Path]:
    """What another model predicted for the images of a published map, refined as that map was.

    Parameters
    ----------
    release, name:
        The published map's folder and name.
    """
    kept = json.loads((release / f"{name}-lineage.json").read_text(encoding="utf-8"))
    if "smallest_pixels" not in kept:
        return report, tiles
    forest = None
    if kept["forest"] is not None:
        settings: ForestSettings = TypeAdapter(ForestSettings).validate_python(kept["forest"]["settings"])
        forest = forest_of(project, settings, _Earlier(images, steps))
    target = tiles.with_name("refined")
    report = refine_change(
        report,
        tiles,
        target,
        grid=images.grid,
        legend=task.legend,
        forest=forest,
        smallest=kept["smallest_pixels"],
        progress=progress,
    )
    return report, target


class _Earlier(DatedImages):
    """The earlier image of each tile that somebody chose steps of."""

    def __init__(self, collection: Collection, steps: Mapping[str, Sequence[int]]) -> None:
        super().__init__(collection, (None,))
        self.chosen = steps

    def steps(self, tile_id: str) -> tuple[int, ...] | None:
        return (self.chosen[tile_id][0],) if tile_id in self.chosen else None
