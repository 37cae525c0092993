"""What a collection shows at one date, in one small picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geossl.cube.collection import Collection
from geossl.cube.overview import Overview, Thin, assemble, thinning
from geossl.grid import Tile


def overview(collection: Collection, steps: Mapping[str, int], *, side: int = 640) -> Overview:
    """Thin out one step of each tile so that the whole is about ``side`` pixels wide or high.

    Parameters
    ----------
    steps:
        Tile id → position along that tile's time axis.
    """
    tiles = [collection.tile(tile_id) for tile_id in steps]
    every = thinning(tiles, side)
    return assemble({tile: thin(collection, tile, steps[tile.id], every) for tile in tiles}, collection.sensor, every)


def thin(collection: Collection, tile: Tile, step: int, every: int) -> Thin:
    """Every so-many-th pixel of one step of a tile."""
    return Thin(
        np.asarray(collection.image(tile.id)[step])[:, ::every, ::every],
        np.asarray(collection.quality(tile.id)[step])[::every, ::every],
    )


def scene_steps(collection: Collection) -> dict[str, dict[str, int]]:
    """Scene id → tile id → step, scenes in order of time."""
    times: dict[str, Any] = {}
    found: dict[str, dict[str, int]] = {}
    collection.load("scene_id", "time")
    for tile_id in collection.tile_ids:
        for step, (scene, time) in enumerate(
            zip(collection.scene_ids(tile_id), collection.times(tile_id), strict=True)
        ):
            found.setdefault(scene, {})[tile_id] = step
            times.setdefault(scene, time)
    return {scene: found[scene] for scene in sorted(found, key=lambda scene: (times[scene], scene))}
