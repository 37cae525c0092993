"""IR-MAD beside a plain implementation of the paper, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, stats

from geossl.downstream.irmad import irmad
from geossl.errors import LabelError


def _scene(seed: int, bands: int = 4, pixels: int = 4000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two dates that go together but for noise, a gain and haze; the first tenth of the pixels changed."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(pixels, bands)) @ rng.normal(size=(bands, bands)) + rng.normal(size=bands)
    after = before * rng.uniform(0.5, 2, bands) + rng.normal(size=bands) + 0.1 * rng.normal(size=before.shape)
    after[: pixels // 10] = rng.permutation(after[: pixels // 10]) + 2
    return before, after


def _reference(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As the paper writes it: eigenvalues of its equation 3, pixel loops left to NumPy."""
    p = x.shape[1]
    weight, last = np.ones(len(x)), np.full(p, np.inf)
    while True:
        covariance = np.cov(np.hstack([x, y]).T, aweights=weight, ddof=0)
        sxx, sxy, syy = covariance[:p, :p], covariance[:p, p:], covariance[p:, p:]
        squared, a = linalg.eigh(sxy @ np.linalg.inv(syy) @ sxy.T, sxx)
        rho = np.sqrt(squared)
        b = np.linalg.inv(syy) @ sxy.T @ a
        b /= np.sqrt(np.diagonal(b.T @ syy @ b))
        mad = (x - np.average(x, axis=0, weights=weight)) @ a - (y - np.average(y, axis=0, weights=weight)) @ b
        z = (mad**2 / (2 * (1 - rho))).sum(axis=1)
        if np.abs(rho - last).max() < 1e-3:
            return z, rho
        weight, last = 1 - stats.chi2.cdf(z, p), rho


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_plain_implementation(seed: int) -> None:
    before, after = _scene(seed)
    found = irmad(before, after)
    z, rho = _reference(before, after)
    np.testing.assert_allclose(found.statistic(before, after), z, rtol=1e-6)
    np.testing.assert_allclose(found.correlations, rho[::-1], rtol=1e-9)
    assert found.iterations > 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
@example(587)  # weights would end on four pixels that fit each other exactly
def test_affine_transforms_of_a_date_change_nothing(seed: int) -> None:
    before, after = _scene(seed, bands=3, pixels=1500)
    rng = np.random.default_rng(seed + 1)

    def transformed(x: NDArray[np.float64]) -> NDArray[np.float64]:
        mix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        return x @ mix * rng.uniform(0.01, 100, 3) + rng.normal(scale=50, size=3)

    other = transformed(before), transformed(after)
    expected = irmad(before, after).statistic(before, after)
    np.testing.assert_allclose(irmad(*other).statistic(*other), expected, rtol=1e-5, atol=1e-6)


def test_without_change_plain_mad_follows_the_chi_square_distribution() -> None:
    before, after = (x[2000:] for x in _scene(0, pixels=20_000))
    found = irmad(before, after, iterations=1)
    assert stats.kstest(found.no_change(found.statistic(before, after)), "uniform").statistic < 0.02


def test_what_changed_is_unlikely_to_be_no_change() -> None:
    before, after = _scene(0, pixels=20_000)
    found = irmad(before, after)
    probability = found.no_change(found.statistic(before, after))
    assert np.quantile(probability[:2000], 0.95) < 1e-6 < np.quantile(probability[2000:], 0.2)


def test_a_band_that_says_nothing_new_is_left_out() -> None:
    before, after = _scene(0)
    twice = [np.column_stack([x, x[:, 0] * 3 + 1, np.full(len(x), 7.0)]) for x in (before, after)]
    found = irmad(*twice)
    assert found.freedom == 4
    np.testing.assert_allclose(
        found.statistic(*twice), irmad(before, after).statistic(before, after), rtol=1e-4, atol=1e-4
    )


def test_too_few_pixels_and_a_blank_date_are_refused() -> None:
    before, after = _scene(0)
    with pytest.raises(LabelError, match="6 pixels"):
        irmad(before[:6], after[:6])
    with pytest.raises(LabelError, match="one and the same"):
        irmad(before, np.ones_like(after))
