"""Composites against NumPy's median, and only made again where their scenes changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geossl.cube.composite import composite, median, periods
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings, IngestSettings
from geossl.errors import StoreError

from .conftest import CORNER, GRID, SENSOR, SceneMaker, pixels_of

TILE = GRID[CORNER].id
QUARTER = CompositeSettings(months=3)


def test_the_median_of_what_was_clear(cube: Cube, make_scene: SceneMaker) -> None:
    clouds = [(slice(0, 100 + 20 * n), slice(n * 10, 256)) for n in range(4)]
    scenes = [make_scene(n, (1, 1), cloud=cloud) for n, cloud in enumerate(clouds)]
    late = make_scene(4, (1, 1), day=100, nodata=(slice(0, 30), slice(None)))
    ingest(cube, [late, *scenes], SENSOR, GRID, "s2", IngestSettings())
    name = composite(cube, "s2", QUARTER)
    assert name == "s2-P3M"
    made = cube.view().collection(name)
    assert (made.kind, made.sensor, made.grid, made.tile_ids) == ("composite", SENSOR, GRID, [TILE])
    assert made.scene_ids(TILE) == ["2024-01-01/P3M", "2024-04-01/P3M"]
    assert made.times(TILE)[0] == np.datetime64("2024-02-15T12")

    stack = np.stack([pixels_of(n, 256, 256) for n in range(4)]).astype(np.float64)
    for values, cloud in zip(stack, clouds, strict=True):
        values[:, *cloud] = np.nan
    count = np.isfinite(stack[:, 0]).sum(axis=0)
    with np.errstate(all="ignore"):
        expected = np.full((2, 256, 256), -32768.0)
        expected[:, count > 0] = np.rint(np.nanmedian(stack[..., count > 0], axis=0))
    np.testing.assert_array_equal(made.image(TILE)[0], expected)
    np.testing.assert_array_equal(made.clear_count(TILE)[0], count)
    np.testing.assert_array_equal(made.quality(TILE)[0], (count == 0).astype(np.uint8))
    np.testing.assert_array_equal(made.clear_fraction(TILE), np.float32([(count > 0).mean(), 1 - 30 / 256]))
    made_of_one = np.asarray(made.image(TILE)[1])
    assert (made_of_one[:, :30] == -32768).all()
    np.testing.assert_array_equal(made_of_one[:, 30:], pixels_of(4, 256, 256)[:, 30:])


def test_made_again_only_where_scenes_changed(cube: Cube, make_scene: SceneMaker) -> None:
    def update(*scenes: object) -> tuple[list[int], list[int]]:
        ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings())  # type: ignore[arg-type]
        name = composite(cube, "s2", QUARTER)
        made = cube.view().collection(name)
        return made.revisions(TILE).tolist(), made.clear_count(TILE)[:, 0, 0].tolist()

    assert update(make_scene(0, (1, 1)), make_scene(1, (1, 1), day=100)) == ([0, 0], [1, 1])
    before = cube.snapshot()
    assert composite(cube, "s2", QUARTER) == "s2-P3M"
    assert cube.snapshot() == before
    # another scene in the second period
    assert update(make_scene(2, (1, 1), day=101)) == ([0, 1], [1, 2])
    # a scene of the first period is processed again, and has nothing clear now
    assert update(make_scene(0, (1, 1), cloud=(slice(None), slice(None)))) == ([1, 1], [0, 2])
    made = cube.view().collection("s2-P3M")
    assert (np.asarray(made.image(TILE)[0]) == -32768).all()
    assert (np.asarray(made.image(TILE)[1]) != -32768).all()


def test_no_composite_of_composites(cube: Cube, make_scene: SceneMaker) -> None:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    with pytest.raises(StoreError, match="holds composites"):
        composite(cube, composite(cube, "s2", QUARTER), QUARTER)
    with pytest.raises(StoreError, match="holds composites"):
        ingest(cube, [make_scene(1)], SENSOR, GRID, "s2-P3M", IngestSettings())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_median_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "float32"]))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype == "float32" else {}
    stack = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype), **finite)))
    clear = data.draw(hnp.arrays(bool, shape))
    found = median(stack, clear, nodata=7)
    for pixel in range(shape[1]):
        seen = stack[clear[:, pixel], pixel].astype(np.float64)
        expected = np.median(seen) if seen.size else 7.0
        assert found[pixel] == (np.float32(expected) if dtype == "float32" else np.rint(expected))


@pytest.mark.parametrize(
    ("time", "months", "start"),
    [
        ("2023-12-31T23:59", 12, "2023-01"),
        ("2024-01-01", 12, "2024-01"),
        ("2024-06-30", 6, "2024-01"),
        ("2023-05-05", 24, "2022-01"),
        ("1969-11-05", 3, "1969-10"),
    ],
)
def test_periods_are_counted_from_january(time: str, months: int, start: str) -> None:
    assert periods(np.array([time], "datetime64[ns]"), months) == [np.datetime64(start)]
