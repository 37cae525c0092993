"""Where forest stood before, and where water is after, by indices of the image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.downstream.images import DatedImages, Forest
from geossl.downstream.settings import IndexForest, RiverSettings
from geossl.errors import LabelError

TILES = 64
"""Most tiles whose forest is kept in memory."""

_INDICES = {
    "ndvi": (("nir", "nir08"), ("red",)),
    "ndmi": (("nir", "nir08"), ("swir16", "swir22")),
    "mndwi": (("green",), ("swir16", "swir22")),
}
"""Common names of the bands of each normalised difference."""

BANK, WATER = 1, 2
"""Of a river's bed: as wet or sandy as a bank, and open water."""


def by_index(images: DatedImages, settings: IndexForest) -> Forest:
    """Forest where the first image of ``images`` reaches each index that the settings name.

    Raises
    ------
    LabelError
        The sensor lacks a band of such an index.
    """
    wanted = [
        (_bands(images.sensor, name, "forest by ", "use another index, or `forest: {kind: raster, path: …}`"), least)
        for name in ("ndvi", "ndmi")
        if (least := getattr(settings, name)) is not None
    ]

    @functools.lru_cache(maxsize=TILES)
    def forest(tile_id: str) -> NDArray[np.bool_]:
        return np.logical_and.reduce(_at_least(images, tile_id, wanted))

    return forest


def river_bed(images: DatedImages, settings: RiverSettings) -> Callable[[str], NDArray[np.uint8]]:
    """From a tile's id to (H, W) :data:`WATER`, :data:`BANK` or 0, by the first image of ``images``.

    Raises
    ------
    LabelError
        The sensor has no green or no short-wave infrared.
    """
    bands = _bands(images.sensor, "mndwi", "river: ", "or leave it out")
    wanted = [(bands, settings.bed), (bands, settings.water)]

    @functools.lru_cache(maxsize=TILES)
    def bed(tile_id: str) -> NDArray[np.uint8]:
        bank, water = _at_least(images, tile_id, wanted)
        return np.where(water, WATER, np.where(bank, BANK, 0)).astype(np.uint8)

    return bed


def _at_least(
    images: DatedImages, tile_id: str, wanted: Sequence[tuple[tuple[int, int], float]]
) -> list[NDArray[np.bool_]]:
    """For each pair of bands (H, W) where its normalised difference is as much; nowhere without an image."""
    if (steps := images.steps(tile_id)) is None:
        return [np.zeros(images.collection.tile(tile_id).shape, bool)] * len(wanted)
    image = np.asarray(images.collection.image(tile_id)[steps[0]])
    value = images.sensor.radiometry.to_physical(image)
    there = images.valid(tile_id, steps[:1])[0]
    found = []
    for (first, second), least in wanted:
        # without dividing: where both are 0 there is none
        total = value[first] + value[second]
        found.append(there & (total > 0) & (value[first] - value[second] >= least * total))
    return found


def _bands(sensor: Sensor, index: str, what: str, instead: str) -> tuple[int, int]:
    names = [band.common_name for band in sensor.bands]
    found = [next((names.index(name) for name in side if name in names), None) for side in _INDICES[index]]
    if None in found:
        sides = " and ".join("/".join(side) for side in _INDICES[index])
        raise LabelError(
            f"{what}{index} needs the bands {sides}, and {sensor.name} has {', '.join(n or '?' for n in names)}",
            f"give the bands their common names, {instead}",
        )
    return int(found[0] or 0), int(found[1] or 0)
