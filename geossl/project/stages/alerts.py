"""`geossl alerts`: every new scene raises, confirms or withdraws alerts of cleared forest."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geossl.cube.collection import Collection
from geossl.cube.repository import View
from geossl.cube.vectors import read_vectors
from geossl.cube.verdicts import CONFIRMED, add_verdicts, read_verdicts, said_of, verdict_key
from geossl.downstream.monitor import FOREST, SCALES, LookTask, evergreen, fit_look
from geossl.downstream.task import load_task
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.legend import NO_LABEL, Legend
from geossl.maps.alerts.looks import LookFolder, SceneLook, find_looks, score_looks
from geossl.maps.alerts.publish import AlertRelease, publish_alerts, published
from geossl.maps.alerts.review import read_review
from geossl.maps.alerts.rule import EPOCH, NEVER, Rule, to_day
from geossl.maps.alerts.settings import AlertSettings, ForestSettings
from geossl.maps.alerts.tiles import AlertTiles, Judged, update_tiles
from geossl.maps.predict import predict_map
from geossl.maps.stac import alerts_of
from geossl.maps.tiles import TileFolder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import LandcoverTask
from geossl.project.state import content, fingerprint

HISTORY_DAYS = 365
"""Scenes of so many days before monitoring are looked at too: what is an alert then was no forest."""

_IMAGES = 4
"""Images before monitoring by which forest is found without labels."""


def run(project: Project, progress: Progress) -> StageResult:
    """Bring the alerts of every monitor up to date with the scenes in the cube."""
    lines: list[str] = []
    for name in project.settings.alerts:
        lines += _update(project, name, progress)
    return StageResult("alerts", lines, skipped=not lines)


def folder_of(project: Project, name: str) -> Path:
    """Where a monitor keeps what it knows."""
    return alerts_of(project.maps) / name


@dataclass(frozen=True)
class Monitor:
    """One monitor, opened: its forest, and the scenes it follows."""

    name: str
    settings: AlertSettings
    folder: Path
    scenes: Collection
    legend: Legend
    forest: tuple[str, ...]
    """Names of the classes that are forest."""
    cover_key: str
    tiles: list[str] = field(default_factory=list)
    """Those with forest, row by row."""
    looks: list[SceneLook] = field(default_factory=list)

    @property
    def rule(self) -> Rule:
        return Rule(to_day(self.settings.since), self.settings.expire_days)

    @property
    def alert_tiles(self) -> AlertTiles:
        return AlertTiles(self.folder / "tiles")

    @property
    def look_folder(self) -> LookFolder:
        return LookFolder(self.folder / "looks")

    def cover(self, tile_id: str) -> NDArray[np.uint8]:
        """(H, W) class codes before monitoring; NO_LABEL where nothing is known."""
        return TileFolder(self.folder / "cover").read(tile_id)[0]

    def is_forest(self, tile_id: str) -> NDArray[np.bool_]:
        """(H, W) where there was forest."""
        codes = [land.code for land in self.legend if land.name in self.forest]
        return np.isin(self.cover(tile_id), codes)


def open_monitor(project: Project, name: str, progress: Progress) -> Monitor:
    """The monitor of that name; maps its forest where that is not done yet."""
    settings = project.settings.alerts[name]
    folder = folder_of(project, name)
    images = project.task_images()
    scenes = project.scenes()
    before = _before(project, images, settings.since)
    if not before:
        raise StoreError(
            f"alerts {name!r}: the cube has no clear image before {settings.since}",
            "choose a later `since`, or ingest older scenes: the forest before monitoring is found in them",
        )
    if settings.forest is not None:
        legend, forest, key = _mapped(project, settings.forest, images, before, folder / "cover", progress)
    else:
        legend, forest, key = _evergreen(images, before, folder / "cover", progress)
    monitor = Monitor(name, settings, folder, scenes, legend, forest, key)
    wanted = [tile_id for tile_id in scenes.tile_ids if tile_id in before]
    monitor.tiles.extend(tile_id for tile_id in wanted if monitor.is_forest(tile_id).any())
    if not monitor.tiles:
        raise LabelError(f"alerts {name!r}: no forest was found before {settings.since}")
    about = fingerprint(cover=key, forest=list(forest), scales=SCALES)
    begin = to_day(settings.since) - HISTORY_DAYS
    monitor.looks.extend(find_looks(scenes, monitor.tiles, begin, about))
    return monitor


def _before(project: Project, images: Collection, since: dt.date) -> dict[str, list[int]]:
    """The clear enough steps of each tile that end before a day, the newest first."""
    found: dict[str, list[int]] = {}
    composite = project.settings.composite
    for tile_id in images.tile_ids:
        clear, ends = images.clear_fraction(tile_id), images.times(tile_id).astype("M8[D]")
        if composite is not None:  # of composites, that is the middle; their ids name the first day
            starts = np.array([scene.partition("/")[0] for scene in images.scene_ids(tile_id)], "M8[M]")
            ends = (starts + np.timedelta64(composite.months, "M")).astype("M8[D]") - np.timedelta64(1, "D")
        usable = np.flatnonzero((ends < np.datetime64(since)) & (clear > 0))
        usable = usable[clear[usable] >= 0.5 * clear[usable].max(initial=0)]
        if usable.size:
            found[tile_id] = usable[np.argsort(ends[usable], kind="stable")[::-1]].tolist()
    return found


def _mapped(
    project: Project,
    settings: ForestSettings,
    images: Collection,
    before: Mapping[str, Sequence[int]],
    folder: Path,
    progress: Progress,
) -> tuple[Legend, tuple[str, ...], str]:
    """Map the cover by a task's champion."""
    name, forest = settings.task, settings.classes
    if not isinstance(project.settings.tasks.get(name), LandcoverTask):
        raise SettingsError(
            f"alerts: {name!r} is no land-cover task of this project", "name one, or leave `forest` out"
        )
    champion = project.registry.find(name, "champion")
    if champion is None:
        raise StoreError(f"task {name!r} has no model yet", "run `geossl finetune` first, or leave `forest` out")
    task = load_task(project.store / champion.folder)
    if missing := [each for each in forest if each not in task.legend.names]:
        raise SettingsError(
            f"alerts: task {name!r} has no class {missing[0]!r}", f"it has {', '.join(task.legend.names)}"
        )
    steps = {tile_id: (of_tile[0],) for tile_id, of_tile in before.items()}
    report = predict_map(task, images, steps, folder, settings=project.settings.map, progress=progress)
    return (
        task.legend,
        forest,
        fingerprint(records=[[r.tile, r.task, [s.checksum for s in r.sources]] for r in report.records]),
    )


