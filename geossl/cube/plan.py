"""What an ingest would do, how long it would take and how much it would store, from a measured sample.

Every scene's header is looked at, as ingest itself does. A few of the steps, drawn at random, are then
really read and written, by the same code on the same workers, into a cube in a temporary folder.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import icechunk
from odc.geo.geom import Geometry

from geossl.bands import Sensor
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.space import free_bytes, plain_errors, step_bytes, stored_share
from geossl.cube.storage import local_folder, open_storage
from geossl.cube.survey import Survey, known_scenes, tiles_to_read
from geossl.cube.wave import Candidate, Wave
from geossl.grid import Grid, Tile
from geossl.imagery.scene import Rejected, Scene
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

_SAMPLE = 8
"""Steps that are read as a sample, or twice the number of workers where that is more."""


@dataclass
class IngestPlan:
    """What an ingest would do."""

    scenes: int = 0
    """Scenes that would be read."""
    tiles: int = 0
    """Steps (one scene on one tile) that would be read."""
    already: int = 0
    """Scenes that are there, from the same files."""
    set_aside: list[Rejected] = field(default_factory=list)
    """What would be set aside, as far as headers tell, and why."""
    stored: int = 0
    """Bytes that the store would grow by, compressed as the sample was."""
    scratch: int = 0
    """The most bytes that lie in the store without being committed: one wave's. What interrupts a wave
    leaves as much behind, until the store is cleaned."""
    seconds: float = 0.0
    """How long it would take on the workers that took the sample."""
    workers: int = 1
    sampled: int = 0
    """Steps that were really read."""
    free: int | None = None
    """Free bytes on the store's disk; None for object stores."""
    reserve: int = 0
    """Bytes of these that ingest leaves alone."""

    @property
    def missing(self) -> int:
        """Bytes that the disk is too small by."""
        return 0 if self.free is None else max(0, self.stored + self.reserve - self.free)


def plan(
    uri: str,
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
) -> IngestPlan:
    """Find out what :func:`geossl.cube.ingest.ingest` would do; nothing is committed to the cube.

    Parameters
    ----------
    uri:
        Address of the cube, which need not be there yet. The sample is written beside a local cube, on
        the same disk, and to the system's temporary folder otherwise; workers have to reach it.

    Raises
    ------
    StoreError, RadiometryError
        The collection exists with another grid, another sensor or other bands.
    """
    cube = Cube.open(uri) if _exists(uri) else None
    known = {} if cube is None else known_scenes(cube, collection, sensor, grid)
    survey = Survey(sensor, grid, area, client, checksums or {})
    workers = 1 if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    found = IngestPlan(workers=workers, free=free_bytes(uri), reserve=settings.reserve)
    steps: list[tuple[Candidate, Tile]] = []
    rng, wanted = random.Random(0), max(_SAMPLE, 2 * workers)
    total = len(scenes) if isinstance(scenes, Sized) else None
    start = time.perf_counter()
    looked = largest = 0
    for batch in itertools.batched(scenes, settings.wave):
        candidates, rejected = survey.look(batch, known)
        found.set_aside += rejected
        before = found.tiles
        for candidate in candidates:
            tiles = tiles_to_read(candidate, known)
            found.scenes, found.already = found.scenes + bool(tiles), found.already + (not tiles)
            for tile in tiles:
                # every step is as likely as any other to be in the sample (reservoir sampling)
                found.tiles += 1
                place = len(steps) if len(steps) < wanted else rng.randrange(found.tiles)
                if place < wanted:
                    steps[place : place + 1] = [(candidate, tile)]
        largest = max(largest, found.tiles - before)
        looked += len(batch)
        progress("headers", looked, total)
    found.seconds = time.perf_counter() - start  # ingest looks at the headers as well
    if steps:
        rng.shuffle(steps)
        with tempfile.TemporaryDirectory(prefix=".geossl-plan-", dir=_beside(uri)) as folder:
            trial = Cube.create(f"{folder}/cube")
            read = _Trial(trial, sensor, grid, collection, settings.resampling, client)
            # the first few start the workers up, and count only where there are no others
            parts = [part for part in (steps[:workers], steps[workers:]) if part]
            for part in parts:
                seconds = read(part)
                found.sampled += len(part)
                progress("sample", found.sampled, len(steps))
            share = stored_share(trial.view(), collection, [tile for _, tile in steps]) or 0.0
        found.seconds += seconds / len(parts[-1]) * found.tiles
        each = share * step_bytes(sensor, grid) * read.written / found.sampled
        found.stored, found.scratch = int(each * found.tiles), int(each * largest)
    return found


@dataclass
class _Trial:
    """Reads steps into a cube that nobody keeps."""

    cube: Cube
    sensor: Sensor
    grid: Grid
    collection: str
    resampling: str
    client: Client | None
    written: int = 0
    """Steps that held data."""

    def __call__(self, steps: Sequence[tuple[Candidate, Tile]]) -> float:
        """Seconds that it took."""
        tiles: dict[str, list[Tile]] = defaultdict(list)
        for candidate, tile in steps:
            tiles[candidate.scene.id].append(tile)
        candidates = {candidate.scene.id: candidate for candidate, _ in steps}
        wave = Wave(
            self.collection,
            self.sensor,
            self.grid,
            [replace(candidates[scene_id], tiles=of_scene) for scene_id, of_scene in tiles.items()],
            [],
            self.resampling,
            self.client,
            silent,
        )
        start = time.perf_counter()
        with plain_errors(self.cube.uri):
            self.cube.transact(wave.write)
        self.written += wave.report.tiles
        return time.perf_counter() - start


def _exists(uri: str) -> bool:
    folder = local_folder(uri)
    return folder.exists() if folder is not None else icechunk.Repository.exists(open_storage(uri))


def _beside(uri: str) -> Path | None:
    folder = local_folder(uri)
    if folder is None:
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent
