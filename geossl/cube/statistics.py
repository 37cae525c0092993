"""Per-band statistics of a collection over its clear pixels, for normalising and for pictures."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.bands import Sensor, Statistics
from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.collection import Collection
from geossl.cube.moments import BandMoments
from geossl.cube.repository import Cube
from geossl.cube.work import run
from geossl.errors import StoreError
from geossl.files import read_arrays, write_arrays
from geossl.grid import CHUNK
from geossl.imagery.clouds import is_clear
from geossl.imagery.seen import fingerprint
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

_GROUPS = 64
"""Tiles are handed out in at most this many groups, since each answers with half a megabyte a band."""


class Counted:
    """The clear pixels of which steps have been counted, and what came of it.

    Parameters
    ----------
    steps:
        (S,) uint64, ascending: a name for each step, another one for another tile, scene, source or revision.
    bands:
        What was seen of each band.
    """

    def __init__(self, steps: NDArray[np.uint64], bands: list[BandMoments]) -> None:
        self.steps = steps
        self.bands = bands

    @classmethod
    def nothing(cls, sensor: Sensor) -> Counted:
        """No step of any tile yet."""
        return cls(np.empty(0, np.uint64), [BandMoments(sensor.radiometry.dtype) for _ in sensor.bands])

    @classmethod
    def read(cls, path: Path, sensor: Sensor) -> Counted:
        """What :meth:`write` wrote; nothing where that is lost, damaged, or of other bands."""
        kept = read_arrays(path, "sensor", "steps", "histograms", "moments")
        if kept is None or str(kept["sensor"]) != _name(sensor):
            return cls.nothing(sensor)
        rows = zip(kept["histograms"], kept["moments"].tolist(), strict=True)
        return cls(
            kept["steps"], [BandMoments(sensor.radiometry.dtype, histogram, *moments) for histogram, moments in rows]
        )

    def write(self, path: Path, sensor: Sensor) -> None:
        """Keep it in a file, in one move."""
        write_arrays(
            path,
            sensor=_name(sensor),
            steps=self.steps,
            histograms=[band.histogram for band in self.bands],
            moments=[band.moments for band in self.bands],
        )

    def statistics(self) -> Statistics:
        """Of every band, in stored units.

        Of integers all figures are exact; of floats the percentiles are good to 0.4 %.

        Raises
        ------
        StoreError
            No clear pixel was seen.
        """
        if not all(band.count for band in self.bands):
            raise StoreError(
                "the cube has no clear pixel of these scenes", "ingest scenes with clear sky, or check quality masks"
            )
        summaries = [band.summary() for band in self.bands]
        columns = {field.name: tuple(summary[field.name] for summary in summaries) for field in fields(Statistics)}
        return Statistics.from_dict(columns)


def count(
    collection: Collection, known: Counted | None = None, *, client: Client | None = None, progress: Progress = silent
) -> Counted:
    """Count every clear pixel of every step, chunk by chunk.

    It is of the image that every reader sees: a pixel of a band that is kept coarser counts as often as pixels of
    the grid are clear within it. Of steps that are ``known`` nothing is read, unless one of them is no longer as it
    was counted: then all are.
    """
    names = _step_names(collection)
    every = np.unique(np.concatenate([*names.values(), np.empty(0, np.uint64)]))
    counted = Counted.nothing(collection.sensor)
    if known is not None and np.isin(known.steps, every).all():
        counted = known
    new = {tile: np.flatnonzero(~np.isin(steps, counted.steps)).tolist() for tile, steps in names.items()}
    tiles = [tile for tile in names if new[tile]]
    groups = [{tile: new[tile] for tile in tiles[start::_GROUPS]} for start in range(min(_GROUPS, len(tiles)))]
    bands = copy.deepcopy(counted.bands)
    done = 0
    for position, seen in run(functools.partial(_of_steps, collection=collection), groups, client):
        for band, other in zip(bands, seen, strict=True):
            band.merge(other)
        done += len(groups[position])
        progress("tiles", done, len(tiles))
    return Counted(every, bands)


def store(cube: Cube, collection: str, statistics: Statistics) -> str:
    """Keep statistics with a collection; returns the newest snapshot. Storing the same again does nothing."""

    def work(session: icechunk.Session) -> str | None:
        group = subgroup(zarr.open_group(session.store, mode="r+"), collection)
        if Collection(session, collection).statistics == statistics:
            return None
        layout.set_statistics(group, statistics)
        return f"statistics of {collection}"

    return cube.transact(work)


def _of_steps(steps: Mapping[str, Sequence[int]], collection: Collection) -> list[BandMoments]:
    """What is seen of the bands of a collection on some steps of some tiles."""
    bands = [BandMoments(collection.sensor.radiometry.dtype) for _ in collection.sensor.bands]
    for tile_id, wanted in steps.items():
        image, quality = collection.image(tile_id), collection.quality(tile_id)
        for at, row, column in np.argwhere(collection.chunk_clear(tile_id)[wanted] > 0):
            step, window = wanted[at], np.s_[row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK]
            clear = is_clear(np.asarray(quality[step, *window]))
            pixels = np.asarray(image[step, :, *window])
            for band, values in zip(bands, pixels, strict=True):
                band.add(values[clear])
    return bands


def _step_names(collection: Collection) -> dict[str, NDArray[np.uint64]]:
    """Tile → a name for each of its steps."""
    collection.load("scene_id", "source_checksum", "revision")
    return {
        tile: np.array([fingerprint(tile, *map(str, source)) for source in collection.sources(tile)], np.uint64)
        for tile in collection.tile_ids
    }


def _name(sensor: Sensor) -> str:
    return json.dumps(sensor.to_dict(), sort_keys=True)
