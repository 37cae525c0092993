"""Per-band statistics of a collection over its clear pixels, for normalising and for pictures."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import zarr

from geossl.bands import Statistics
from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.collection import Collection
from geossl.cube.moments import BandMoments
from geossl.cube.repository import Cube
from geossl.cube.work import run
from geossl.errors import StoreError
from geossl.grid import CHUNK
from geossl.imagery.clouds import is_clear
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

_GROUPS = 64
"""Tiles are handed out in at most this many groups, since each answers with half a megabyte a band."""


def compute(collection: Collection, *, client: Client | None = None, progress: Progress = silent) -> Statistics:
    """Statistics of every band over all clear pixels of all steps, in stored units.

    Every clear pixel is read once, chunk by chunk. Of integers all figures are exact; of floats the
    percentiles are good to 0.4 %. All are of the image that every reader sees: a pixel of a band that is kept
    coarser counts as often as pixels of the grid are clear within it.

    Raises
    ------
    StoreError
        The collection has no clear pixel.
    """
    tiles = collection.tile_ids
    groups = [tiles[start::_GROUPS] for start in range(min(_GROUPS, len(tiles)))]
    bands = [BandMoments(collection.sensor.radiometry.dtype) for _ in collection.sensor.bands]
    done = 0
    for position, seen in run(functools.partial(_of_tiles, collection=collection), groups, client):
        for band, other in zip(bands, seen, strict=True):
            band.merge(other)
        done += len(groups[position])
        progress("tiles", done, len(tiles))
    if not all(band.count for band in bands):
        raise StoreError(
            f"collection {collection.name!r} has no clear pixel", "ingest scenes with clear sky, or check quality masks"
        )
    summaries = [band.summary() for band in bands]
    columns = {field.name: tuple(summary[field.name] for summary in summaries) for field in fields(Statistics)}
    return Statistics.from_dict(columns)


def store(cube: Cube, collection: str, statistics: Statistics) -> str:
    """Keep statistics with a collection; returns the newest snapshot. Storing the same again does nothing."""

    def work(session: icechunk.Session) -> str | None:
        group = subgroup(zarr.open_group(session.store, mode="r+"), collection)
        if Collection(session, collection).statistics == statistics:
            return None
        layout.set_statistics(group, statistics)
        return f"statistics of {collection}"

    return cube.transact(work)


def _of_tiles(tile_ids: list[str], collection: Collection) -> list[BandMoments]:
    bands = [BandMoments(collection.sensor.radiometry.dtype) for _ in collection.sensor.bands]
    for tile_id in tile_ids:
        image, quality = collection.image(tile_id), collection.quality(tile_id)
        for step, row, column in np.argwhere(collection.chunk_clear(tile_id) > 0):
            window = np.s_[row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK]
            clear = is_clear(np.asarray(quality[step, *window]))
            pixels = np.asarray(image[step, :, *window])
            for band, values in zip(bands, pixels, strict=True):
                band.add(values[clear])
    return bands