def _evergreen(
    images: Collection, before: Mapping[str, Sequence[int]], folder: Path, progress: Progress
) -> tuple[Legend, tuple[str, ...], str]:
    """Find forest without labels."""
    steps = {tile_id: list(of_tile[:_IMAGES]) for tile_id, of_tile in before.items()}
    made = {tile_id: [images.checksums(tile_id)[step] for step in of_tile] for tile_id, of_tile in steps.items()}
    key = fingerprint(evergreen=made, images=images.name)
    store = TileFolder(folder)
    if store.note("cover") != {"key": key}:
        for done, (tile_id, codes) in enumerate(evergreen(images, steps)):
            progress("forest", done, len(steps))
            percent = np.where(codes == NO_LABEL, NO_LABEL, 100).astype(np.uint8)
            store.write(images.tile(tile_id), np.stack([codes, percent]))
        store.save_note("cover", {"key": key})
        progress("forest", len(steps), len(steps))
    return FOREST, FOREST.names[:1], key


def _fit(project: Project, monitor: Monitor) -> Callable[[Mapping[str, int]], LookTask | None]:
    """Learns what forest looks like in a scene; where that shows too little, by the image before monitoring."""
    images, statistics = project.task_images(), monitor.scenes.statistics
    if statistics is None:
        raise StoreError(f"{monitor.scenes.name} has no statistics yet", "run `geossl stats` first")

    def learn(collection: Collection, steps: Mapping[str, int]) -> LookTask | None:
        return fit_look(collection, steps, monitor.cover, monitor.legend, monitor.forest, statistics)

    @functools.cache
    def usual() -> LookTask | None:
        return learn(
            images,
            {tile_id: of_tile[0] for tile_id, of_tile in _before(project, images, monitor.settings.since).items()},
        )

    return lambda steps: learn(monitor.scenes, steps) or usual()


