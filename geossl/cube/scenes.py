"""What a collection knows of its scenes: which were ingested where, and which were set aside and why."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import zarr

from geossl.cube import layout
from geossl.cube.arrays import column
from geossl.cube.columns import read_columns, write_rows
from geossl.cube.repository import Cube, View
from geossl.imagery.scene import Rejected, Scene

DAMAGED = "damaged"
"""Stands in the table instead of a scene's checksum: whatever its files are, they are to be read again."""


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """One row of a collection's scene table."""

    index: int | None
    """Which row, in order of arrival; None before it has one."""
    checksum: str
    revision: int
    """How often the scene was processed again."""
    tiles: frozenset[str]
    """Ids of all tiles it was read on, those without data among them."""


def read_table(collection: zarr.Group) -> dict[str, SceneEntry]:
    """Scene id → its row."""
    columns = [
        column(collection, f"{layout.SCENES}/{name}").tolist() for name in ("id", "checksum", "revision", "tiles")
    ]
    return {
        scene_id: SceneEntry(index, checksum, revision, frozenset(tiles.split()))
        for index, (scene_id, checksum, revision, tiles) in enumerate(zip(*columns, strict=True))
    }


def count_steps(collection: zarr.Group, tile_ids: Iterable[str]) -> Counter[str]:
    """Scene id → on how many of these tiles it has a step; twice on one counts twice."""
    paths = [f"{collection.path}/{tile_id}/scene_id" for tile_id in tile_ids]
    return Counter(itertools.chain.from_iterable(ids.tolist() for ids in read_columns(collection.store, paths)))


def write_table(collection: zarr.Group, scenes: Sequence[tuple[Scene, SceneEntry]]) -> None:
    """Add or replace rows, each with the scene's STAC Item, after the steps of the scenes were recorded."""
    following = column(collection, f"{layout.SCENES}/id").size
    tiles = frozenset().union(*(entry.tiles for _, entry in scenes))
    steps = count_steps(collection, tiles.intersection(layout.tile_ids(collection)))
    rows = {}
    for scene, entry in scenes:
        index = entry.index
        if index is None:
            index, following = following, following + 1
        rows[index] = {
            "id": scene.id,
            "checksum": entry.checksum,
            "revision": entry.revision,
            "tiles": " ".join(sorted(entry.tiles)),
            "steps": steps[scene.id],
            "item": json.dumps(scene.to_item().to_dict(include_self_link=False)),
        }
    write_rows(collection.store, {f"{collection.path}/{layout.SCENES}": rows})


def write_revisions(collection: zarr.Group, revisions: Mapping[str, int]) -> None:
    """Note in the table that scenes (by id) are there in another revision."""
    table = read_table(collection)
    rows = {index: {"revision": revisions[scene]} for scene in revisions if (index := table[scene].index) is not None}
    write_rows(collection.store, {f"{collection.path}/{layout.SCENES}": rows})


def quarantined(view: View, collection: str) -> list[Rejected]:
    """What was set aside when scenes of this collection were ingested, and has not been ingested since."""
    found = read_quarantine(view.root, collection)
    return [Rejected(source, reason, remedy) for source, (reason, remedy) in sorted(found.items())]


def read_quarantine(root: zarr.Group, collection: str) -> dict[str, tuple[str, str]]:
    """Source → reason and remedy."""
    stored: Any = root.attrs.get(layout.QUARANTINE_KEY, {})
    return {source: (reason, remedy) for source, (reason, remedy) in stored.get(collection, {}).items()}


def write_quarantine(root: zarr.Group, collection: str, entries: Mapping[str, tuple[str, str]]) -> None:
    """Replace the quarantine of a collection."""
    stored: Any = root.attrs.get(layout.QUARANTINE_KEY, {})
    own = {source: list(entries[source]) for source in sorted(entries)}
    root.attrs[layout.QUARANTINE_KEY] = {**stored, collection: own}


def forget_quarantine(cube: Cube, collection: str, most: int) -> int:
    """Drop what was set aside and is a file of this machine that is gone, and whatever is more than so many.

    Returns how many records went. What is dropped and is there after all, ingest meets again and sets aside anew.
    """
    dropped = 0

    def work(session: icechunk.Session) -> str | None:
        nonlocal dropped
        root = zarr.open_group(session.store, mode="r+")
        before = read_quarantine(root, collection)
        there = [source for source in before if not _is_gone(source)]
        after = {source: before[source] for source in there[:most]}
        dropped = len(before) - len(after)
        if not dropped:
            return None
        write_quarantine(root, collection, after)
        return f"forget {dropped} source(s) that were set aside from {collection}"

    cube.transact(work)
    return dropped


def _is_gone(source: str) -> bool:
    """Whether it was a file of this machine, or in one: then a name follows the path after a colon."""
    return source.startswith("/") and not any(Path(path).exists() for path in (source, source.partition(": ")[0]))


def is_source_of(source: str, scene: Scene) -> bool:
    """Whether a set-aside source (scene id, file or folder) is where this scene comes from."""
    folder = source.rstrip("/") + "/"
    assets = [*scene.bands.values(), *scene.masks.values()]
    return source == scene.id or any(asset.href == source or asset.href.startswith(folder) for asset in assets)
