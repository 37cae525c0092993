"""Scenes held back: no reader sees them, other scenes stay as they are, and a release brings everything back."""

from __future__ import annotations

import numpy as np
import pytest

from geossl.chips.index import build_index
from geossl.cube import statistics
from geossl.cube.hold import held_scenes, hold, release
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError
from geossl.imagery.clouds import Quality
from geossl.imagery.scene import Scene

from .conftest import CORNER, GRID, SENSOR, SceneMaker

TILE = GRID[CORNER].id


def run(cube: Cube, scenes: list[Scene]) -> None:
    ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings())


def state(cube: Cube) -> dict[str, list[object]]:
    """What a reader sees of every scene on one tile but for its revision."""
    scenes = cube.view().collection("s2")
    return {
        scene: [np.asarray(scenes.quality(TILE)[step]).tobytes(), float(scenes.clear_fraction(TILE)[step])]
        for step, scene in enumerate(scenes.scene_ids(TILE))
    }


def revisions(cube: Cube) -> dict[str, int]:
    scenes = cube.view().collection("s2")
    return dict(zip(scenes.scene_ids(TILE), scenes.revisions(TILE).tolist(), strict=True))


def test_nobody_sees_a_held_scene_and_a_release_brings_it_back(cube: Cube, make_scene: SceneMaker) -> None:
    run(cube, [make_scene(0), make_scene(1, cloud=(slice(0, 64), slice(0, 128))), make_scene(2)])
    before, counted = state(cube), statistics.count(cube.view().collection("s2")).statistics().count
    first = cube.snapshot()
    assert hold(cube, "s2", {"scene-001": "looks like haze"}) == ["scene-001"]
    view = cube.view()
    scenes = view.collection("s2")
    assert held_scenes(view.root["s2"]) == {"scene-001": "looks like haze"}  # type: ignore[arg-type]
    step = scenes.scene_ids(TILE).index("scene-001")
    quality = np.asarray(scenes.quality(TILE)[step])
    assert (quality & Quality.HELD).all()
    assert ((quality & Quality.CLOUD) > 0).sum() == 64 * 128, "what else is known of it stays"
    assert scenes.clear_fraction(TILE)[step] == 0
    assert step not in build_index(scenes, 128, min_clear=0.01).step
    assert statistics.count(scenes).statistics().count[0] < counted[0]
    after = state(cube)
    assert {scene for scene in before if before[scene] != after[scene]} == {"scene-001"}
    assert revisions(cube) == {"scene-000": 0, "scene-001": 1, "scene-002": 0}, "what was made from it is out of date"
    assert (np.asarray(cube.view(first).collection("s2").quality(TILE)[step]) & Quality.HELD == 0).all()

    run(cube, [make_scene(1, cloud=(slice(0, 64), slice(0, 128)))])
    assert state(cube) == after, "a held scene is not new"
    assert hold(cube, "s2", {"scene-001": "again"}) == []
    assert release(cube, "s2", ["scene-001", "scene-000"]) == ["scene-001"]
    assert state(cube) == before
    assert held_scenes(cube.view().root["s2"]) == {}  # type: ignore[arg-type]
    assert revisions(cube)["scene-001"] == 2


def test_a_scene_that_is_processed_again_is_another_one(cube: Cube, make_scene: SceneMaker) -> None:
    run(cube, [make_scene(0), make_scene(1)])
    hold(cube, "s2", {"scene-001": "looks striped"})
    run(cube, [make_scene(1, cloud=(slice(0, 10), slice(0, 10)))])
    assert held_scenes(cube.view().root["s2"]) == {}  # type: ignore[arg-type]
    assert state(cube)["scene-001"][1] > 0.99
    assert revisions(cube)["scene-001"] == 2


def test_an_unknown_scene_is_named(cube: Cube, make_scene: SceneMaker) -> None:
    run(cube, [make_scene(0)])
    with pytest.raises(StoreError, match="no scene 'scene-7'"):
        hold(cube, "s2", {"scene-7": "why"})
