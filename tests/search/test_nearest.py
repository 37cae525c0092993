"""The most similar places: against a slow oracle."""

from __future__ import annotations

import datetime as dt
import itertools

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import Transformer

from geossl.errors import SettingsError
from geossl.search.nearest import Exact, Hit, at_point, geometry, places_of, question, within
from geossl.search.table import Embeddings, Where

from .conftest import LATTICE

FILTERS = [
    Where(),
    Where(dt.date(2024, 4, 1), dt.date(2024, 7, 10)),
    Where(clear=0.95),
    Where(until=dt.date(2024, 4, 10), clear=0.9),
]


def oracle(made: Embeddings, places: np.ndarray, where: Where, most: int) -> list[tuple[str, str, int, int]]:
    """By GeoPandas and loops over all pairs, from the words of the rule alone."""
    frame = geopandas.read_parquet(made.folder)
    centre = np.stack(list(frame["embedding"])).astype(np.float64).mean(axis=0)
    day = frame["time"].dt.date
    keep = frame["clear_fraction"] >= np.float32(where.clear)
    keep &= (day >= where.since) if where.since else True
    keep &= (day <= where.until) if where.until else True
    frame = frame[keep].reset_index(drop=True)
    seen = np.stack(list(frame["embedding"])).astype(np.float64) - centre
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    ground = list(frame.to_crs(LATTICE.grid.crs).geometry.buffer(0.5))
    asked = [
        chip
        for chip, box in enumerate(ground)
        if any(shapely.intersection(box, wanted).area > 0.9 * wanted.area for wanted in LATTICE.boxes(places))
    ]
    vector = seen[asked].mean(axis=0)
    similarity = seen @ vector / np.linalg.norm(vector)
    taken = [ground[chip] for chip in asked]
    answers = []
    for chip in np.argsort(-similarity):
        if len(answers) < most and not any(ground[chip].intersects(other) for other in taken):
            taken.append(ground[chip])
            answers.append(tuple(frame.loc[chip, ["scene", "tile", "row", "col"]]))
    return answers


def key(hit: Hit) -> tuple[str, str, int, int]:
    return hit.scene, hit.tile, hit.row, hit.col


def middle(place: np.ndarray) -> tuple[float, float]:
    point = shapely.centroid(LATTICE.footprints(place[None])[0])
    return point.x, point.y


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_answers_are_the_oracles(made: Embeddings, where: Where) -> None:
    places = places_of(made, where)
    for number in (0, 40, len(places) - 1):
        chosen = at_point(made, places, *middle(places[number]))
        np.testing.assert_array_equal(chosen, places[[number]])
        hits = Exact(made).nearest(question(made, chosen, where), where, 7)
        assert [key(hit) for hit in hits] == oracle(made, chosen, where, 7)
        assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)


def test_a_polygon_asks_for_the_chips_whose_middle_it_holds(made: Embeddings) -> None:
    where = Where()
    places = places_of(made, where)
    # three by two chips, across the border of the two tiles
    first = np.array([places[:, 0].min() + 128, places[:, 1].min() + 448])
    wanted = [first + np.array([64 * row, 64 * col]) for row, col in itertools.product(range(2), range(3))]
    area = shapely.union_all(LATTICE.boxes(np.array(wanted))).buffer(-100)
    chosen = within(made, places, area)
    assert sorted(map(tuple, chosen.tolist())) == sorted(tuple(map(int, place)) for place in wanted)
    asking = question(made, chosen, where)
    assert asking.chips == 6 * 4
    hits = Exact(made).nearest(asking, where, 5)
    assert [key(hit) for hit in hits] == oracle(made, chosen, where, 5)
    # smaller than a chip: the chip that it covers most
    west, south, _, _ = LATTICE.boxes(first[None])[0].bounds
    small = shapely.box(west - 20, south + 100, west + 60, south + 200)
    np.testing.assert_array_equal(within(made, places, small), first[None])


def test_no_two_answers_touch_and_none_is_left_out(made: Embeddings) -> None:
    where = Where()
    places = places_of(made, where)
    asking = question(made, places[[30]], where)
    hits = Exact(made).nearest(asking, where, 1000)
    chips = LATTICE.corners([h.tile for h in hits], np.array([h.row for h in hits]), np.array([h.col for h in hits]))
    chips = np.concatenate([asking.places, chips])
    for one, other in itertools.combinations(chips, 2):
        assert np.abs(one - other).max() > 64
    for place in places:  # or there would be one more
        assert (np.abs(chips - place).max(axis=1) <= 64).any()
    assert len(geometry(made, hits)) == len(hits)
    assert geometry(made, []).size == 0


def test_a_point_without_a_chip_says_where_there_are_some(made: Embeddings) -> None:
    places = places_of(made, Where())
    longitude, latitude = middle(places[5])
    with pytest.raises(SettingsError, match=r"there are some from .*longitude,latitude"):
        at_point(made, places, longitude + 5, latitude)
    with pytest.raises(SettingsError, match="longitude first"):
        at_point(made, places, latitude, longitude)
    with pytest.raises(SettingsError, match="no chip with an embedding lies in the polygon"):
        within(made, places, shapely.box(0, 0, 100, 100))
    with pytest.raises(SettingsError, match="from 2030-01-01"):
        places_of(made, Where(since=dt.date(2030, 1, 1)))


def test_of_overlapping_chips_the_one_whose_middle_is_nearest(made: Embeddings) -> None:
    places = np.array([[-256000, 49664], [-256000, 49696]])
    x, y = LATTICE.grid.resolution * np.array([49696 + 20, 256000 - 32.0])
    to_lonlat = Transformer.from_crs(LATTICE.grid.crs, "EPSG:4326", always_xy=True)
    assert at_point(made, places, *to_lonlat.transform(x, y)).tolist() == [[-256000, 49696]]
    assert at_point(made, places, *to_lonlat.transform(x - 100, y)).tolist() == [[-256000, 49664]]
