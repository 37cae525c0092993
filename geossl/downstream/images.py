"""Which image of every tile belongs to a wanted date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.cube.collection import Collection
from geossl.imagery.clouds import is_clear


class DatedImages:
    """A collection as it was at one or more dates.

    Parameters
    ----------
    dates:
        The wanted date of each image; None: the newest.
    """

    def __init__(self, collection: Collection, dates: Sequence[dt.date | None]) -> None:
        self.collection = collection
        self.dates = tuple(dates)
        self.tile_ids = list(collection.tile_ids)

    @property
    def sensor(self) -> Sensor:
        return self.collection.sensor

    def steps(self, tile_id: str) -> tuple[int, ...] | None:
        """The step of each wanted date, or None where the tile has no clear pixel or not a step for each.

        It is the nearest among the steps at least half as clear as the tile's clearest.
        """
        clear, times = self.collection.clear_fraction(tile_id), self.collection.times(tile_id)
        usable = np.flatnonzero((clear >= 0.5 * clear.max(initial=0)) & (clear > 0))
        if not usable.size:
            return None
        chosen = []
        for date in self.dates:
            wanted = times[usable].max() if date is None else np.datetime64(date, "ns")
            away = np.abs(times[usable] - wanted)
            chosen.append(int(usable[np.lexsort((-clear[usable], away))[0]]))
        return tuple(chosen) if len(set(chosen)) == len(chosen) else None

    def images(self, tile_id: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(D, C, H, W) stored numbers and (D, H, W) validity of a tile that has a step for every date."""
        steps = self.steps(tile_id)
        assert steps is not None
        image = self.collection.image(tile_id)
        return np.stack([np.asarray(image[step]) for step in steps]), self.valid(tile_id, steps)

    def valid(self, tile_id: str, steps: tuple[int, ...]) -> NDArray[np.bool_]:
        """(D, H, W) where the ground was seen at each step."""
        quality = self.collection.quality(tile_id)
        return np.stack([is_clear(np.asarray(quality[step])) for step in steps])
