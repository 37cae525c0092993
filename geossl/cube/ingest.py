"""Scenes into the cube, in waves of one commit each.

A wave is planned, written and committed under the cube's lock:

1. *Inspect* (parallel): checksum, file headers, and which tiles the scene's raster touches.
2. *Plan* (this process): what is already there is left alone; every other scene gets a step on each of
   its tiles, a new one at the end or, when it was ingested before from other files, its own again.
3. *Write* (parallel): one task reads one scene on a few neighbouring tiles and writes whole chunks of those
   steps into its own fork of the session. No two tasks share a chunk, and no task touches metadata.
4. *Settle* (this process): a scene that failed on any tile is set aside, and **none** of its forks is
   merged; so nothing of it, not even half a replaced step, can reach the commit. The steps that turned
   out unused, of failed scenes and of tiles without data, are closed by moving later chunks of this wave
   down (a change of references, not of bytes) before the arrays get their final length.
5. Record and commit: pixels, per-step values, scene table and quarantine become visible together.

Whatever ends the process in between leaves the last commit, and ingesting again goes on from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odc.geo.geom import Geometry

from geossl.bands import Sensor
from geossl.cube.report import IngestReport
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.space import Room, plain_errors
from geossl.cube.survey import Survey, known_scenes, tiles_to_read
from geossl.cube.wave import Look, Wave
from geossl.grid import Grid
from geossl.imagery.scene import Rejected, Scene
from geossl.progress import PIXELS, Progress, silent

if TYPE_CHECKING:
    from distributed import Client


def ingest(
    cube: Cube,
    scenes: Iterable[Scene | Rejected],
    sensor: Sensor,
    grid: Grid,
    collection: str,
    settings: IngestSettings,
    client: Client | None = None,
    area: Geometry | None = None,
    progress: Progress = silent,
    *,
    checksums: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> IngestReport:
    """Ingest scenes into a collection, which is created where there is none.

    Scenes of the same id and checksum are left alone; of another checksum they overwrite their steps with
    the next revision. A scene that cannot be ingested is set aside with its reason, and the others go on.

    Parameters
    ----------
    scenes:
        From a source, drawn as waves need them; what it rejected is kept in the quarantine with its reason.
    client:
        A Dask cluster; None: this process alone.
    area:
        Only tiles that touch it; None: all tiles that a scene touches.
    checksums:
        Scene id → checksum, where the caller has taken it already.
    look:
        Is shown every scene just before its commit, so that no scene goes unseen.

    Raises
    ------
    StoreError, RadiometryError
        The collection exists with another grid, another sensor or other bands.
    StoreError
        The next wave would touch the reserve of free disk, or the disk is full or read-only. What was
        committed is kept, and ingesting again goes on from there.
    ClusterError
        The connection to the scheduler is lost; likewise.
    """
    report = IngestReport(cube.snapshot())
    told = _Overall(progress, len(scenes) if isinstance(scenes, Sized) else None)
    survey = Survey(sensor, grid, area, client, checksums or {})
    room = Room(cube, settings.reserve)
    for batch in itertools.batched(scenes, settings.wave):
        known = known_scenes(cube, collection, sensor, grid)
        candidates, rejected = survey.look(batch, known)
        tiles = [tile for candidate in candidates for tile in tiles_to_read(candidate, known)]
        room.require(collection, sensor, grid, tiles)
        told.wave = len(batch)
        wave = Wave(collection, sensor, grid, candidates, rejected, settings.resampling, client, told, look)
        with plain_errors(cube.uri):
            wave.report.snapshot = cube.transact(wave.write)
        report.add(wave.report)
        told.close(len(tiles), report.bytes)
    return report


@dataclass
class _Overall:
    """Adds what a wave says of its progress to the waves before it."""

    progress: Progress
    total: int | None
    """Number of scenes, where it is known."""
    scenes: int = 0
    steps: int = 0
    bytes: int = 0
    wave: int = 0
    """Scenes of the present wave."""

    def __call__(self, what: str, done: int, total: int | None, note: str = "") -> None:  # noqa: ARG002
        if what == "tiles" and total:
            self.progress("tiles", self.steps + done, None)
            self.progress("scenes", self.scenes + self.wave * done // total, self.total)
        elif what == PIXELS:
            self.progress(PIXELS, self.bytes + done, None)

    def close(self, steps: int, size: int) -> None:
        """The present wave is committed."""
        self.scenes, self.steps, self.bytes = self.scenes + self.wave, self.steps + steps, size
        self.progress("scenes", self.scenes, self.total)
