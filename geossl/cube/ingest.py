"""Scenes into the cube, in waves of one commit each.

A wave is planned, written and committed under the cube's lock:

1. *Inspect* (parallel): checksum, file headers, and which tiles the scene's raster touches.
2. *Plan* (this process): what is already there is left alone; every other scene gets a step on each of
   its tiles, a new one at the end or, when it was ingested before from other files, its own again.
3. *Write* (parallel): one task reads one scene on one tile and writes whole chunks of that one step into
   its own fork of the session. No two tasks share a chunk, and no task touches metadata.
4. *Settle* (this process): a scene that failed on any tile is set aside, and **none** of its forks is
   merged; so nothing of it, not even half a replaced step, can reach the commit. The steps that turned
   out unused, of failed scenes and of tiles without data, are closed by moving later chunks of this wave
   down (a change of references, not of bytes) before the arrays get their final length.
5. Record and commit: pixels, per-step values, scene table and quarantine become visible together.

Whatever ends the process in between leaves the last commit, and ingesting again goes on from there.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from odc.geo.crs import CRS
from odc.geo.geom import Geometry

from geossl.bands import Sensor
from geossl.cube import scenes as records
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.wave import Candidate, Wave, require_collection
from geossl.cube.work import run
from geossl.errors import GeosslError, SceneError
from geossl.grid import Grid, Tile
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.warp import check_scene, scene_geobox
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client


@dataclass
class IngestReport:
    """What one ingest did."""

    snapshot: str
    """Id of the newest snapshot afterwards."""
    ingested: list[str] = field(default_factory=list)
    """Ids of the scenes that were read, for the first time or again."""
    already: list[str] = field(default_factory=list)
    """Ids of the scenes that were there, from the same files."""
    set_aside: list[Rejected] = field(default_factory=list)
    """What could not be ingested, and why."""
    tiles: int = 0
    """Number of tile steps written."""
    bytes: int = 0
    """Uncompressed size of what was written."""
    saturated: int = 0
    """How many numbers did not fit the sensor's dtype, were clipped and flagged."""


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
) -> IngestReport:
    """Ingest scenes into a collection, which is created where there is none.

    Scenes of the same id and checksum are left alone; of another checksum they overwrite their steps with
    the next revision. A scene that cannot be ingested is set aside with its reason, and the others go on.

    Parameters
    ----------
    scenes:
        From a source; what it rejected is kept in the quarantine with its reason.
    client:
        A Dask cluster; None: this process alone.
    area:
        Only tiles that touch it; None: all tiles that a scene touches.

    Raises
    ------
    StoreError, RadiometryError
        The collection exists with another grid, another sensor or other bands.
    """
    report = IngestReport(cube.snapshot())
    total = len(scenes) if isinstance(scenes, Sized) else None
    seen: dict[str, str] = {}
    done = 0
    for batch in itertools.batched(scenes, settings.wave):
        rejected = [item for item in batch if isinstance(item, Rejected)]
        found = [item for item in batch if isinstance(item, Scene)]
        known = _known_checksums(cube, collection, sensor, grid)
        inspect = functools.partial(_inspect, sensor=sensor, grid=grid, area=area)
        results = dict(run(inspect, [(scene, known.get(scene.id)) for scene in found], client))
        candidates = []
        for position, scene in enumerate(found):
            result = results[position]
            if isinstance(result, GeosslError):
                rejected.append(Rejected(scene.id, result.what, result.remedy))
            elif scene.id not in seen:
                seen[scene.id] = result.checksum
                candidates.append(result)
            elif seen[scene.id] != result.checksum:
                href = next(iter(scene.bands.values())).href
                rejected.append(
                    Rejected(
                        href, f"another scene of this ingest has the same id, {scene.id}", "give one a different id"
                    )
                )
        wave = Wave(collection, sensor, grid, candidates, rejected, settings.resampling, client, progress)
        report.snapshot = cube.transact(wave.write)
        report.ingested += wave.ingested
        report.already += wave.already
        report.set_aside += wave.set_aside
        report.tiles += wave.tiles
        report.bytes += wave.bytes
        report.saturated += wave.saturated
        done += len(batch)
        progress("scenes", done, total)
    return report


def _known_checksums(cube: Cube, collection: str, sensor: Sensor, grid: Grid) -> dict[str, str]:
    """Scene id → checksum of what the collection holds; refuses a collection that is not like this."""
    root = cube.view().root
    if collection not in root:
        return {}
    table = records.read_table(require_collection(root, collection, sensor, grid))
    return {scene_id: entry.checksum for scene_id, entry in table.items()}


def _inspect(
    task: tuple[Scene, str | None], sensor: Sensor, grid: Grid, area: Geometry | None
) -> Candidate | GeosslError:
    """Runs on workers, for a scene and the checksum that the collection knows of it."""
    scene, known = task
    try:
        checksum = scene.checksum()
        if known != checksum:
            check_scene(scene, sensor)
        tiles = tiles_of(scene, grid, area)
        if not tiles:
            raise SceneError(f"scene {scene.id} lies outside the project's area")
    except GeosslError as error:
        return error
    return Candidate(scene, checksum, tiles)


def tiles_of(scene: Scene, grid: Grid, area: Geometry | None = None) -> list[Tile]:
    """The tiles that the scene's raster touches, within an area.

    By the raster's extent rather than the footprint: footprints are drawn coarsely, and a tile missed
    would be pixels lost.
    """
    extent = scene_geobox(scene).extent
    there, here = extent.crs, CRS(grid.crs)
    assert there is not None  # scene_geobox has seen to it
    if area is not None and there != here:
        # a raster larger than a UTM zone does not survive the projection below
        extent = extent & area.to_crs(there, resolution="auto", check_and_fix=True)
        if extent.is_empty:
            return []
    outline = extent.to_crs(here, resolution="auto", check_and_fix=True)
    if there != here:
        outline = outline.buffer(grid.resolution)  # edges are straight between the points that were projected
    if area is not None:
        outline = outline & area.to_crs(here, resolution="auto", check_and_fix=True)
    if outline.is_empty:
        return []
    # sharing an edge is not enough: a scene cut to tiles would be read on all of their neighbours
    return [tile for tile in grid.tiles(outline) if (tile.extent & outline).area > 0]
