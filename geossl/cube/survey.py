"""Look at scenes before any of them is read: are they sound, are they new, and which tiles do they touch?"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from geossl.bands import Sensor
from geossl.cube.repository import Cube
from geossl.cube.scenes import SceneEntry, read_table
from geossl.cube.wave import Candidate, require_collection, scene_kills
from geossl.cube.work import run
from geossl.errors import GeosslError, SceneError
from geossl.grid import Grid, Tile
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.warp import check_scene, scene_geobox

if TYPE_CHECKING:
    from distributed import Client

_Task = tuple[Scene, str | None, str | None]
"""A scene, its checksum where that was taken already, and the checksum that the collection has of it."""


@dataclass
class Survey:
    """Looks at one wave of scenes after the other, and remembers which ids have been."""

    sensor: Sensor
    grid: Grid
    area: Geometry | None
    """Only tiles that touch it; None: all tiles that a scene touches."""
    client: Client | None
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Scene id → checksum, of scenes whose checksum is known."""
    _seen: dict[str, str] = field(default_factory=dict)

    def look(
        self, batch: Sequence[Scene | Rejected], known: Mapping[str, SceneEntry]
    ) -> tuple[list[Candidate], list[Rejected]]:
        """The scenes that look sound, and what is set aside with the reason.

        Parameters
        ----------
        known:
            The collection's table of scenes; the files of a scene that is there are not opened.
        """
        rejected = [item for item in batch if isinstance(item, Rejected)]
        scenes = [item for item in batch if isinstance(item, Scene)]
        tasks: list[_Task] = [
            (scene, self.checksums.get(scene.id), known[scene.id].checksum if scene.id in known else None)
            for scene in scenes
        ]
        inspect = functools.partial(_inspect, sensor=self.sensor, grid=self.grid, area=self.area)
        results = dict(run(inspect, tasks, self.client, killed=_killed))
        candidates = []
        for position, scene in enumerate(scenes):
            result = results[position]
            if isinstance(result, GeosslError):
                rejected.append(Rejected(scene.id, result.what, result.remedy))
            elif scene.id not in self._seen:
                self._seen[scene.id] = result.checksum
                candidates.append(result)
            elif self._seen[scene.id] != result.checksum:
                href = next(iter(scene.bands.values())).href
                reason = f"another scene of this ingest has the same id, {scene.id}"
                rejected.append(Rejected(href, reason, "give one a different id"))
        return candidates, rejected


def _inspect(task: _Task, sensor: Sensor, grid: Grid, area: Geometry | None) -> Candidate | GeosslError:
    """Runs on workers."""
    scene, checksum, known = task
    try:
        checksum = checksum or scene.checksum()
        box = scene_geobox(scene) if known == checksum else check_scene(scene, sensor)
        tiles = tiles_of(box, grid, area)
        if not tiles:
            raise SceneError(f"scene {scene.id} lies outside the project's area")
    except GeosslError as error:
        return error
    return Candidate(scene, checksum, tiles)


def _killed(task: _Task) -> GeosslError:
    return scene_kills(task[0], "its headers")


def known_scenes(cube: Cube, collection: str, sensor: Sensor, grid: Grid) -> dict[str, SceneEntry]:
    """Scene id → what the collection holds of it; refuses a collection that is not like this.

    Raises
    ------
    StoreError, RadiometryError
        See :func:`geossl.cube.wave.require_collection`.
    """
    root = cube.view().root
    return read_table(require_collection(root, collection, sensor, grid)) if collection in root else {}


def tiles_to_read(candidate: Candidate, known: Mapping[str, SceneEntry]) -> list[Tile]:
    """The tiles that are not there from the same files."""
    entry = known.get(candidate.scene.id)
    if entry is None or entry.checksum != candidate.checksum:
        return candidate.tiles
    return [tile for tile in candidate.tiles if tile.id not in entry.tiles]


def tiles_of(raster: GeoBox, grid: Grid, area: Geometry | None = None) -> list[Tile]:
    """The tiles that a scene's raster touches, within an area.

    By the raster's extent rather than the footprint: footprints are drawn coarsely, and a tile missed
    would be pixels lost.
    """
    extent = raster.extent
    there, here = extent.crs, CRS(grid.crs)
    assert there is not None  # a raster that does not say where it is was refused
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
