"""The worker's part of an ingest: one scene on some tiles becomes one step on each."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.cube import layout
from geossl.cube.chunks import write_windows
from geossl.cube.overview import Thin
from geossl.errors import GeosslError
from geossl.grid import Tile
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.scene import Scene
from geossl.imagery.warp import Files, TilePixels, read_tile

_TOGETHER = 8
"""Most tiles of one task: more gain little, and a worker that dies loses them all."""


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
    """What became of a job that found data."""

    chunk_clear: NDArray[np.float32]
    """(cy, cx)"""
    empty: bool
    """Pure no-data, written only because it replaces something."""
    size: int
    """Bytes."""
    saturated: int
    thin: Thin | None
    """Red, green and blue, thinned out, where the job asks for it."""


@dataclass(frozen=True, slots=True)
class StepsWritten:
    """What became of a scene on some tiles."""

    fork: bytes
    """The fork that holds the steps' chunks, pickled; one that is never merged leaves no trace."""
    steps: list[StepWritten | None]
    """One a job; None: nothing but no-data."""


def together(jobs: Iterable[StepJob]) -> Iterator[tuple[StepJob, ...]]:
    """One scene's jobs in rows of a few neighbouring tiles, which share what is opened and decoded."""
    for _, row in itertools.groupby(sorted(jobs, key=lambda job: (job.tile.iy, job.tile.ix)), lambda job: job.tile.iy):
        yield from itertools.batched(row, _TOGETHER)


def write_steps(
    jobs: Sequence[StepJob], fork: bytes, collection: str, sensor: Sensor, resampling: str
) -> StepsWritten | GeosslError:
    """Runs on workers, for jobs of one scene: read, then write whole chunks of the jobs' own steps.

    An error is returned, not raised.
    """
    session = pickle.loads(fork)
    shape = jobs[0].tile.shape
    image = np.empty((len(sensor.bands), *shape), sensor.radiometry.dtype)
    buffers = TilePixels(image, np.empty(shape, np.uint8))
    written: list[StepWritten | None] = []
    try:
        with Files() as files:
            for job in jobs:
                found = read_tile(job.scene, sensor, job.tile, resampling=resampling, out=buffers, files=files)
                if found is None and not job.replaces:
                    written.append(None)
                    continue
                if found is None:
                    buffers.image[:] = sensor.radiometry.nodata or 0
                    buffers.quality[:] = Quality.NODATA
                    buffers.saturated = 0
                chunks = layout.pixel_chunks(session.store, f"{collection}/{job.tile.id}", sensor)
                write_windows({chunks["image"]: buffers.image, chunks["quality"]: buffers.quality}, job.step)
                written.append(_summary(job, buffers, sensor, empty=found is None))
    except GeosslError as error:
        return error
    return StepsWritten(pickle.dumps(session), written)


def _summary(job: StepJob, pixels: TilePixels, sensor: Sensor, *, empty: bool) -> StepWritten:
    return StepWritten(
        layout.chunk_fractions(is_clear(pixels.quality)),
        empty,
        pixels.image.nbytes + pixels.quality.nbytes,
        pixels.saturated,
        None if job.every is None else _thin(pixels.image, pixels.quality, sensor, job.every),
    )


def _thin(image: NDArray[Any], quality: NDArray[np.uint8], sensor: Sensor, every: int) -> Thin:
    """The middle one of every so-many pixels, as a copy: the arrays it is taken from are large."""
    of_each = slice(every // 2, None, every)
    return Thin(image[list(sensor.rgb()), of_each, of_each].copy(), quality[of_each, of_each].copy())
