"""What the first scene decides about the grid."""

from __future__ import annotations

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geossl.errors import SettingsError
from geossl.grid import Grid
from geossl.project.grid import choose_grid
from geossl.project.settings import GridSettings

UTM = GeoBox((1428, 1128), Affine(30, 0, 301905, 0, -30, 4154085), "EPSG:32612")
DEGREES = GeoBox((377, 697), Affine(0.000808, 0, -74.72, 0, -0.000808, -8.28), "EPSG:4326")


def test_a_scene_in_metres_gives_the_grid_that_needs_no_resampling() -> None:
    grid = choose_grid(GridSettings(), UTM)
    assert grid == Grid("EPSG:32612", 30.0, 1024, (301905.0, 4154085.0))
    assert grid.is_aligned(UTM)


def test_a_scene_in_degrees_gives_its_utm_zone_and_a_like_pixel_size() -> None:
    grid = choose_grid(GridSettings(), DEGREES)
    assert grid.crs == "EPSG:32718"
    assert grid.resolution == 89.0
    assert grid.origin == (0.0, 0.0)


def test_named_settings_win() -> None:
    assert choose_grid(GridSettings(crs="EPSG:32613", resolution=15, tile=256), UTM) == Grid("EPSG:32613", 15.0, 256)
    assert choose_grid(GridSettings(resolution=90), DEGREES).resolution == 90


def test_a_rotated_scene_is_resampled_onto_a_plain_grid() -> None:
    rotated = GeoBox((10, 10), Affine.translation(5e5, 4e6) * Affine.rotation(10) * Affine.scale(30, -30), "EPSG:32612")
    assert choose_grid(GridSettings(), rotated) == Grid("EPSG:32612", 30.0)


def test_degrees_are_refused_as_a_grid() -> None:
    with pytest.raises(SettingsError, match="not projected"):
        choose_grid(GridSettings(crs="EPSG:4326", resolution=10), UTM)


def test_a_scene_on_web_mercator_gives_its_utm_zone() -> None:
    """At 38° north its pixels of 30 m are 24 m on the ground, and areas would be wrong by 60 %."""
    mercator = GeoBox((1917, 2181), Affine(30, 0, -13651650, 0, -30, 4576290), "EPSG:3857")
    assert choose_grid(GridSettings(), mercator) == Grid("EPSG:32610", 24.0)
