"""What every scene says of the forest, kept on disk: a folder of predicted tiles for each scene."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from geossl.bands import require_same_radiometry
from geossl.files import file_name, read_json, write_json
from geossl.grid import Tile
from geossl.maps.alerts.rule import UNSEEN, Look, to_day
from geossl.maps.canvas import Canvas
from geossl.maps.protocols import Imagery, MapTask
from geossl.maps.tiles import tile_raster
from geossl.progress import Progress, silent

Fit = Callable[[Mapping[str, int]], MapTask | None]
"""From a scene's step on each tile to a model whose first class is forest and whose second is none; None
where the scene shows too little to tell."""

_NOTE = "look.json"
_KEY = "GEOSSL_KEY"

_BLOCK = 512
"""Pixels that are scored at once, along each side."""


@dataclass(frozen=True)
class SceneLook:
    """One scene, and what it was scored from."""

    scene: str
    day: int
    steps: Mapping[str, int]
    """Its step on each watched tile."""
    key: str
    """Fingerprint of its pixels and of how they are scored."""

    def record(self) -> dict[str, Any]:
        return {"scene": self.scene, "day": self.day, "key": self.key}


class LookFolder:
    """The looks of one monitor: for each scene a folder with one raster a tile, percent that no forest stands there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, scene: str) -> Path:
        return self.folder / file_name(scene, "")

    def has(self, look: SceneLook) -> bool:
        """Whether all of a scene was scored as it is now."""
        return read_json(self.of(look.scene) / _NOTE) == look.record()

    def raster(self, scene: str, tile_id: str) -> Path:
        return self.of(scene) / f"{tile_id}.tif"

    def has_tile(self, look: SceneLook, tile_id: str) -> bool:
        """Whether one tile of a scene was scored as it is now."""
        try:
            with rasterio.open(self.raster(look.scene, tile_id)) as source:
                return source.tags().get(_KEY) == look.key
        except RasterioIOError:
            return False

    def write(self, look: SceneLook, tile: Tile, percent: NDArray[np.uint8]) -> None:
        """Keep what a scene says of a tile, (H, W)."""
        where = self.raster(look.scene, tile.id)
        with tile_raster(where, tile, count=1, dtype="uint8", nodata=UNSEEN) as target:
            target.write(percent, 1)
            target.update_tags(**{_KEY: look.key})

    def finish(self, look: SceneLook) -> None:
        """Note that all of a scene was scored."""
        write_json(self.of(look.scene) / _NOTE, look.record())

    def read(self, scene: str, tile_id: str, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(N,) percent that no forest stands in the pixels ``where`` (H, W) of a tile; UNSEEN where not seen."""
        with rasterio.open(self.raster(scene, tile_id)) as source:
            return source.read(1)[where]

    def looks(self, found: Collection[SceneLook], tile_id: str, where: NDArray[np.bool_]) -> list[Look]:
        """What the scenes say of some pixels of a tile."""
        return [
            Look(look.day, look.scene, functools.partial(self.read, look.scene, tile_id, where))
            for look in found
            if tile_id in look.steps
        ]

    def forget(self, keep: Collection[SceneLook]) -> None:
        """Delete what scenes said that are no longer in the cube."""
        names = {file_name(look.scene, "") for look in keep}
        for path in self.folder.glob("[!.]*"):
            if path.name not in names:
                shutil.rmtree(path)


def find_looks(collection: Imagery, tiles: Collection[str], begin: int, about: str) -> list[SceneLook]:
    """The scenes on some tiles from a day on, in order of day.

    Parameters
    ----------
    about:
        Names everything but the scene's pixels that its score follows from.
    """
    steps: dict[str, dict[str, int]] = {}
    days: dict[str, int] = {}
    made: dict[str, list[Any]] = {}
    for tile_id in tiles:
        times = collection.times(tile_id).astype("M8[D]")
        rows = zip(
            collection.scene_ids(tile_id),
            times,
            collection.revisions(tile_id),
            collection.checksums(tile_id),
            strict=True,
        )
        for step, (scene, time, revision, checksum) in enumerate(rows):
            day = to_day(time.item())
            if day >= begin:
                steps.setdefault(scene, {})[tile_id] = step
                days[scene] = day
                made.setdefault(scene, [about, collection.name]).append([tile_id, int(revision), checksum])
    return sorted(
        (SceneLook(scene, days[scene], of_tiles, _digest(made[scene])) for scene, of_tiles in steps.items()),
        key=lambda look: (look.day, look.scene),
    )


def score_looks(
    collection: Imagery,
    looks: Collection[SceneLook],
    folder: LookFolder,
    fit: Fit,
    forest: Callable[[str], NDArray[np.bool_]],
    progress: Progress = silent,
) -> tuple[list[str], list[str]]:
    """Score the scenes that were not, or not as they are now; an interrupted run goes on with the next tile.

    Parameters
    ----------
    forest:
        Tile id → (H, W) where there was forest; elsewhere nothing is asked.

    Returns
    -------
    Ids of those that were scored now; and of those in which there is too little to tell, which say nothing.
    """
    scored: list[str] = []
    mute: list[str] = []
    for done, look in enumerate(looks):
        progress("looks", done, len(looks))
        if folder.has(look):
            continue
        if (task := fit(look.steps)) is None:
            mute.append(look.scene)
            continue
        require_same_radiometry(task.sensor, collection.sensor, us=f"the model {task.id}", them=collection.name)
        canvas = Canvas(collection, {tile_id: (step,) for tile_id, step in look.steps.items()}, 1)
        for tile_id in look.steps:
            if not folder.has_tile(look, tile_id):
                tile = collection.tile(tile_id)
                folder.write(look, tile, _percent(task, canvas, tile, forest(tile_id)))
        folder.finish(look)
        scored.append(look.scene)
    progress("looks", len(looks), len(looks))
    return scored, mute


def _percent(task: MapTask, canvas: Canvas, tile: Tile, forest: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(H, W) percent that no forest stands in the forest of a tile, block by block with the margin that it needs."""
    out = np.full(tile.shape, UNSEEN, np.uint8)
    (top, left), (height, width), margin = tile.pixel_origin, tile.shape, task.margin
    for row, col in itertools.product(range(0, height, _BLOCK), range(0, width, _BLOCK)):
        block = np.s_[row : min(row + _BLOCK, height), col : min(col + _BLOCK, width)]
        if not forest[block].any():
            continue
        rows, cols = (
            range(start + part.start - margin, start + part.stop + margin)
            for start, part in zip((top, left), block, strict=True)
        )
        image, valid = canvas.read(rows, cols)
        inside = np.s_[margin : len(rows) - margin, margin : len(cols) - margin]
        wanted = valid[0][inside] & forest[block]
        if wanted.any():
            other = task.predict(image, valid)[0, 1][inside]
            out[block] = np.where(wanted, np.rint(other * 100).astype(np.uint8), UNSEEN)
    return out


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
