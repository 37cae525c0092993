"""A change map's tiles within its forest and above its minimum mapping unit, with what a river took told apart, and
what a release keeps of that."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from geossl.cube.collection import Collection
from geossl.downstream.forest import river_bed
from geossl.downstream.images import DatedImages, Forest
from geossl.downstream.settings import RIVER, ForestSettings, RiverSettings
from geossl.downstream.task import TrainedTask
from geossl.grid import Grid
from geossl.legend import NO_LABEL, LandClass, Legend
from geossl.maps.predict import MapReport
from geossl.maps.refine import refine_change
from geossl.progress import Progress
from geossl.project.forest import forest_of
from geossl.project.project import Project
from geossl.project.settings import ChangeTask


@dataclass(frozen=True)
class Refined:
    """Tiles as they are published."""

    report: MapReport
    folder: Path
    """Of the tiles."""
    legend: Legend
    about: Mapping[str, Any]
    """What the map's lineage says of it."""


def refined(
    project: Project,
    name: str,
    data: DatedImages,
    task: TrainedTask,
    report: MapReport,
    tiles: Path,
    progress: Progress,
) -> Refined:
    """What was predicted for a task's map, by its settings."""
    settings, grid = project.settings.tasks[name], data.collection.grid
    assert isinstance(settings, ChangeTask)
    smallest = max(1, math.ceil(project.settings.map.minimum_ha * 1e4 / grid.resolution**2))
    if settings.forest is None and settings.river is None and smallest == 1:
        return Refined(report, tiles, task.legend, {})
    later = DatedImages(data.collection, (data.dates[1],))
    about: dict[str, Any] = {"forest": None, "smallest_pixels": smallest}
    if settings.forest is not None:
        about["forest"] = {"settings": settings.forest.model_dump(mode="json"), "key": project.forest_key(name)}
    if settings.river is not None:
        about["river"] = settings.river.model_dump(mode="json")
    return _refined(report, tiles, grid, task.legend, data.forest, settings.river, later, about, progress)


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
) -> Refined:
    """What another model predicted for the images of a published map, refined as that map was.

    Parameters
    ----------
    release, name:
        The published map's folder and name.
    """
    kept = json.loads((release / f"{name}-lineage.json").read_text(encoding="utf-8"))
    if "smallest_pixels" not in kept:
        return Refined(report, tiles, task.legend, {})
    forest = river = None
    if kept["forest"] is not None:
        settings: ForestSettings = TypeAdapter(ForestSettings).validate_python(kept["forest"]["settings"])
        forest = forest_of(project, settings, _Chosen(images, steps, 0))
    if "river" in kept:
        river = RiverSettings(**kept["river"])
    return _refined(report, tiles, images.grid, task.legend, forest, river, _Chosen(images, steps, -1), kept, progress)


def _refined(
    report: MapReport,
    tiles: Path,
    grid: Grid,
    legend: Legend,
    forest: Forest | None,
    river: RiverSettings | None,
    later: DatedImages,
    about: Mapping[str, Any],
    progress: Progress,
) -> Refined:
    """Tiles within a forest and without small patches; where a river is told, its class is the legend's last."""
    if river is not None:
        code = next(code for code in range(NO_LABEL) if code not in legend.codes)
        legend = Legend((*legend, LandClass(code, RIVER, "#2b83ba")), legend.title)
    target = tiles.with_name("refined")
    report = refine_change(
        report,
        tiles,
        target,
        grid=grid,
        legend=legend,
        forest=forest,
        smallest=about["smallest_pixels"],
        bed=None if river is None else river_bed(later, river),
        progress=progress,
    )
    return Refined(report, target, legend, about)


class _Chosen(DatedImages):
    """One image of each tile that somebody chose steps of: the first or the last of them."""

    def __init__(self, collection: Collection, steps: Mapping[str, Sequence[int]], which: int) -> None:
        super().__init__(collection, (None,))
        self.chosen, self.which = steps, which

    def steps(self, tile_id: str) -> tuple[int, ...] | None:
        return (self.chosen[tile_id][self.which],) if tile_id in self.chosen else None
