"""One wave of an ingest: plan, write, settle, record. :mod:`geossl.cube.ingest` says why so."""

from __future__ import annotations

import functools
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr

from geossl.bands import Sensor, require_same_radiometry
from geossl.cube import blank, layout
from geossl.cube.arrays import column, subgroup
from geossl.cube.columns import lengthen
from geossl.cube.gaps import close_gaps
from geossl.cube.groups import band_groups
from geossl.cube.overview import Overview, assemble, thinning
from geossl.cube.report import IngestReport
from geossl.cube.scenes import (
    SceneEntry,
    is_source_of,
    read_quarantine,
    read_table,
    write_quarantine,
    write_table,
)
from geossl.cube.steps import StepJob, StepsWritten, StepWritten, together, write_steps
from geossl.cube.work import run
from geossl.errors import GeosslError, SceneError, StoreError
from geossl.grid import Grid, Tile
from geossl.imagery.scene import Rejected, Scene
from geossl.progress import PIXELS, Progress

if TYPE_CHECKING:
    from distributed import Client

QUICKLOOK = 640
"""Pixels along the longer side of what a scene is shown by, about."""

Look = Callable[[Scene, Overview], None]
"""Called with each scene that is about to be committed, and its red, green and blue, thinned out."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scene whose files look sound."""

    scene: Scene
    checksum: str
    tiles: list[Tile]


