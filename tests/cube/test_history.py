"""What the history says, and old snapshots that still read what they were."""

from __future__ import annotations

import icechunk
import numpy as np
import pytest
import zarr

from geossl.cube import layout
from geossl.cube.composite import CompositeSettings, composite
from geossl.cube.history import CollectionDiff, diff
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.statistics import count, store
from geossl.errors import StoreError
from geossl.imagery.scene import Rejected, Scene
from geossl.legend import LandClass, Legend

from .conftest import CORNER, GRID, SENSOR, SceneMaker, pixels_of

WEST, EAST = GRID[CORNER].id, GRID[CORNER[0] + 1, CORNER[1]].id


def read_in(cube: Cube, scenes: list[Scene | Rejected]) -> str:
    return ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=8)).snapshot


def test_the_log_tells_every_commit_with_tags_and_counts(cube: Cube, make_scene: SceneMaker) -> None:
    first = read_in(cube, [make_scene(0), make_scene(1)])
    second = read_in(cube, [make_scene(2), Rejected("bad.tif", "no date")])
    cube.tag("map-1", first)
    log = cube.log()
    assert [entry.snapshot for entry in log[:2]] == [second, first]
    assert [entry.message for entry in log[:3]] == [
        "ingest 1 scene(s) into s2",
        "ingest 2 scene(s) into s2",
        "create the cube",
    ]
    assert [dict(entry.scenes) for entry in log] == [{"s2": 3}, {"s2": 2}, {}, {}]
    assert [entry.tags for entry in log] == [(), ("map-1",), (), ()]
    assert log[0].time > log[1].time > log[2].time


def test_a_diff_names_scenes_tiles_and_quarantine(cube: Cube, make_scene: SceneMaker) -> None:
    east_only = (slice(None), slice(0, 256))
    first = read_in(cube, [make_scene(0), make_scene(1), Rejected("bad.tif", "no date"), Rejected("odd.tif", "odd")])
    replaced = make_scene(0, image=pixels_of(50, 256, 512))
    mended = make_scene(2, nodata=east_only, name="odd.tif")
    second = read_in(cube, [replaced, mended, Rejected("bad.tif", "no bands")])
    found = diff(cube)
    assert (found.before, found.after, found.labels) == (first, second, {})
    assert found.collections == {
        "s2": CollectionDiff(
            added=["odd.tif"],
            replaced={"scene-000": (0, 1)},
            tiles=sorted([WEST, EAST]),
            quarantined=["bad.tif"],
            released=["odd.tif"],
        )
    }
    cube.tag("before", first)
    back = diff(cube, second, "before").collections["s2"]
    assert (back.added, back.removed, back.replaced) == ([], ["odd.tif"], {"scene-000": (1, 0)})
    assert (back.quarantined, back.released) == (["bad.tif", "odd.tif"], [])
    assert diff(cube, first, first).collections == {}


def test_a_diff_names_only_the_tiles_that_changed(cube: Cube, make_scene: SceneMaker) -> None:
    read_in(cube, [make_scene(0)])
    read_in(cube, [make_scene(1, nodata=(slice(None), slice(0, 256)))])
    assert diff(cube).collections["s2"].tiles == [EAST]


def test_a_diff_names_labels_composites_and_statistics(cube: Cube, make_scene: SceneMaker) -> None:
    first = read_in(cube, [make_scene(0), make_scene(1)])
    store(cube, "s2", count(cube.view().collection("s2")).statistics())
    made = composite(cube, "s2", CompositeSettings(months=6))

    def add(session: icechunk.Session) -> str:
        legend = Legend((LandClass(1, "water", "#2b83ba"), LandClass(2, "forest", "#1a9641")), title="two")
        layout.create_labels(zarr.open_group(session.store), "landcover", GRID, legend, task="landcover", checksum="a")
        return "labels"

    cube.transact(add)
    found = diff(cube, first)
    assert found.labels == {"landcover": "added"}
    assert found.collections["s2"] == CollectionDiff(statistics=True)
    assert found.collections[made].added == ["2024-01-01/P6M"]
    assert found.to_dict()["collections"][made]["tiles"] == sorted([WEST, EAST])


def test_snapshots_that_are_not_there(cube: Cube) -> None:
    with pytest.raises(StoreError, match="no snapshot before"):
        diff(cube)
    with pytest.raises(StoreError, match="no snapshot 'nonsense'"):
        diff(cube, "nonsense")


def test_old_snapshots_read_the_old_pixels_and_records(cube: Cube, make_scene: SceneMaker) -> None:
    first = read_in(cube, [make_scene(0), make_scene(1)])
    second = read_in(cube, [make_scene(0, image=pixels_of(50, 256, 512)), make_scene(2)])
    third = read_in(cube, [make_scene(0, image=pixels_of(60, 256, 512))])
    for snapshot, number, revision, steps in ((first, 0, 0, 2), (second, 50, 1, 3), (third, 60, 2, 3)):
        collection = Cube.open(cube.uri).view(snapshot).collection("s2")
        for tile, columns in ((WEST, slice(0, 256)), (EAST, slice(256, 512))):
            np.testing.assert_array_equal(collection.image(tile)[0], pixels_of(number, 256, 512)[:, :, columns])
            np.testing.assert_array_equal(collection.image(tile)[1], pixels_of(1, 256, 512)[:, :, columns])
            assert collection.revisions(tile).tolist() == [revision, *[0] * (steps - 1)]
        assert list(collection.items()) == ["scene-000", "scene-001", "scene-002"][:steps]
