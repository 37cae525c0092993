"""Bring a cube of an older format along, one commit a collection.

From 1 to 2: the table of scenes learns on how many tiles each scene has a step. From 2 to 3: nothing but the
number, which keeps an older geossl from reading a part of the bands for all of them. The root says the new number in
the last commit; until then only this may write. Killed in between, run it again: what is done is not done twice.
"""

from __future__ import annotations

import functools

import icechunk
import numpy as np
import zarr

from geossl.cube import layout
from geossl.cube.arrays import column, subgroup
from geossl.cube.repository import Cube
from geossl.cube.scenes import count_steps
from geossl.progress import Progress, silent


def migrate(cube: Cube, progress: Progress = silent) -> list[str]:
    """Bring the cube to this geossl's format; returns what was done, nothing where it has it already.

    Old snapshots stay as they are, and readable.
    """
    root = cube.view().root
    version = layout.format_version(root)
    if version == layout.FORMAT:
        return []
    names = sorted(layout.scene_counts(root)) if version < 2 else []
    for done, name in enumerate(names):
        progress("collections", done, len(names))
        cube.transact(functools.partial(_add_step_counts, name=name), migrating=True)
    cube.transact(functools.partial(_finish, version=version), migrating=True)
    progress("collections", len(names), len(names))
    return [f"{name}: counted the steps of every scene" for name in names] + [
        f"the cube has format {layout.FORMAT} now; it had {version}"
    ]


def _add_step_counts(session: icechunk.Session, name: str) -> str | None:
    collection = subgroup(zarr.open_group(session.store, mode="r+"), name)
    table = subgroup(collection, layout.SCENES)
    ids = column(table, "id").tolist()
    if "steps" in table:
        if column(table, "steps").size == len(ids):
            return None
        del table["steps"]  # an older geossl has added scenes since
    steps = count_steps(collection, layout.tile_ids(collection))
    layout.create_step_counts(table, len(ids))[:] = np.array([steps[scene] for scene in ids], np.int32)
    return f"migrate {name} to format {layout.FORMAT}"


def _finish(session: icechunk.Session, version: int) -> str:
    root = zarr.open_group(session.store, mode="r+")
    for name in layout.scene_counts(root) if version < 2 else ():
        _add_step_counts(session, name)
    root.attrs[layout.FORMAT_KEY] = layout.FORMAT
    return f"migrate the cube to format {layout.FORMAT}"
