"""The simulation of `tests.benchmarks.coverage`, on a smaller world."""

from __future__ import annotations

from geossl.demo.world import build_world
from tests.benchmarks.coverage import clearing


def test_intervals_of_areas_hold_the_truth_as_often_as_they_say() -> None:
    rows = {(row.figure, row.of): row for row in clearing(build_world(256, seed=0), samples=400)}
    area = rows["area", "clearing"]
    assert 0.92 <= area.inside <= 0.98
    assert abs(area.mean / area.truth - 1) < 0.02
    assert abs(rows["producers", "clearing"].mean - rows["producers", "clearing"].truth) < 0.02
