from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.demo.noise import distance, fractal, generator, smoothstep


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
def test_the_spectrum_falls_as_asked(beta: float) -> None:
    field = fractal(256, generator(0, "spectrum"), beta=beta)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert field.mean() == pytest.approx(0, abs=1e-3)
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    inside = (frequency > 0.02) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.08)


def test_fields_keep_to_their_wavelengths() -> None:
    field = fractal(128, generator(1), beta=1.0, longest=32, shortest=8)
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    outside = (frequency < 1 / 32 - 1e-6) | (frequency > 1 / 8 + 1e-6)
    assert power[outside].sum() < 1e-6 * power.sum()


def test_fields_wrap_around() -> None:
    field = fractal(128, generator(2), beta=3.0)
    seam = np.abs(field[:, 0] - field[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(field, axis=1)).mean()


def test_parts_draw_from_their_own_streams() -> None:
    assert generator(0, "a").random() == generator(0, "a").random()
    others = [generator(0, "b"), generator(1, "a"), generator(0, "a", 1)]
    assert len({generator(0, "a").random(), *(other.random() for other in others)}) == 4


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-9, 9))
@settings(max_examples=60, deadline=None)
def test_smoothstep_is_monotone_between_its_ends(low: float, width: float, x: float) -> None:
    if abs(width) < 1e-3:
        return
    values = smoothstep(np.array([low, x, x + 0.1, low + width]), low, low + width)
    assert values[0] == 0
    assert values[3] == pytest.approx(1)
    assert (values[2] - values[1]) * np.sign(width) >= 0


def test_distance_to_nothing_is_far() -> None:
    mask = np.zeros((5, 7), bool)
    assert (distance(mask) >= 7).all()
    mask[2, 3] = True
    assert distance(mask)[2, 0] == 3
