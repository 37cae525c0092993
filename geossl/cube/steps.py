"""The worker's part of an ingest: one scene on one tile becomes one step."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.cube import layout
from geossl.cube.overview import Thin
from geossl.errors import GeosslError
from geossl.grid import Tile
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.scene import Scene
from geossl.imagery.warp import read_tile


@dataclass(frozen=True, slots=True)
class StepJob:
    """Read one scene on one tile and write it as one step."""

    scene: Scene
    tile: Tile
    step: int
    replaces: bool
    """Whether the step is committed already, with the scene's earlier pixels."""
    every: int | None = None
    """Bring every so-many-th pixel of what people would see back, for a quicklook; None: no pixel."""


@dataclass(frozen=True, slots=True)
class StepWritten:
    """What became of a job; a fork that is never merged leaves no trace."""

    fork: bytes
    """The fork that holds the step's chunks, pickled."""
    chunk_clear: NDArray[np.float32]
    """(cy, cx)"""
    empty: bool
    """Pure no-data, written only because it replaces something."""
    size: int
    """Bytes."""
    saturated: int
    thin: Thin | None
    """Red, green and blue, thinned out, where the job asks for it."""


def write_step(
    job: StepJob, fork: bytes, collection: str, sensor: Sensor, resampling: str
) -> StepWritten | GeosslError | None:
    """Runs on workers: read, then write whole chunks of the job's own step; an error is returned, not raised."""
    try:
        pixels = read_tile(job.scene, sensor, job.tile, resampling=resampling)
    except GeosslError as error:
        return error
    if pixels is not None:
        image, quality, saturated = pixels.image, pixels.quality, pixels.saturated
    elif job.replaces:
        image = np.full((len(sensor.bands), *job.tile.shape), sensor.radiometry.nodata or 0, sensor.radiometry.dtype)
        quality = np.full(job.tile.shape, Quality.NODATA, np.uint8)
        saturated = 0
    else:
        return None
    session = pickle.loads(fork)
    group = zarr.open_group(session.store, path=f"{collection}/{job.tile.id}", mode="r+")
    layout.write_pixels(group, job.step, image, quality)
    return StepWritten(
        pickle.dumps(session),
        layout.chunk_fractions(is_clear(quality)),
        pixels is None,
        image.nbytes + quality.nbytes,
        saturated,
        None if job.every is None else _thin(image, quality, sensor, job.every),
    )


def _thin(image: NDArray[Any], quality: NDArray[np.uint8], sensor: Sensor, every: int) -> Thin:
    """The middle one of every so-many pixels, as a copy: the arrays it is taken from are large."""
    of_each = slice(every // 2, None, every)
    return Thin(image[list(sensor.rgb()), of_each, of_each].copy(), quality[of_each, of_each].copy())
