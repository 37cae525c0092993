"""Where forest stood before, by vegetation indices of the earlier image."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.downstream.images import DatedImages, Forest
from geossl.downstream.settings import IndexForest
from geossl.errors import LabelError

TILES = 64
"""Most tiles whose forest is kept in memory."""

_INDICES = {"ndvi": (("nir", "nir08"), ("red",)), "ndmi": (("nir", "nir08"), ("swir16", "swir22"))}
"""Common names of the bands of each normalised difference."""


def by_index(images: DatedImages, settings: IndexForest) -> Forest:
    """Forest where the first image of ``images`` reaches each index that the settings name.

    Raises
    ------
    LabelError
        The sensor lacks a band of such an index.
    """
    wanted = [
        (_bands(images.sensor, name), least) for name in _INDICES if (least := getattr(settings, name)) is not None
    ]

    @functools.lru_cache(maxsize=TILES)
    def forest(tile_id: str) -> NDArray[np.bool_]:
        tile = images.collection.tile(tile_id)
        if (steps := images.steps(tile_id)) is None:
            return np.zeros(tile.shape, bool)
        image = np.asarray(images.collection.image(tile_id)[steps[0]])
        value = images.sensor.radiometry.to_physical(image)
        there = images.valid(tile_id, steps[:1])[0]
        for (first, second), least in wanted:
            # without dividing: where both are 0 there is no forest
            total = value[first] + value[second]
            there &= (total > 0) & (value[first] - value[second] >= least * total)
        return there

    return forest


def _bands(sensor: Sensor, index: str) -> tuple[int, int]:
    names = [band.common_name for band in sensor.bands]
    found = [next((names.index(name) for name in side if name in names), None) for side in _INDICES[index]]
    if None in found:
        sides = " and ".join("/".join(side) for side in _INDICES[index])
        raise LabelError(
            f"forest by {index} needs the bands {sides}, and {sensor.name} has {', '.join(n or '?' for n in names)}",
            "give the bands their common names, use another index, or `forest: {kind: raster, path: …}`",
        )
    return int(found[0] or 0), int(found[1] or 0)
