"""Which image of every tile belongs to a wanted date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.cube.collection import Collection
from geossl.errors import LabelError
from geossl.imagery.clouds import is_clear

Forest = Callable[[str], NDArray[np.bool_]]
"""From a tile's id to where forest stood before (H, W)."""


class DatedImages:
    """A collection as it was at one or more dates.

    Parameters
    ----------
    dates:
        The wanted date of each image; None: the newest. A composite is named by its period, such as
        ``2020-06-01/P4M``.
    forest:
        Where change is asked for; None: everywhere.
    """

    def __init__(
        self, collection: Collection, dates: Sequence[dt.date | str | None], forest: Forest | None = None
    ) -> None:
        self.collection = collection
        self.dates = tuple(dates)
        self.forest = forest
        self.tile_ids = list(collection.tile_ids)

    @property
    def sensor(self) -> Sensor:
        return self.collection.sensor

    def steps(self, tile_id: str) -> tuple[int, ...] | None:
        """The step of each wanted date, or None where the tile has no clear pixel or not a step for each.

        Of a date it is the nearest among the steps at least half as clear as the tile's clearest.
        """
        if self.dates and isinstance(self.dates[0], str):
            found = self.collection.scene_ids(tile_id)
            named = [found.index(str(period)) for period in self.dates if period in found]
            return tuple(named) if len(named) == len(self.dates) else None
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

    def require_dates(self) -> list[str]:
        """The tiles that have an image for each date.

        Raises
        ------
        LabelError
            There is none: a period without clear images, or dates that are nearest to the same image.
        """
        if with_all := [tile_id for tile_id in self.tile_ids if self.steps(tile_id) is not None]:
            return with_all
        name = self.collection.name
        there = {period for tile_id in self.tile_ids for period in self.collection.scene_ids(tile_id)}
        if empty := [period for period in self.dates if isinstance(period, str) and period not in there]:
            raise LabelError(
                f"the period {empty[0]} has no clear image in {name!r}",
                "choose another period, or ingest scenes of it and run `geossl stats`",
            )
        if any(self.collection.clear_fraction(tile_id).any() for tile_id in self.tile_ids):
            times = np.concatenate([self.collection.times(tile_id) for tile_id in self.tile_ids]).astype("M8[D]")
            raise LabelError(
                f"the dates {' and '.join(map(str, self.dates))} are nearest to one and the same image of {name!r} on"
                f" every tile; its images lie between {times.min()} and {times.max()}",
                "choose dates further apart, or ingest more scenes",
            )
        raise LabelError(f"no image of {name!r} has a clear pixel", "ingest more scenes")

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

    def asked(self, tile_id: str) -> NDArray[np.bool_]:
        """(H, W) where the ground was seen at every date and change is asked for."""
        steps = self.steps(tile_id)
        assert steps is not None
        seen = self.valid(tile_id, steps).all(axis=0)
        return seen if self.forest is None else seen & self.forest(tile_id)
