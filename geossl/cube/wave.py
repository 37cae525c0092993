"""One wave of an ingest: plan, write, settle, record. See :mod:`geossl.cube.ingest`."""

from __future__ import annotations

import functools
import pickle
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.bands import Sensor, require_same_radiometry
from geossl.cube import layout
from geossl.cube import scenes as records
from geossl.cube.work import run
from geossl.errors import GeosslError, StoreError
from geossl.grid import Grid, Tile
from geossl.imagery.clouds import is_clear
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.warp import TilePixels, read_tile
from geossl.progress import Progress

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scene whose files look sound."""

    scene: Scene
    checksum: str
    tiles: list[Tile]


@dataclass(frozen=True, slots=True)
class _Job:
    """Read one scene on one tile and write it as one step."""

    scene: Scene
    tile: Tile
    step: int
    replaces: bool
    """Whether the step is committed already, with the scene's earlier pixels."""


@dataclass(frozen=True, slots=True)
class _Written:
    fork: bytes
    """The fork with the step's chunks, pickled."""
    empty: bool
    """Nothing but no-data: written only to replace what was there."""
    chunk_clear: NDArray[np.float32]
    size: int
    saturated: int


@dataclass
class Wave:
    """A bounded number of scenes that enter the cube in one commit."""

    collection: str
    sensor: Sensor
    grid: Grid
    candidates: list[Candidate]
    rejected: list[Rejected]
    resampling: str
    client: Client | None
    progress: Progress

    ingested: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    set_aside: list[Rejected] = field(default_factory=list)
    tiles: int = 0
    bytes: int = 0
    saturated: int = 0

    def write(self, session: icechunk.Session) -> str | None:
        """Plan from what the session shows and write into it; the commit's message, None: nothing changed.

        Fills the result attributes afresh, since it is called again after losing a race.
        """
        self.ingested, self.already, self.set_aside = [], [], list(self.rejected)
        self.tiles = self.bytes = self.saturated = 0
        root = zarr.open_group(session.store, mode="r+")
        jobs, entries = self._plan(root)
        if jobs:
            results = self._run(session, jobs)
            good = self._judge(jobs, results)
            if good:
                group: Any = root[self.collection]
                self._settle(session, group, jobs, results, good, entries)
                chosen = [c for c in self.candidates if c.scene.id in good]
                records.write_table(group, [(c.scene, entries[c.scene.id]) for c in chosen])
                self.ingested = [c.scene.id for c in chosen]
            else:
                session.discard_changes()
        # opened anew: discarding also took back what the old handle has cached
        changed = self._update_quarantine(zarr.open_group(session.store, mode="r+"))
        if self.ingested:
            return f"ingest {len(self.ingested)} scene(s) into {self.collection}"
        return f"set aside {len(self.set_aside)} source(s) of {self.collection}" if changed else None

    def _plan(self, root: zarr.Group) -> tuple[list[_Job], dict[str, records.SceneEntry]]:
        """The jobs, scene by scene, and what the scene table will say; makes room for the steps."""
        exists = self.collection in root
        table = (
            records.read_table(require_collection(root, self.collection, self.sensor, self.grid)) if exists else {}
        )
        group: Any = root[self.collection] if exists else None
        stored = set(layout.tile_ids(group)) if exists else set()
        length: dict[str, int] = {}
        jobs: list[_Job] = []
        entries: dict[str, records.SceneEntry] = {}
        rows = len(table)
        for candidate in self.candidates:
            scene, checksum = candidate.scene, candidate.checksum
            old = table.get(scene.id)
            there: dict[str, int] = {}
            if old and old.checksum == checksum:
                todo = {tile.id: tile for tile in candidate.tiles if tile.id not in old.tiles}
                if not todo:
                    self.already.append(scene.id)
                    continue
                entry = records.SceneEntry(old.index, checksum, old.revision, old.tiles | todo.keys())
            elif old:
                todo = {tile.id: tile for tile in candidate.tiles}
                there = _steps_of(group, scene.id, old.tiles & stored)
                todo |= {tile_id: self.grid.tile(tile_id) for tile_id in there}
                entry = records.SceneEntry(old.index, checksum, old.revision + 1, frozenset(todo))
            else:
                todo = {tile.id: tile for tile in candidate.tiles}
                entry = records.SceneEntry(-1, checksum, 0, frozenset(todo))
            entries[scene.id] = entry
            for tile_id, tile in todo.items():
                if tile_id in there:
                    jobs.append(_Job(scene, tile, there[tile_id], replaces=True))
                    continue
                if tile_id not in length:
                    length[tile_id] = group[tile_id]["image"].shape[0] if tile_id in stored else 0
                jobs.append(_Job(scene, tile, length[tile_id], replaces=False))
                length[tile_id] += 1
        if jobs and not exists:
            group = layout.create_collection(root, self.collection, self.sensor, self.grid)
        for tile_id, steps in length.items():
            if tile_id not in stored:
                layout.create_pixels(group, self.grid.tile(tile_id), self.sensor)
            layout.extend_pixels(group[tile_id], steps)
        return jobs, entries
