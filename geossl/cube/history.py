"""What changed between two snapshots of a cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import zarr

from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.columns import read_columns
from geossl.cube.repository import Cube, View
from geossl.cube.scenes import quarantined, read_table
from geossl.errors import StoreError


@dataclass
class CollectionDiff:
    """What changed in one collection; of composites, a "scene" is a period."""

    added: list[str] = field(default_factory=list)
    """Scene ids."""
    replaced: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Scene id → its revision before and after."""
    removed: list[str] = field(default_factory=list)
    tiles: list[str] = field(default_factory=list)
    """Ids of the tiles on which a step came, went or was replaced."""
    statistics: bool = False
    """Whether the band statistics are others."""
    quarantined: list[str] = field(default_factory=list)
    """Sources that were set aside, or for another reason than before."""
    released: list[str] = field(default_factory=list)
    """Sources that are no longer set aside."""

    def __bool__(self) -> bool:
        return self != CollectionDiff()


@dataclass
class Diff:
    """What changed from one snapshot to another."""

    before: str
    after: str
    collections: dict[str, CollectionDiff] = field(default_factory=dict)
    """Those that changed."""
    labels: dict[str, str] = field(default_factory=dict)
    """Label layer → ``added``, ``changed`` or ``removed``."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diff(cube: Cube, before: str | None = None, after: str | None = None) -> Diff:
    """What changed between two snapshots (ids or tags); by default the newest and the one before it.

    Raises
    ------
    StoreError
        There is no such snapshot, or none before.
    """
    after = cube.resolve(after)
    if before is None:
        ids = [entry.snapshot for entry in cube.log()]
        later = ids.index(after) if after in ids else len(ids)
        # the very first snapshot is an empty repository, not a cube
        if later + 2 >= len(ids):
            raise StoreError(f"there is no snapshot before {after}", "name two; `geossl cube log` lists them")
        before = ids[later + 1]
    old, new = cube.view(before), cube.view(after)
    found = Diff(old.snapshot, new.snapshot)
    names = {*old.collections(), *new.collections(), *_set_aside(old), *_set_aside(new)}
    for name in sorted(names):
        if change := _compare(old, new, name):
            found.collections[name] = change
    layers = _labels(old), _labels(new)
    for name in sorted({*layers[0], *layers[1]}):
        if layers[0].get(name) != layers[1].get(name):
            found.labels[name] = "added" if name not in layers[0] else "removed" if name not in layers[1] else "changed"
    return found


def _compare(old: View, new: View, name: str) -> CollectionDiff:
    change = CollectionDiff()
    steps = _steps(old, name), _steps(new, name)
    change.tiles = sorted(tile for tile in {*steps[0], *steps[1]} if steps[0].get(tile) != steps[1].get(tile))
    scenes = _scenes(old, name, steps[0]), _scenes(new, name, steps[1])
    change.added = [scene for scene in scenes[1] if scene not in scenes[0]]
    change.removed = [scene for scene in scenes[0] if scene not in scenes[1]]
    change.replaced = {
        scene: (scenes[0][scene], revision)
        for scene, revision in scenes[1].items()
        if scene in scenes[0] and scenes[0][scene] != revision
    }
    change.statistics = _statistics(old, name) != _statistics(new, name)
    aside = [{item.source: item.reason for item in quarantined(view, name)} for view in (old, new)]
    change.quarantined = [source for source, why in aside[1].items() if aside[0].get(source) != why]
    change.released = [source for source in aside[0] if source not in aside[1]]
    return change


def _steps(view: View, name: str) -> Mapping[str, list[tuple[str, int]]]:
    """Tile → scene and revision of its steps."""
    if name not in view.collections():
        return {}
    tiles = view.collection(name).tile_ids
    paths = [f"{name}/{tile}/{array}" for tile in tiles for array in ("scene_id", "revision")]
    columns = iter(read_columns(view.session.store, paths))
    return {
        tile: list(zip(ids.tolist(), revisions.tolist(), strict=True))
        for tile, ids, revisions in zip(tiles, columns, columns, strict=True)
    }


def _scenes(view: View, name: str, steps: Mapping[str, list[tuple[str, int]]]) -> dict[str, int]:
    """Scene → revision, in order of arrival; of composites from their steps."""
    if name in layout.scene_counts(view.root):
        return {scene: entry.revision for scene, entry in read_table(subgroup(view.root, name)).items()}
    return dict(sorted(_revisions(steps).items()))


def _revisions(steps: Mapping[str, list[tuple[str, int]]]) -> dict[str, int]:
    """Scene → the highest revision of its steps."""
    found: dict[str, int] = {}
    for of_tile in steps.values():
        for scene, revision in of_tile:
            found[scene] = max(revision, found.get(scene, 0))
    return found


def _statistics(view: View, name: str) -> object:
    return view.collection(name).statistics if name in view.collections() else None


def _set_aside(view: View) -> set[str]:
    stored: Any = view.root.attrs.get(layout.QUARANTINE_KEY, {})
    return set(stored)


def _labels(view: View) -> dict[str, object]:
    """Layer → what tells it from another of that name."""
    return {
        name: (zarr.open_group(view.session.store, path=f"{layout.LABELS}/{name}", mode="r").attrs.asdict())
        for name in view.label_names()
    }
