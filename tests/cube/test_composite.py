"""Composites against NumPy's median, and only made again where their scenes changed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import ndimage

from geossl.cube.composite import composite, periods
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


@pytest.mark.parametrize("rule", ["medoid", "best-pixel"])
def test_real_observations_by_rule(cube: Cube, make_scene: SceneMaker, rule: Literal["medoid", "best-pixel"]) -> None:
    """Whatever the order of arrival, each pixel has the spectrum of the scene that a plain loop chooses."""
    clouds = [(slice(0, 100 + 20 * n), slice(n * 10, 256)) for n in range(4)]
    scenes = [make_scene(n, (1, 1), cloud=cloud) for n, cloud in enumerate(clouds)]
    ingest(cube, [scenes[number] for number in (2, 0, 3, 1)], SENSOR, GRID, "s2", IngestSettings(wave=1))
    name = composite(cube, "s2", CompositeSettings(months=3, rule=rule))
    assert name == f"s2-P3M-{rule}"
    made = cube.view().collection(name)

    stack = np.stack([pixels_of(n, 256, 256) for n in range(4)])
    clear = np.ones((4, 256, 256), bool)
    for mask, cloud in zip(clear, clouds, strict=True):
        mask[cloud] = False
    expected = np.full((2, 256, 256), -32768, np.int16)
    middle = np.datetime64("2024-02-15T12")
    days = [
        float((np.datetime64("2024-01-01T13:40") + np.timedelta64(10 * n, "D") - middle) / np.timedelta64(1, "D"))
        for n in range(4)
    ]
    away = [ndimage.distance_transform_edt(mask) for mask in clear]
    for y, x in [(y, x) for y in range(90, 180) for x in range(256) if clear[:, y, x].any()]:
        seen = np.flatnonzero(clear[:, y, x])
        spectra = stack[seen, :, y, x].astype(float)
        if rule == "medoid":
            merit = [-np.hypot(*(spectra - one).T).sum() for one in spectra]
        else:
            near = [np.exp(-0.5 * (days[n] / (3 * 30.44 / 4)) ** 2) for n in seen]
            merit = [
                date + 1 / (1 + np.exp(-0.2 * (min(away[n][y, x], 50) - 25)))
                for date, n in zip(near, seen, strict=True)
            ]
        expected[:, y, x] = spectra[int(np.argmax(merit))]
    np.testing.assert_array_equal(made.image(TILE)[0][:, 90:180], expected[:, 90:180])
    np.testing.assert_array_equal(made.clear_count(TILE)[0], clear.sum(axis=0))


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
