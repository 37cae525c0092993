"""The worker's part of an ingest: one scene on some tiles becomes one step on each."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.cube import layout
from geossl.cube.chunks import write_windows
from geossl.cube.groups import band_groups
from geossl.cube.overview import Thin
from geossl.errors import GeosslError
from geossl.grid import Tile
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.resample import Scratch
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
    buffers = _Buffers(sensor, jobs[0].tile)
    written: list[StepWritten | None] = []
    try:
        with Files() as files:
            for job in jobs:
                found = buffers.read(job.scene, job.tile, resampling, files)
                if not found and not job.replaces:
                    written.append(None)
                    continue
                if not found:
                    buffers.clear()
                chunks = layout.pixel_chunks(session.store, collection, job.tile, sensor)
                write_windows({chunks[name]: values for name, values in buffers.pixels.items()}, job.step)
                written.append(buffers.summary(empty=not found, every=job.every))
    except GeosslError as error:
        return error
    return StepsWritten(pickle.dumps(session), written)


class _Buffers:
    """One scene's pixels on one tile, group by group; used again from tile to tile."""

    def __init__(self, sensor: Sensor, tile: Tile) -> None:
        self.sensor = sensor
        self.groups = band_groups(sensor, tile.grid)
        scratch = Scratch()
        self.parts = []
        for group in self.groups:
            shape = tile.coarser(group.factor).shape
            image = np.empty((len(group.bands), *shape), sensor.radiometry.dtype)
            self.parts.append(TilePixels(image, np.empty(shape, np.uint8), scratch=scratch))
        self.quality = self.parts[0].quality
        """(H, W) flags of all bands, at the grid's resolution."""

    @property
    def pixels(self) -> dict[str, NDArray[Any]]:
        """What is stored, by the names of the arrays."""
        images = {group.name("image"): part.image for group, part in zip(self.groups, self.parts, strict=True)}
        return images | {"quality": self.quality}

    def read(self, scene: Scene, tile: Tile, resampling: str, files: Files) -> bool:
        """Fill the buffers; False, and of no content, where the scene has nothing but no-data on the tile.

        Every group is read on its own pixels, so that bands which lie on them keep their numbers. Masks are
        read once, at the grid's resolution; elsewhere a flag of a coarser pixel holds for all that it covers.
        """
        for group, part in zip(self.groups, self.parts, strict=True):
            wanted = scene if group is self.groups[0] else replace(scene, masks={})
            place = tile.coarser(group.factor)
            sensor = group.of(self.sensor)
            if read_tile(wanted, sensor, place, resampling=resampling, out=part, files=files) is None:
                return False
            if part.quality is not self.quality:
                for y, x in np.ndindex(group.factor, group.factor):
                    self.quality[y :: group.factor, x :: group.factor] |= part.quality
        return not (self.quality & np.uint8(Quality.NODATA)).all()

    def clear(self) -> None:
        """Nothing but no-data."""
        for part in self.parts:
            part.image[:] = self.sensor.radiometry.nodata or 0
            part.saturated = 0
        self.quality[:] = Quality.NODATA

    def summary(self, *, empty: bool, every: int | None) -> StepWritten:
        """What the scene's step on the tile is like."""
        return StepWritten(
            layout.chunk_fractions(is_clear(self.quality)),
            empty,
            sum(values.nbytes for values in self.pixels.values()),
            sum(part.saturated for part in self.parts),
            None if every is None else self._thin(every),
        )

    def _thin(self, every: int) -> Thin:
        """The middle one of every so-many pixels, as a copy: the arrays it is taken from are large."""
        at = np.arange(every // 2, len(self.quality), every)
        planes = {
            band: plane[np.ix_(at // group.factor, at // group.factor)]
            for group, part in zip(self.groups, self.parts, strict=True)
            for band, plane in zip(group.bands, part.image, strict=True)
            if band in self.sensor.rgb()
        }
        return Thin(np.stack([planes[band] for band in self.sensor.rgb()]), self.quality[np.ix_(at, at)])