@dataclass
class _Planned:
    """A scene with something left to do."""

    scene: Scene
    entry: SceneEntry
    """The scene table's row once this is committed."""
    extends: bool
    """Whether the scene was ingested from the same files before, on fewer tiles."""
    jobs: list[StepJob] = field(default_factory=list)
    parts: list[tuple[Sequence[StepJob], StepsWritten | GeosslError]] = field(default_factory=list)
    """The jobs in the portions that workers were given, and what became of each."""

    def written(self) -> Iterator[tuple[StepJob, StepWritten]]:
        for jobs, result in self.parts:
            if isinstance(result, StepsWritten):
                yield from ((job, step) for job, step in zip(jobs, result.steps, strict=True) if step is not None)

    def forks(self) -> Iterator[bytes]:
        return (result.fork for _, result in self.parts if isinstance(result, StepsWritten))

    def objection(self) -> GeosslError | None:
        """Why the scene cannot be ingested."""
        for _, result in self.parts:
            if isinstance(result, GeosslError):
                return result
        if not self.extends and all(result.empty for _, result in self.written()):
            return GeosslError(f"scene {self.scene.id} holds nothing but no-data on the project's tiles")
        return None


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
    look: Look | None = None

    report: IngestReport = field(default_factory=IngestReport)

    def write(self, session: icechunk.Session) -> str | None:
        """Plan from what the session shows and write into it.

        Returns the commit's message, None where nothing changed. Begins its report afresh, since
        it is called again with another session after losing a race.
        """
        self.report = IngestReport(set_aside=list(self.rejected))
        planned, steps = self._plan(zarr.open_group(session.store, mode="r+"))
        if planned:
            self._run(session, planned, steps)
        good = []
        for plan in planned:
            if objection := plan.objection():
                self.report.set_aside.append(Rejected(plan.scene.id, objection.what, objection.remedy))
            else:
                good.append(plan)
        if good:
            self._settle(session, good, steps)
            self._show(good)
        else:
            session.discard_changes()
        changed = self._update_quarantine(session)
        if good:
            return f"ingest {len(good)} scene(s) into {self.collection}"
        return f"set aside {len(self.report.set_aside)} source(s) of {self.collection}" if changed else None

    def _plan(self, root: zarr.Group) -> tuple[list[_Planned], dict[str, range]]:
        """Assign steps and make room for them.

        Returns the scenes with something to do, and the new steps of every tile that gets some.
        """
        group = require_collection(root, self.collection, self.sensor, self.grid)
        table = read_table(group)
        stored = set(layout.tile_ids(group))
        lengths: dict[str, int] = {}
        assigned: dict[str, int] = defaultdict(int)
        planned: list[_Planned] = []
        for candidate in self.candidates:
            scene, checksum = candidate.scene, candidate.checksum
            old = table.get(scene.id)
            tiles = {tile.id: tile for tile in candidate.tiles}
            own: dict[str, int] = {}
            revision, visited = 0, frozenset(tiles)
            extends = old is not None and old.checksum == checksum
            if old and extends:
                tiles = {tile_id: tile for tile_id, tile in tiles.items() if tile_id not in old.tiles}
                if not tiles:
                    self.report.already.append(scene.id)
                    continue
                revision, visited = old.revision, old.tiles | visited
            elif old:
                own = _steps_of(group, scene.id, old.tiles & stored)
                tiles |= {tile_id: self.grid.tile(tile_id) for tile_id in own}
                revision, visited = old.revision + 1, frozenset(tiles)
            plan = _Planned(scene, SceneEntry(old.index if old else None, checksum, revision, visited), extends)
            planned.append(plan)
            every = thinning(tiles.values(), QUICKLOOK) if self.look is not None else None
            for tile_id, tile in tiles.items():
                if tile_id in own:
                    plan.jobs.append(StepJob(scene, tile, own[tile_id], replaces=True, every=every))
                    continue
                if tile_id not in lengths:
                    lengths[tile_id] = layout.step_count(group, tile_id) if tile_id in stored else 0
                plan.jobs.append(
                    StepJob(scene, tile, lengths[tile_id] + assigned[tile_id], replaces=False, every=every)
                )
                assigned[tile_id] += 1
        steps = {tile_id: range(length, length + assigned[tile_id]) for tile_id, length in lengths.items()}
        new = {self.grid.tile(tile_id): steps[tile_id].stop for tile_id in steps if tile_id not in stored}
        blank.create_pixels(group, new, self.sensor)
        longer = {f"{group.path}/{tile_id}": steps[tile_id].stop for tile_id in steps if tile_id in stored}
        names = layout.pixel_names(self.sensor, self.grid, "scenes")
        lengthen(group.store, {f"{tile}/{name}": stop for tile, stop in longer.items() for name in names})
        return planned, steps

    def _run(self, session: icechunk.Session, planned: list[_Planned], steps: Mapping[str, range]) -> None:
        """Have all jobs done. Every portion of them unpickles its own copy of one fork."""
        portions = [(plan, jobs) for plan in planned for jobs in together(plan.jobs)]
        total = sum(len(plan.jobs) for plan in planned)
        write = functools.partial(
            write_steps,
            fork=pickle.dumps(session.fork()),
            collection=self.collection,
            sensor=self.sensor,
            resampling=self.resampling,
        )
        done = read = 0
        for position, result in run(write, [jobs for _, jobs in portions], self.client, killed=_killed):
            if not done:  # now, while workers go on: at the end they would wait for it
                new = [self.grid.tile(tile_id) for tile_id, of_tile in steps.items() if of_tile.start == 0]
                blank.create_records(self._group(session), new, self.sensor)
            plan, jobs = portions[position]
            plan.parts.append((jobs, result))
            done += len(jobs)
            if isinstance(result, StepsWritten):
                read += sum(step.size for step in result.steps if step is not None)
            self.progress("tiles", done, total)
            self.progress(PIXELS, read, None)
        for plan in planned:  # workers answer in any order
            plan.parts.sort(key=lambda part: (part[0][0].tile.iy, part[0][0].tile.ix))

    def _settle(self, session: icechunk.Session, good: list[_Planned], planned: dict[str, range]) -> None:
        """Merge the forks of good scenes, close gaps, and write what is known of steps and scenes."""
        steps: dict[str, dict[int, layout.Step]] = defaultdict(dict)
        used: dict[str, list[int]] = defaultdict(list)
        for plan in good:
            for fork in plan.forks():
                session.merge(pickle.loads(fork))
            for job, result in plan.written():
                self.report.tiles += 1
                self.report.bytes += result.size
                self.report.saturated += result.saturated
                index = job.step
                if not job.replaces:
                    used[job.tile.id].append(job.step)
                    index = planned[job.tile.id].start + len(used[job.tile.id]) - 1
                time = np.datetime64(plan.scene.time.replace(tzinfo=None), "ns")
                steps[job.tile.id][index] = layout.Step(
                    plan.scene.id, time, plan.entry.checksum, result.chunk_clear, plan.entry.revision
                )
        group = self._group(session)
        for tile_id, of_tile in planned.items():
            if of_tile.start == 0 and not used[tile_id]:
                del group[tile_id]
            elif used[tile_id] != list(of_tile):
                close_gaps(session, f"{self.collection}/{tile_id}", of_tile.start, used[tile_id])
        layout.write_records(group, steps)
        write_table(group, [(plan.scene, plan.entry) for plan in good])
        self.report.ingested = [plan.scene.id for plan in good]

    def _group(self, session: icechunk.Session) -> zarr.Group:
        return subgroup(zarr.open_group(session.store, mode="r+"), self.collection)

    def _show(self, good: list[_Planned]) -> None:
        """Hand out what each scene looks like; one that gained tiles only would be shown in part."""
        if self.look is None:
            return
        for plan in good:
            parts = {job.tile: result.thin for job, result in plan.written() if result.thin is not None}
            if parts and not plan.extends:
                every = next(job.every for job in plan.jobs if job.every is not None)
                self.look(plan.scene, assemble(parts, self.sensor, every))

    def _update_quarantine(self, session: icechunk.Session) -> bool:
        """Write what was set aside, take out what is well now; whether that changed anything."""
        root = zarr.open_group(session.store, mode="r+")
        before = read_quarantine(root, self.collection)
        well = {*self.report.ingested, *self.report.already}
        scenes = [candidate.scene for candidate in self.candidates if candidate.scene.id in well]
        after = {
            source: entry
            for source, entry in before.items()
            if not any(is_source_of(source, scene) for scene in scenes)
        }
        after |= {item.source: (item.reason, item.remedy) for item in self.report.set_aside}
        if after != before:
            write_quarantine(root, self.collection, after)
        return after != before


