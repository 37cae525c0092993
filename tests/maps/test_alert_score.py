"""Commission, omission and delay, where they can be told by hand."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geossl.grid import Grid
from geossl.maps.alerts.looks import LookFolder, SceneLook
from geossl.maps.alerts.patches import find_patches
from geossl.maps.alerts.rule import UNSEEN, Rule
from geossl.maps.alerts.score import Scores, score_alerts, summary
from geossl.maps.alerts.tiles import AlertTiles, update_tiles

GRID = Grid("EPSG:32722", 10, 256, (0, 0))
TILE = "x0y0"
FELLED, MISSED, FALSE, OLD, FLICKER = (
    np.s_[20:40, 20:40],
    np.s_[60:70, 60:80],
    np.s_[100:110, 100:110],
    np.s_[200:210, 0:10],
    np.s_[150:152, 150:155],
)
CLEARED = 1010
"""The day of FELLED; MISSED is felled ten days later."""


def _scores(folder: Path, *, area: gpd.GeoDataFrame | None = None) -> Scores:
    """Looks every ten days from 990 on. FELLED is under cloud until 1030, MISSED is never told from forest."""
    looks = []
    for day in range(990, 1080, 10):
        percent = np.full((256, 256), 2, np.uint8)
        if day > CLEARED:
            percent[FELLED] = 99
        if day >= 1050:
            percent[FALSE] = 99
        if day == 1040:
            percent[FLICKER] = 99
        if CLEARED <= day < 1030:
            percent[FELLED] = UNSEEN
        look = SceneLook(f"scene-{day}", day, {TILE: 0}, "key")
        LookFolder(folder / "looks").write(look, GRID.tile(TILE), percent)
        looks.append(look)
    store, forest = AlertTiles(folder / "tiles"), np.ones((256, 256), bool)
    forest[OLD] = False
    update_tiles(
        store, GRID, [TILE], lambda _: forest, looks, LookFolder(folder / "looks"), Rule(1000, 180), forest_key=""
    )

    def box(place: tuple[slice, slice]) -> shapely.Geometry:
        rows, cols = place
        return shapely.box(cols.start * 10, -rows.stop * 10, cols.stop * 10, -rows.start * 10)

    reference = gpd.GeoDataFrame(geometry=[box(FELLED), box(MISSED), box(OLD), box(np.s_[0:5, 0:5])], crs=GRID.crs)
    days = np.array([CLEARED, CLEARED + 10, CLEARED, 900], np.int16)
    return score_alerts(
        find_patches(store, GRID, [TILE]),
        store,
        reference,
        days,
        GRID,
        [TILE],
        lambda _: forest,
        looks,
        LookFolder(folder / "looks"),
        1000,
        area,
    )


def test_delays_are_the_clouds_and_the_methods(tmp_path: Path) -> None:
    found = _scores(tmp_path)
    felled, missed = found.clearings  # neither what was no forest nor what fell before
    assert (felled.day, felled.seen, felled.detected, felled.sure) == (1010, 1030, 1030, 1040)
    assert felled.dated == 1015  # between 1000, when there was forest, and 1030, when there was none
    assert (missed.day, missed.seen, missed.detected, missed.sure) == (1020, 1020, None, None)
    row = summary(found.clearings)
    assert row["clearings"] == 2
    assert row["found"] == 1
    assert row["omission"] == pytest.approx(200 / 600)
    assert (row["days_clouds"], row["days_method"], row["days_detected"], row["days_confirmed"]) == (10, 0, 20, 30)
    assert row["date_error"] == 5


def test_commission_and_omission_are_by_area(tmp_path: Path) -> None:
    total = _scores(tmp_path).total()
    assert total["alerts"] == pytest.approx(5)
    assert total["cleared"] == pytest.approx(6)
    assert total["commission"] == pytest.approx(1 / 5)
    assert total["omission"] == pytest.approx(2 / 6)
    assert total["f1"] == pytest.approx(2 * 4 / (5 + 6))
    assert total["area_error"] == pytest.approx(-1 / 6)
    months = {row.month: row for row in _scores(tmp_path).alerts}
    assert months["2017-10"].wrong == 0
    assert months["2017-11"].wrong == months["2017-11"].raised == pytest.approx(1)
    assert months["2017-11"].sure_wrong == pytest.approx(1)
    # once said, once taken back
    assert sum(row.withdrawn for row in months.values()) == pytest.approx(0.1)
    # cleared, but no forest by the mask
    assert _scores(tmp_path).unwatched == pytest.approx(1)


def test_only_ground_that_was_looked_at_judges(tmp_path: Path) -> None:
    area = gpd.GeoDataFrame(geometry=[shapely.box(0, -500, 2560, 0)], crs=GRID.crs)
    found = _scores(tmp_path, area=area)
    assert len(found.clearings) == 1
    assert found.total()["f1"] == 1
