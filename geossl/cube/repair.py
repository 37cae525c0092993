"""Let the next ingest read again what a check found damaged.

Nothing is mended here: pixels come from the scenes. What cannot be told apart any more is dropped, and what
depends on it is entered as not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import icechunk
import zarr

from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.check import CheckReport, Damage
from geossl.cube.columns import write_rows
from geossl.cube.repository import Cube
from geossl.cube.scenes import DAMAGED, count_steps, read_table
from geossl.errors import StoreError


def repair(cube: Cube, report: CheckReport) -> list[str]:
    """Enter the damage of a check of the newest snapshot; says what was done.

    * a scene with damaged pixels will be read again, in place;
    * a tile whose records are damaged is dropped, and will be read again from all of its scenes;
    * damaged labels and composites are dropped, and will be made again;
    * a damaged seal is made anew;
    * where the table of scenes or a file of Icechunk's own is damaged, the cube goes back to the newest
      snapshot in which they are sound.

    Raises
    ------
    StoreError
        The cube has moved on since the check, or no snapshot is sound.
    """
    if cube.snapshot() != report.snapshot:
        raise StoreError(f"{report.snapshot} is not the newest snapshot of {cube.uri}", "check that one")
    if not report.damage:
        return []
    damaged = [item for item in report.damage if not item.of_seal]
    if any(item.collection is None or item.tile == layout.SCENES for item in damaged):
        return [_go_back(cube)]
    resealed = [f"sealed snapshot {report.snapshot} anew"] if len(damaged) < len(report.damage) else []
    if resealed:
        cube.seal_again(report.snapshot)
    if not damaged:
        return resealed
    done: list[str] = []

    def work(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        done[:] = []
        for name, damage in itertools.groupby(sorted(damaged, key=_collection), key=_collection):
            if name.startswith(layout.LABELS):
                del root[name]
                done.append(f"dropped {name}")
            else:
                done.extend(_repair_collection(subgroup(root, name), list(damage)))
        return f"make room for what {len(damaged)} damage(s) need read again"

    cube.transact(work)
    return resealed + done


def _collection(damage: Damage) -> str:
    return damage.collection or ""


def _repair_collection(group: zarr.Group, damage: list[Damage]) -> Iterable[str]:
    composite = layout.SCENES not in group
    scenes = {item.scene for item in damage if item.scene is not None and not composite and not item.drops_tile}
    tiles = {item.tile for item in damage if item.tile is not None and (composite or item.drops_tile)}
    for tile in sorted(tiles):
        del group[tile]
        yield f"dropped tile {tile} of {group.name.strip('/')}"
    if composite:
        return
    table = read_table(group)
    touched = {scene: entry for scene, entry in table.items() if scene in scenes or entry.tiles & tiles}
    left = frozenset().union(*(entry.tiles for entry in touched.values())) - tiles
    steps = count_steps(group, left.intersection(layout.tile_ids(group)))
    rows = {
        entry.index: {
            "checksum": DAMAGED if scene in scenes else entry.checksum,
            "tiles": " ".join(sorted(entry.tiles - tiles)),
            "steps": steps[scene],
        }
        for scene, entry in touched.items()
        if entry.index is not None
    }
    write_rows(group.store, {f"{group.path}/{layout.SCENES}": rows})
    yield from (f"scene {scene} of {group.name.strip('/')} will be read again" for scene in sorted(touched))


def _go_back(cube: Cube) -> str:
    for entry in cube.log()[1:-1]:
        try:
            view = cube.view(entry.snapshot)
            for name in layout.scene_counts(view.root):
                read_table(subgroup(view.root, name))
        except (StoreError, icechunk.IcechunkError, ValueError):
            continue
        cube.go_back(entry.snapshot)
        return f"went back to snapshot {entry.snapshot} of {entry.time:%Y-%m-%d %H:%M} ({entry.message})"
    raise StoreError(f"no snapshot of {cube.uri} is sound", "ingest into a new cube")
