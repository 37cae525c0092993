"""Is every byte of a snapshot as it was written, and does what it says fit together?

Chunks are fetched and their CRC-32C compared, many at a time; nothing is decoded. Then the records of every
tile are compared with its arrays and with the table of scenes, so that a lost or doubled step is found too.
:mod:`geossl.cube.repair` lets the next ingest read again what is damaged.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from icechunk import IcechunkError

from geossl.cube import layout
from geossl.cube.arrays import column, subgroup
from geossl.cube.chunks import get, reason, verified
from geossl.cube.columns import read_columns, read_shapes
from geossl.cube.repository import Cube, View
from geossl.cube.scenes import DAMAGED, read_table
from geossl.errors import StoreError
from geossl.progress import Progress, silent

IN_FLIGHT = 16
"""Chunks that are in memory at the same time; one has a megabyte or two."""

_SCENE_AGAIN = "`geossl cube check --repair`, then `geossl ingest` reads the scene again"
_TILE_AGAIN = "`geossl cube check --repair`, then `geossl ingest` reads the tile again from all of its scenes"
_COMPOSITE_AGAIN = "`geossl cube check --repair`, then `geossl stats` makes the tile's composites again"
_LABELS_AGAIN = "`geossl cube check --repair`, then `geossl ingest` puts the labels in again"
_VERDICTS_AGAIN = "`geossl cube check --repair`, then `geossl alerts review` reads the judged files again"
_EARLIER = (
    "`geossl cube check --repair` goes back to the newest sound snapshot; `geossl ingest` then goes on from there"
)

_SEAL_AGAIN = "`geossl cube check --repair` makes it anew, where all that it vouches for is sound"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it should be."""

    problem: str
    remedy: str
    collection: str | None = None
    """Collection, or ``labels/<name>``."""
    tile: str | None = None
    array: str | None = None
    step: int | None = None
    scene: str | None = None
    window: tuple[int, int] | None = None
    """Row and column of the chunk on the tile, of pixels."""

    @property
    def drops_tile(self) -> bool:
        """Whether only reading the whole tile again helps."""
        return self.remedy == _TILE_AGAIN

    @property
    def of_seal(self) -> bool:
        """Whether it befell only the checksums of other files."""
        return self.remedy == _SEAL_AGAIN

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def where(self) -> str:
        """The place, in short."""
        path = "/".join(part for part in (self.collection, self.tile, self.array) if part)
        step = f" step {self.step}" if self.step is not None and self.scene is None else ""
        window = f" window {self.window[0]},{self.window[1]}" if self.window else ""
        return f"{path}{step}{window}"


@dataclass
class CheckReport:
    """What a check looked at and found."""

    snapshot: str
    chunks: int = 0
    bytes: int = 0
    scenes: int = 0
    tiles: int = 0
    damage: list[Damage] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "damage": [item.to_dict() for item in self.damage]}


def check(cube: Cube, snapshot: str | None = None, progress: Progress = silent) -> CheckReport:
    """Look at every chunk of a snapshot (id or tag), by default the newest.

    Raises
    ------
    StoreError
        There is no such snapshot.
    """
    report = CheckReport(cube.resolve(snapshot))
    files = cube.damaged_files(report.snapshot)
    report.damage += [
        Damage(f"the file {name} is not what was written", _SEAL_AGAIN if name.startswith("seals/") else _EARLIER)
        for name in files
    ]
    if not all(item.of_seal for item in report.damage):
        # which chunk lies where is not known any more: whatever else one would say is a guess
        return report
    try:
        view = View(report.snapshot, cube.repository.readonly_session(snapshot_id=report.snapshot))
        layers = [*view.collections(), *(f"{layout.LABELS}/{name}" for name in view.label_names())]
        tiles = {layer: layout.tile_ids(subgroup(view.root, layer)) for layer in layers}
    except IcechunkError as error:
        raise StoreError(
            f"snapshot {report.snapshot} of the cube at {cube.uri} cannot be read: {reason(error)}",
            "name one that `geossl cube log` lists",
        ) from None
    with ThreadPoolExecutor(1, "geossl-check") as thread:  # the caller may have an event loop (a notebook has one)
        thread.submit(asyncio.run, _Chunks(view, report, progress).check(list(_arrays(view, tiles)))).result()
    report.damage[:] = _name_scenes(view, report.damage)
    unreadable = {(item.collection, item.tile) for item in report.damage if not layout.is_pixels(item.array or "")}
    for layer, ids in tiles.items():
        report.tiles += len(ids)
        if layer.startswith(layout.LABELS) or (layer, layout.SCENES) in unreadable:
            continue
        sound = [tile for tile in ids if (layer, tile) not in unreadable]
        report.damage += _contradictions(view, layer, sound, complete=len(sound) == len(ids))
    report.scenes = sum(layout.scene_counts(view.root).values())
    return report