def require_collection(root: zarr.Group, name: str, sensor: Sensor, grid: Grid) -> zarr.Group:
    """The collection of scenes of that name, created where there is none.

    Raises
    ------
    StoreError, RadiometryError
        It is there with another grid, another sensor, or holds composites.
    """
    if name not in root:
        return layout.create_collection(root, name, sensor, grid)
    group = subgroup(root, name)
    attributes: Any = group.attrs.asdict()
    if attributes["kind"] != "scenes":
        raise StoreError(f"collection {name!r} holds composites, not scenes", "choose another name")
    own = Sensor.from_dict(attributes["sensor"])
    require_same_radiometry(sensor, own, us="the imagery", them=f"the collection {name!r}")
    if (there := Grid.from_dict(attributes["grid"])) != grid:
        raise StoreError(f"collection {name!r} lies on {there}, the imagery would lie on {grid}", "use another cube")
    if band_groups(own, grid) != band_groups(sensor, grid):
        raise StoreError(
            f"collection {name!r} keeps its bands by the pixel sizes {', '.join(f'{b.gsd:g}' for b in own.bands)} m,"
            f" the sensor has {', '.join(f'{b.gsd:g}' for b in sensor.bands)} m now",
            "change the bands' gsd back, or use another cube",
        )
    return group


def _killed(jobs: Sequence[StepJob]) -> SceneError:
    return scene_kills(jobs[0].scene, f"tile {', '.join(job.tile.id for job in jobs)}")


def scene_kills(scene: Scene, where: str) -> SceneError:
    """The reason to set a scene aside whose reading ends every process that tries."""
    return SceneError(
        f"scene {scene.id}: whichever process read {where} was killed: its decoder crashed, or memory ran out",
        "try its files with gdalinfo -checksum; give workers more memory (cluster: memory_limit, or fewer workers)",
    )


def _steps_of(group: zarr.Group, scene_id: str, tile_ids: frozenset[str]) -> dict[str, int]:
    """Tile id → the scene's step there."""
    found = {}
    for tile_id in tile_ids:
        ids = column(group, f"{tile_id}/scene_id").tolist()
        if scene_id in ids:
            found[tile_id] = ids.index(scene_id)
    return found
