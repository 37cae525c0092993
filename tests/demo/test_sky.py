from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from geossl.demo.sky import Sky, Sun, build_sky, illumination, sun, through
from geossl.demo.world import World

WET = date(2022, 2, 8)


@pytest.mark.parametrize(
    ("day", "latitude", "elevation", "azimuth"),
    [
        # hour angle −22.5°; at the equinox on the equator the sun stands due east
        (date(2022, 3, 22), 0.0, 67.5, 90.0),
        # spherical triangle with declination ±23.45°
        (date(2022, 6, 21), -9.0, 50.8, 33.7),
        (date(2022, 12, 21), -9.0, 64.1, 126.6),
    ],
)
def test_the_sun_stands_where_astronomy_puts_it(day: date, latitude: float, elevation: float, azimuth: float) -> None:
    found = sun(day, latitude)
    assert found.elevation == pytest.approx(elevation, abs=0.6)
    assert found.azimuth == pytest.approx(azimuth, abs=0.6)


def test_slopes_towards_the_sun_are_lit(world: World) -> None:
    east = world.terrain.slope[1]
    light = illumination(world.terrain, Sun(50.0, 90.0))  # from the east: ground that falls eastwards is bright
    assert np.corrcoef(light.ravel(), -east.ravel())[0, 1] > 0.95
    assert light.mean() == pytest.approx(1, abs=0.03)


def test_shadows_fall_away_from_the_sun() -> None:
    light = Sun(60.0, 90.0)
    sky = build_sky(256, 0, WET, light)
    assert 0.2 < (sky.cloud > 0.5).mean() < 0.5
    spectrum = np.fft.fft2(sky.shadow) * np.conj(np.fft.fft2(sky.cloud))
    row, column = np.unravel_index(np.argmax(np.fft.ifft2(spectrum).real), (256, 256))
    height = (256 - column) * 10 * np.tan(np.radians(light.elevation))
    assert row == 0
    assert 850 < height < 2300


def test_clouds_whiten_and_shadows_darken() -> None:
    size, bands = 4, (0.49, 0.84, 2.2)
    nothing = np.zeros((size, size), np.float32)
    ground = np.full((3, size, size), 0.2, np.float32)
    clear = Sky(nothing, nothing + 0.7, nothing, nothing, nothing)
    np.testing.assert_allclose(through(clear, ground, bands), ground)
    cloudy = through(Sky(nothing + 1, nothing + 0.7, nothing, nothing, nothing), ground, bands)
    assert cloudy[0].mean() == pytest.approx(0.7)
    assert cloudy[2].mean() < 0.6 * cloudy[0].mean()
    shaded = through(Sky(nothing, nothing + 0.7, nothing, nothing + 1, nothing), ground, bands)
    assert (shaded < 0.5 * ground).all()
    hazy = through(Sky(nothing, nothing + 0.7, nothing, nothing, nothing + 0.1), 0.1 * ground, bands)
    assert hazy[0].mean() > hazy[1].mean() > hazy[2].mean()
