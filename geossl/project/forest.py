"""Where a change task looks: what was forest before, by the project file."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from geossl.cube.label_files import Raster
from geossl.cube.settings import Value
from geossl.downstream import forest
from geossl.downstream.images import DatedImages, Forest
from geossl.downstream.settings import ForestSettings, IndexForest, LandcoverForest, RasterForest
from geossl.downstream.task import TrainedTask, load_task
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.legend import NO_LABEL
from geossl.maps.predict import predict_map
from geossl.maps.tiles import TileFolder
from geossl.project.project import Project
from geossl.project.settings import LandcoverTask
from geossl.registry import Version


def forest_of(project: Project, settings: ForestSettings, earlier: DatedImages) -> Forest:
    """From a tile's id to where forest stood; nothing is computed before it is asked for.

    Parameters
    ----------
    earlier:
        The images of the earlier date.

    Raises
    ------
    LabelError, SettingsError, StoreError
        Bands, a file, a task or its model are missing.
    """
    if isinstance(settings, IndexForest):
        return forest.by_index(earlier, settings)
    if isinstance(settings, RasterForest):
        raster = Raster(project.root / settings.path)
        table: dict[Value, int] = dict.fromkeys(settings.values, 1)
        return functools.lru_cache(maxsize=forest.TILES)(
            lambda tile_id: raster.codes(earlier.collection.tile(tile_id), table) == 1
        )
    return _by_model(project, settings, earlier)


def key_of(project: Project, settings: ForestSettings) -> str:
    """Names what a forest follows from beside settings and images: a file's content, or a model."""
    if isinstance(settings, RasterForest):
        path = project.root / settings.path
        try:
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "blake2b").hexdigest()[:16]
        except OSError as error:
            raise LabelError(f"forest cannot be read from {path}: {error.strerror}") from error
    return _model(project, settings).folder if isinstance(settings, LandcoverForest) else ""


def _by_model(project: Project, settings: LandcoverForest, earlier: DatedImages) -> Forest:
    """Predicted tile by tile when first asked for, and kept on disk."""
    folder = TileFolder(project.maps / settings.task / "forest")

    @functools.cache
    def model() -> tuple[TrainedTask, list[int]]:
        """With the codes of its forest."""
        task = load_task(project.store / _model(project, settings).folder)
        if missing := [name for name in settings.classes if name not in task.legend.names]:
            raise SettingsError(
                f"forest: task {settings.task!r} has no class {missing[0]!r}",
                f"its classes are {', '.join(task.legend.names)}",
            )
        return task, [land.code for land in task.legend if land.name in settings.classes]

    @functools.lru_cache(maxsize=forest.TILES)
    def found(tile_id: str) -> NDArray[np.bool_]:
        task, codes = model()
        # all steps, so that windows reach into neighbours as they do on the task's own map
        steps = {each: s for each in earlier.tile_ids if (s := earlier.steps(each)) is not None}
        if tile_id not in steps:
            return np.zeros(earlier.collection.tile(tile_id).shape, bool)
        predict_map(task, earlier.collection, steps, folder.folder, settings=project.settings.map, tiles=[tile_id])
        classes = folder.read(tile_id)[0]
        return np.isin(classes, codes) & (classes != NO_LABEL)

    return found


def _model(project: Project, settings: LandcoverForest) -> Version:
    task = project.settings.tasks.get(settings.task)
    if not isinstance(task, LandcoverTask):
        raise SettingsError(
            f"forest: the project has no land-cover task {settings.task!r}",
            f"its tasks are {', '.join(project.settings.tasks)}",
        )
    champion = project.registry.find(settings.task, "champion")
    if champion is None:
        raise StoreError(
            f"forest: land-cover task {settings.task!r} has no model yet",
            "name it before the change task in the project file, and run `geossl finetune`",
        )
    return champion