def _update(project: Project, name: str, progress: Progress) -> list[str]:
    settings = project.settings.alerts[name]
    images, scenes = project.task_images(), project.scenes()
    champion = None if settings.forest is None else project.registry.find(settings.forest.task, "champion")
    view = project.cube().view()
    layer = verdict_layer(name)
    said = said_of(view, layer)
    key = fingerprint(
        settings=settings,
        images=content(images),
        scenes=content(scenes),
        champion=None if champion is None else champion.folder,
        map=project.settings.map,
        verdicts=verdict_key(view, layer),
    )
    done = project.state.fresh(f"alerts.{name}", key)
    folder = folder_of(project, name)
    if done is not None and (folder / str(done.result["release"])).exists():
        return []
    with project.state.recording(f"alerts.{name}", key) as result:
        monitor = open_monitor(project, name, progress)
        scored, mute = score_looks(
            scenes, monitor.looks, monitor.look_folder, _fit(project, monitor), monitor.is_forest, progress
        )
        monitor.look_folder.forget(monitor.looks)
        looks = [look for look in monitor.looks if look.scene not in mute]
        again = update_tiles(
            monitor.alert_tiles,
            scenes.grid,
            monitor.tiles,
            monitor.is_forest,
            looks,
            monitor.look_folder,
            monitor.rule,
            forest_key=monitor.cover_key,
            judged=functools.partial(_judged, view, layer),
            progress=progress,
        )
        release = _publish(project, monitor, looks, said)
        # scenes elsewhere make another snapshot, and no other alerts
        if (tag := f"alerts-{name}-{release.id}") not in project.cube().tags():
            project.cube().tag(tag, scenes.snapshot)
        result.update(release=str(release.folder.relative_to(folder)), scored=scored, tiles=again)
    return list(_lines(project, release, scored, mute, len(again), len(monitor.tiles)))


def _judged(view: View, layer: str, tile_id: str) -> Judged | None:
    """What people said of a tile."""
    found = read_verdicts(view, layer, tile_id)
    if found is None:
        return None
    until = np.where(found.label == NO_LABEL, np.int16(NEVER), found.until)
    return Judged(found.label == CONFIRMED, found.first, until, found.key)


def review(project: Project, file: Path, progress: Progress) -> StageResult:
    """Read the verdicts of a file of alerts into the cube; the next update respects them."""
    name = _monitor_of(project, file)
    monitor = open_monitor(project, name, progress)
    found = read_review(file, monitor.scenes.grid, monitor.tiles, monitor.alert_tiles, published(monitor.folder))
    cube = project.cube()
    before = cube.snapshot()
    after = add_verdicts(
        cube,
        verdict_layer(name),
        monitor.scenes.grid,
        found.tiles,
        found.said,
        epoch=EPOCH,
        dates=(monitor.settings.since, found.until),
        source=file.name,
    )
    if before == after:
        return StageResult("alerts review", skipped=True)
    return StageResult(
        "alerts review",
        [
            f"{name}: {found.count('confirmed')} alerts confirmed, {found.count('rejected')} rejected,"
            f" kept as labels {verdict_layer(name)!r} of snapshot {after}",
            "the next `geossl alerts` respects them",
        ],
    )


def verdict_layer(name: str) -> str:
    """Name of the label layer with the verdicts on a monitor's alerts."""
    return f"{name}-verdicts"


def _monitor_of(project: Project, file: Path) -> str:
    """The monitor whose alerts a file holds: the only one, or the one that published its release."""
    names = list(project.settings.alerts)
    if not names:
        raise SettingsError("the project file names no alerts", "add a monitor under `alerts`")
    if len(names) == 1:
        return names[0]
    releases = {name: published(folder_of(project, name)).releases for name in names}
    rows = read_vectors([file], None, "EPSG:4326").frame
    of_file = set(rows["release"].dropna()) if "release" in rows.columns else set()
    found = [name for name in names if of_file & releases[name].keys()]
    if len(found) != 1:
        raise LabelError(f"{file} holds alerts of none of the monitors {', '.join(names)}, or of several")
    return found[0]


def _publish(
    project: Project, monitor: Monitor, looks: Sequence[SceneLook], said: Mapping[str, tuple[str, str, str]]
) -> AlertRelease:
    return publish_alerts(
        monitor.alert_tiles,
        monitor.scenes.grid,
        monitor.tiles,
        monitor.folder,
        monitor.name,
        until=max((look.day for look in looks), default=monitor.rule.since),
        minimum_ha=monitor.settings.minimum_ha,
        keep=project.settings.map.keep,
        root=project.maps,
        since=monitor.rule.since,
        verdicts=said,
        about={
            "snapshot": monitor.scenes.snapshot,
            "forest": list(monitor.forest),
            "cover": monitor.cover_key,
        },
    )


def _lines(
    project: Project, release: AlertRelease, scored: Sequence[str], mute: Sequence[str], again: int, tiles: int
) -> list[str]:
    lines = [
        f"{release.name}: {len(scored)} scenes looked at, {again} of {tiles} tiles updated",
        f"{release.patches} alerts, {release.hectares:.1f} ha, of which {release.confirmed:.1f} ha are confirmed: "
        f"{release.polygons.relative_to(project.root)}",
    ]
    if mute:
        lines.append(f"{len(mute)} scenes show too little ground to tell forest from the rest: {', '.join(mute[:3])}")
    if release.edited is not None:
        file = release.edited.relative_to(project.root)
        lines.append(f"{file} holds verdicts that were not read yet: geossl alerts review {file}")
    return lines
