"""Statistics against NumPy, over exactly the clear pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from geossl.bands import Statistics
from geossl.cube import statistics
from geossl.cube.collection import Collection
from geossl.cube.hold import hold
from geossl.cube.ingest import ingest
from geossl.cube.moments import BandMoments
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.statistics import Counted
from geossl.errors import StoreError

from .conftest import CORNER, GRID, SENSOR, SceneMaker, pixels_of


def test_statistics_are_those_of_the_clear_pixels(cube: Cube, make_scene: SceneMaker) -> None:
    cloud, hole = (slice(10, 200), slice(0, 300)), (slice(0, 50), slice(200, 512))
    ingest(cube, [make_scene(0, cloud=cloud), make_scene(1, nodata=hole)], SENSOR, GRID, "s2", IngestSettings())
    collection = cube.view().collection("s2")
    found = statistics.count(collection).statistics()
    clear = np.ones((2, 256, 512), bool)
    clear[0, *cloud] = clear[1, *hole] = False
    stack = np.stack([pixels_of(0, 256, 512), pixels_of(1, 256, 512)])
    for band in range(2):
        seen = stack[:, band][clear]
        assert found.count[band] == seen.size
        assert found.mean[band] == pytest.approx(seen.mean(), rel=1e-12)
        assert found.std[band] == pytest.approx(seen.std(), rel=1e-12)
        assert (found.minimum[band], found.maximum[band]) == (seen.min(), seen.max())
        assert (found.p02[band], found.p98[band]) == pytest.approx(np.percentile(seen, (2, 98)))


def test_stored_once(cube: Cube, make_scene: SceneMaker) -> None:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    assert cube.view().collection("s2").statistics is None
    found = statistics.count(cube.view().collection("s2")).statistics()
    snapshot = statistics.store(cube, "s2", found)
    assert cube.view().collection("s2").statistics == found
    assert statistics.store(cube, "s2", found) == snapshot == cube.snapshot()
    assert statistics.store(cube, "s2", dataclasses.replace(found, mean=(1.0, 2.0))) != snapshot


def test_what_is_counted_is_not_read_again(
    cube: Cube, make_scene: SceneMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[dict[str, list[int]]] = []

    def of_steps(steps: dict[str, list[int]], collection: Collection) -> list[BandMoments]:
        read.append(steps)
        return found(steps, collection)

    found = statistics._of_steps
    monkeypatch.setattr(statistics, "_of_steps", of_steps)

    def count() -> Statistics:
        read.clear()
        collection = cube.view().collection("s2")
        counted = statistics.count(collection, Counted.read(tmp_path / "note.npz", SENSOR))
        counted.write(tmp_path / "note.npz", SENSOR)
        assert counted.statistics() == statistics.count(collection).statistics()
        del read[-len(collection.tile_ids) :]  # by the count of everything
        return counted.statistics()

    def scenes(*numbers: int) -> None:
        ingest(cube, [make_scene(number) for number in numbers], SENSOR, GRID, "s2", IngestSettings())

    west, east = (GRID[CORNER[0] + column, CORNER[1]].id for column in (0, 1))
    scenes(0, 1)
    count()
    assert read == [{west: [0, 1]}, {east: [0, 1]}]
    scenes(2)
    count()
    assert read == [{west: [2]}, {east: [2]}]
    before = count()
    assert not read, "nothing is new"
    hold(cube, "s2", {"scene-001": "looks odd"})
    assert count() != before
    assert read == [{west: [0, 1, 2]}, {east: [0, 1, 2]}], "what was counted has to be taken out"
    (tmp_path / "note.npz").write_bytes((tmp_path / "note.npz").read_bytes()[:-500])
    count()
    assert read == [{west: [0, 1, 2]}, {east: [0, 1, 2]}], "the note is damaged"
    few = SENSOR.subset(("red",))
    assert not Counted.read(tmp_path / "note.npz", few).steps.size, "other bands"


def test_no_clear_pixel(cube: Cube, make_scene: SceneMaker) -> None:
    ingest(cube, [make_scene(0, cloud=(slice(None), slice(None)))], SENSOR, GRID, "s2", IngestSettings())
    with pytest.raises(StoreError, match="no clear pixel"):
        statistics.count(cube.view().collection("s2")).statistics()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(hnp.arrays(np.int16, st.integers(0, 30)), min_size=1, max_size=5).filter(
        lambda parts: any(map(len, parts))
    ),
    st.integers(0, 4),
)
def test_integers_are_exact_however_they_are_split(parts: list[NDArray[np.int16]], cut: int) -> None:
    summary = summarise("int16", parts, cut)
    seen = np.concatenate(parts).astype(np.float64)
    assert summary["count"] == seen.size
    assert summary["mean"] == pytest.approx(seen.mean(), rel=1e-12, abs=1e-12)
    assert summary["std"] == pytest.approx(seen.std(), rel=1e-9, abs=1e-9)
    assert (summary["minimum"], summary["maximum"]) == (seen.min(), seen.max())
    assert (summary["p02"], summary["p98"]) == pytest.approx(tuple(np.percentile(seen, (2, 98))), rel=1e-12, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
        min_size=1,
        max_size=5,
    ).filter(lambda parts: any(map(len, parts))),
    st.integers(0, 4),
)
def test_floats_merge_stably(parts: list[NDArray[np.float32]], cut: int) -> None:
    summary = summarise("float32", parts, cut)
    seen = np.concatenate(parts).astype(np.float64)
    scale = np.abs(seen).max()
    assert summary["count"] == seen.size
    assert summary["mean"] == pytest.approx(seen.mean(), rel=1e-9, abs=1e-9 * scale)
    assert summary["std"] == pytest.approx(seen.std(), rel=1e-6, abs=1e-7 * scale)
    assert (summary["minimum"], summary["maximum"]) == (seen.min(), seen.max())
    for name, share in (("p02", 2), ("p98", 98)):
        assert summary[name] == pytest.approx(np.percentile(seen, share), rel=0.004, abs=0.004 * scale)


def test_a_large_offset_does_not_eat_the_variance() -> None:
    """Where the sum of squares minus the squared mean would have no correct digit left."""
    rng = np.random.default_rng(0)
    values = (1e6 + rng.normal(size=(20, 5000))).astype(np.float32)
    summary = summarise("float32", list(values), 7)
    assert summary["std"] == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def summarise(dtype: str, parts: list[NDArray[np.generic]], cut: int) -> dict[str, float]:
    """One half of the parts into one, the other into another, then both together."""
    left, right = BandMoments(dtype), BandMoments(dtype)
    for position, part in enumerate(parts):
        (left if position < cut else right).add(part)
    left.merge(BandMoments(dtype, right.histogram, *right.moments))
    return left.summary()
