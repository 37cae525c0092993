"""Periods as people write them, and composites of periods that somebody named."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from geossl.cube import periods
from geossl.cube.composite import composite
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings, IngestSettings

from .conftest import CORNER, GRID, SENSOR, SceneMaker, pixels_of

TILE = GRID[CORNER].id


@pytest.mark.parametrize(
    ("text", "period"),
    [
        (2020, "2020-01-01/P12M"),
        ("2020", "2020-01-01/P12M"),
        ("2020-06", "2020-06-01/P1M"),
        ("2020-06/2020-09", "2020-06-01/P4M"),
        ("2019/2020", "2019-01-01/P24M"),
        ("2019-11/2020", "2019-11-01/P14M"),
        ("2020-06-01/P4M", "2020-06-01/P4M"),
    ],
)
def test_a_period_is_read_as_it_is_meant(text: int | str, period: str) -> None:
    assert periods.parse(text) == period
    assert periods.parse(periods.parse(text)) == period


def test_days_stay_days_and_nonsense_is_refused() -> None:
    assert periods.parse("2020-10-01") == periods.parse(dt.date(2020, 10, 1)) == dt.date(2020, 10, 1)
    assert periods.day("2020-06-01/P4M") == dt.date(2020, 8, 1)
    for wrong in ("2020-13", "soon", "2020-06-31", "2020-06-01/2020-07-01"):
        with pytest.raises(ValueError, match="a day such as"):
            periods.parse(wrong)
    with pytest.raises(ValueError, match="ends before it begins"):
        periods.parse("2020-06/2020-05")


def test_named_periods_have_composites_of_their_own(cube: Cube, make_scene: SceneMaker) -> None:
    scenes = [make_scene(n, (1, 1), day=day) for n, day in enumerate((5, 40, 70, 130))]  # of 2024
    ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings())
    wanted = ["2024-01-01/P2M", "2024-02-01/P2M", "2025-01-01/P12M"]
    name = composite(cube, "s2", CompositeSettings(), named=wanted)
    assert name == "s2-periods"
    made = cube.view().collection(name)
    # an empty one is not made; where two overlap, each has all of its scenes
    assert made.scene_ids(TILE) == wanted[:2]
    first, second, third = (pixels_of(n, 256, 256).astype(float) for n in range(3))
    np.testing.assert_array_equal(made.image(TILE)[0], np.rint((first + second) / 2))
    np.testing.assert_array_equal(made.image(TILE)[1], np.rint((second + third) / 2))
    # further periods join, and nothing is made twice
    composite(cube, "s2", CompositeSettings(), named=["2024-05-01/P1M", wanted[0]])
    made = cube.view().collection(name)
    assert made.scene_ids(TILE) == [*wanted[:2], "2024-05-01/P1M"]
    assert made.revisions(TILE).tolist() == [0, 0, 0]
    snapshot = cube.snapshot()
    composite(cube, "s2", CompositeSettings(), named=wanted)
    assert cube.snapshot() == snapshot
