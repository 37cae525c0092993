"""What every scene says of the forest, kept on disk: a folder of predicted tiles for each scene."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.files import file_name
from geossl.legend import NO_LABEL
from geossl.maps.alerts.rule import UNSEEN, Look, to_day
from geossl.maps.predict import predict_map
from geossl.maps.protocols import Imagery, MapTask
from geossl.maps.settings import MapSettings
from geossl.maps.tiles import TileFolder
from geossl.progress import Progress, silent

Fit = Callable[[Mapping[str, int]], MapTask | None]
"""From a scene's step on each tile to a model whose first class is forest and whose second is none; None
where the scene shows too little to tell."""

_NOTE = "look"


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
    """The looks of one monitor, one folder a scene."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, scene: str) -> TileFolder:
        return TileFolder(self.folder / file_name(scene, ""))

    def has(self, look: SceneLook) -> bool:
        """Whether a scene was scored as it is now."""
        return self.of(look.scene).note(_NOTE) == look.record()

    def read(self, scene: str, tile_id: str, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(N,) percent that no forest stands in the pixels ``where`` (H, W) of a tile; UNSEEN where not seen."""
        code, percent = self.of(scene).read(tile_id)[:, where]
        return np.where(code == NO_LABEL, np.uint8(UNSEEN), np.where(code == 1, percent, 100 - percent))

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
        for path in self.folder.glob("*"):
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
    settings: MapSettings,
    progress: Progress = silent,
) -> tuple[list[str], list[str]]:
    """Score the scenes that were not, or not as they are now.

    Returns
    -------
    Ids of those that were scored now; and of those in which there is too little to tell, which say nothing.
    """
    scored: list[str] = []
    mute: list[str] = []
    for done, look in enumerate(looks):
        progress("looks", done, len(looks))
        tiles = folder.of(look.scene)
        note = tiles.note(_NOTE)
        if note == look.record():
            continue
        if (task := fit(look.steps)) is None:
            mute.append(look.scene)
            continue
        if note is not None:  # of pixels or a model that are no more
            shutil.rmtree(tiles.folder)
        steps = {tile_id: (step,) for tile_id, step in look.steps.items()}
        predict_map(task, collection, steps, tiles.folder, settings=settings)
        tiles.save_note(_NOTE, look.record())
        scored.append(look.scene)
    progress("looks", len(looks), len(looks))
    return scored, mute


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