def _arrays(view: View, tiles: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """(collection, tile or ``scenes``, array) of all arrays that a cube should have."""
    columns = layout.scene_columns(layout.format_version(view.root))
    names: Sequence[str]
    for layer, ids in tiles.items():
        if layer.startswith(layout.LABELS):
            more: Any = view.root[layer].attrs.get("arrays", ())
            names = [*layout.LABEL_ARRAYS, *more]
        else:
            collection = view.collection(layer)
            names = [
                *layout.pixel_names(collection.sensor, collection.grid, collection.kind),
                *layout.RECORDS,
                *layout.place_names(collection.sensor, collection.grid),
            ]
            if collection.kind == "scenes":
                yield from ((layer, layout.SCENES, name) for name in columns)
        yield from itertools.product([layer], ids, names)


class _Chunks:
    """Fetches the chunks of arrays and compares their checksums: one lists them, several fetch."""

    def __init__(self, view: View, report: CheckReport, progress: Progress) -> None:
        self.view = view
        self.store = view.session.store
        self.report = report
        self.progress = progress

    async def check(self, arrays: Sequence[tuple[str, str, str]]) -> None:
        waiting: asyncio.Queue[tuple[tuple[str, str, str], tuple[int, ...]]] = asyncio.Queue(IN_FLIGHT)
        workers = [asyncio.create_task(self._fetch(waiting)) for _ in range(IN_FLIGHT)]
        for done, array in enumerate(arrays, 1):
            path = "/".join(array)
            try:
                if await get(self.store, f"{path}/zarr.json") is None:
                    raise StoreError(f"array {path} is gone")
                async for chunk in self.view.session.chunk_coordinates(f"/{path}"):
                    await waiting.put((array, chunk))
            except (StoreError, IcechunkError) as error:
                self._found(array, None, error)
            self.progress("arrays", done, len(arrays))
        await waiting.join()
        for worker in workers:
            worker.cancel()

    async def _fetch(self, waiting: asyncio.Queue[tuple[tuple[str, str, str], tuple[int, ...]]]) -> None:
        while True:
            array, chunk = await waiting.get()
            key = "/".join([*array, "c", *map(str, chunk)])
            try:
                data = await get(self.store, key)
                if data is None:
                    raise StoreError(f"chunk {key} is gone")
                await asyncio.to_thread(verified, key, data)
                self.report.bytes += len(data)
            except StoreError as error:
                self._found(array, chunk, error)
            self.report.chunks += 1
            waiting.task_done()

    def _found(self, array: tuple[str, str, str], chunk: tuple[int, ...] | None, error: Exception) -> None:
        layer, tile, name = array
        problem = error.what if isinstance(error, StoreError) else reason(error)
        pixels = layout.is_pixels(name) and chunk is not None
        remedy = _TILE_AGAIN
        if layer.startswith(layout.LABELS):
            remedy = _VERDICTS_AGAIN if "verdicts" in self.view.root[layer].attrs else _LABELS_AGAIN
        elif tile == layout.SCENES:
            remedy = _EARLIER
        elif self.view.collection(layer).kind != "scenes":
            remedy = _COMPOSITE_AGAIN
        elif pixels:
            remedy = _SCENE_AGAIN
        step = chunk[0] if chunk is not None and pixels else None
        window = (chunk[-2], chunk[-1]) if chunk is not None and (pixels or name == "label") else None
        self.report.damage.append(Damage(problem, remedy, layer, tile, name, step, None, window))


def _name_scenes(view: View, damage: list[Damage]) -> list[Damage]:
    """The same, with the scene whose step it is where the tile's records can be read."""
    named: dict[tuple[str | None, str | None], list[str]] = {}
    for place in {(item.collection, item.tile) for item in damage if item.step is not None}:
        with contextlib.suppress(StoreError):
            named[place] = read_columns(view.session.store, [f"{place[0]}/{place[1]}/scene_id"])[0].tolist()
    found = []
    for item in damage:
        ids = named.get((item.collection, item.tile), [])
        if item.step is not None and item.step < len(ids):
            item = dataclasses.replace(item, scene=ids[item.step])
        elif item.step is not None and item.remedy == _SCENE_AGAIN:
            item = dataclasses.replace(item, remedy=_TILE_AGAIN)
        found.append(item)
    return found


def _contradictions(view: View, name: str, tiles: Sequence[str], *, complete: bool) -> Iterator[Damage]:
    """Where the records of a collection's tiles do not fit its arrays or its table of scenes.

    ``complete``: these are all tiles, so that a scene's steps can be counted.
    """
    store, collection = view.session.store, view.collection(name)
    kind = collection.kind
    remedy = _TILE_AGAIN if kind == "scenes" else _COMPOSITE_AGAIN
    steps: Counter[str] = Counter()
    table = read_table(subgroup(view.root, name)) if kind == "scenes" else {}
    names = [*layout.pixel_names(collection.sensor, collection.grid, kind), *layout.RECORDS]
    for some in itertools.batched(tiles, 256):
        shapes = iter(read_shapes(store, [f"{name}/{tile}/{array}" for tile in some for array in names]))
        records = ("scene_id", "revision", "source_checksum")
        columns = iter(read_columns(store, [f"{name}/{tile}/{array}" for tile in some for array in records]))
        for tile in some:
            lengths = {array: next(shapes)[0] for array in names}
            ids, revisions, checksums = (next(columns).tolist() for _ in records)
            steps.update(ids)
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{array} {length}" for array, length in lengths.items())
                yield Damage(f"its arrays differ in their number of steps: {told}", remedy, name, tile)
                continue
            for step, scene in enumerate(ids):
                problem = None
                if ids.index(scene) != step:
                    problem = f"scene {scene} has more than one step here"
                elif kind != "scenes":
                    continue
                elif (entry := table.get(scene)) is None or tile not in entry.tiles:
                    problem = f"the table of scenes knows nothing of scene {scene} here"
                elif entry.revision != revisions[step] or entry.checksum not in (checksums[step], DAMAGED):
                    problem = f"this step of scene {scene} is of another revision than the table of scenes says"
                if problem is not None:
                    yield Damage(problem, remedy, name, tile, step=step, scene=scene)
    if complete and kind == "scenes" and layout.format_version(view.root) > 1:
        expected = column(subgroup(view.root, name), f"{layout.SCENES}/steps").tolist()
        for scene, number in zip(table, expected, strict=True):
            if steps[scene] != number:
                problem = f"scene {scene} has {steps[scene]} step(s), {number} were recorded"
                yield Damage(problem, _SCENE_AGAIN, name, scene=scene)
