"""The map of footprints: what is north lies above, and shapes keep their proportions."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from geossl.report.charts import footprints
from geossl.report.records import FootprintMap, Ring

SVG = "{http://www.w3.org/2000/svg}"


def square(west: float, south: float, side: float = 1.0) -> Ring:
    east, north = west + side, south + side
    return [(west, south), (east, south), (east, north), (west, north)]


def polygons(found: FootprintMap) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(footprints(found))
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in shape.attrib["points"].split())]
        for shape in root.iter(f"{SVG}polygon")
    ]


def test_places_and_proportions() -> None:
    southern, northern, tile, area = polygons(
        FootprintMap([square(20, 59), square(21, 60)], [square(20, 59, 2)], [square(20.5, 59.5)])
    )
    assert max(y for _, y in northern) <= min(y for _, y in southern) + 0.2
    assert min(x for x, _ in northern) >= max(x for x, _ in southern) - 0.2
    width = max(x for x, _ in tile) - min(x for x, _ in tile)
    height = max(y for _, y in tile) - min(y for _, y in tile)
    assert width / height == pytest.approx(math.cos(math.radians(60)), rel=1e-3)
    assert len(area) == 4


def test_a_thousand_scenes_are_a_thousand_outlines() -> None:
    assert len(polygons(FootprintMap([square(20 + n / 100, 0) for n in range(1000)], []))) == 1000
