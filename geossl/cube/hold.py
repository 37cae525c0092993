"""Hold scenes back: they stay in the cube, and nobody sees a clear pixel of them until they are released.

The flag lies in every quality pixel of the scene, so whatever reads the cube (chips, composites, statistics,
maps, other people's xarray) leaves the scene out by the rule by which it leaves out clouds. Each change is a
commit of its own with the next revision of the scene, so what was made from it is out of date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import icechunk
import numpy as np
import zarr

from geossl.cube import layout
from geossl.cube.arrays import column, subarray, subgroup
from geossl.cube.repository import Cube
from geossl.cube.scenes import read_table, write_revisions
from geossl.errors import StoreError
from geossl.imagery.clouds import Quality, is_clear

HELD_KEY = "geossl:held"
"""Attribute of a collection: scene id → why it is held, and the revision that is."""


def hold(cube: Cube, collection: str, scenes: Mapping[str, str]) -> list[str]:
    """Hold scenes (id → why) back; returns those that were not held already.

    Raises
    ------
    StoreError
        The collection has no such scene.
    """
    return _change(cube, collection, scenes, held=True)


def release(cube: Cube, collection: str, scenes: Iterable[str]) -> list[str]:
    """Let scenes be seen again; returns those that were held.

    Raises
    ------
    StoreError
        The collection has no such scene.
    """
    return _change(cube, collection, dict.fromkeys(scenes, ""), held=False)


def held_scenes(group: zarr.Group) -> dict[str, str]:
    """Scene id → why it is held. A scene that was processed again since is another one, and is not."""
    stored: Any = group.attrs.get(HELD_KEY, {})
    table = read_table(group) if stored else {}
    return {
        scene: entry["why"]
        for scene, entry in stored.items()
        if scene in table and table[scene].revision == entry["revision"]
    }


def _change(cube: Cube, collection: str, scenes: Mapping[str, str], *, held: bool) -> list[str]:
    done: list[str] = []

    def work(session: icechunk.Session) -> str | None:
        group = subgroup(zarr.open_group(session.store, mode="r+"), collection)
        table, now = read_table(group), held_scenes(group)
        if unknown := [scene for scene in scenes if scene not in table]:
            raise StoreError(f"{collection} has no scene {unknown[0]!r}", "`geossl scenes` lists them")
        done[:] = [scene for scene in scenes if (scene in now) != held]
        if not done:
            return None
        steps: dict[str, dict[int, layout.Step]] = defaultdict(dict)
        revisions = {scene: table[scene].revision + 1 for scene in done}
        tiles = set(layout.tile_ids(group))
        for scene in done:
            for tile_id in table[scene].tiles & tiles:
                ids = column(group, f"{tile_id}/scene_id").tolist()
                if scene in ids:
                    step = ids.index(scene)
                    steps[tile_id][step] = _mark(group, tile_id, step, revisions[scene], held)
        layout.write_records(group, steps)
        write_revisions(group, revisions)
        left = now | {scene: scenes[scene] for scene in done} if held else {s: now[s] for s in now.keys() - done}
        revisions = {scene: table[scene].revision for scene in now} | revisions
        group.attrs[HELD_KEY] = {scene: {"why": why, "revision": revisions[scene]} for scene, why in left.items()}
        return f"{'hold' if held else 'release'} {len(done)} scene(s) of {collection}"

    cube.transact(work)
    return done


def _mark(group: zarr.Group, tile_id: str, index: int, revision: int, held: bool) -> layout.Step:
    """Set or clear the flag in one step's pixels; the step's new record."""
    array = subarray(group, f"{tile_id}/quality")
    quality = np.asarray(array[index])
    quality = quality | np.uint8(Quality.HELD) if held else quality & ~np.uint8(Quality.HELD)
    array[index] = quality
    old = {name: column(group, f"{tile_id}/{name}")[index] for name in ("scene_id", "time", "source_checksum")}
    return layout.Step(
        str(old["scene_id"]),
        np.datetime64(int(old["time"]), "ns"),
        str(old["source_checksum"]),
        layout.chunk_fractions(is_clear(quality)),
        revision,
    )
