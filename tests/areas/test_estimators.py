"""Estimators against the papers' own worked examples, against R, and against their own spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from geossl.areas.design import allocate, expected_error, sample_size
from geossl.areas.estimators import StratifiedSample, estimate
from geossl.errors import SettingsError

# Olofsson et al. 2014, table 8: map in rows, reference in columns; deforestation, forest gain, stable forest,
# stable non-forest. Areas of table 8 in pixels of 30 m, here in hectares.
TABLE_8 = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09

# Stehman 2014, table 2: stratum, map and reference class of 40 points, and the strata's pixels.
STRATUM = "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10
MAPPED = "AAAAAAABBB" + "ABBBBBBBBB" + "BBCCCCCCBB" + "DDDDDDDDDD"
REFERENCE = "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"
PIXELS = np.array([40_000, 30_000, 20_000, 10_000])


def points(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map and reference class of every point of a count matrix."""
    mapped, reference = np.nonzero(counts)
    times = counts[mapped, reference]
    return np.repeat(mapped, times), np.repeat(reference, times)


def test_the_example_of_olofsson_2014_comes_out_digit_by_digit() -> None:
    """Section 5 and table 9, as printed.

    Of the producers' half-widths two are not what the paper's own equation 7 gives for its table (forest gain is
    printed as 0.23 and stable non-forest as 0.01, where equation 7 gives 0.25 and 0.02), so the equation is held.
    """
    mapped, reference = points(TABLE_8)
    found = estimate(StratifiedSample(mapped, HECTARES), mapped, reference, 4)
    assert found.area.value.round().tolist() == [21_158, 11_686, 285_770, 581_386]
    assert found.area.half.round().tolist() == [6_158, 3_756, 15_510, 16_282]
    assert found.users.value.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert found.users.half.round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert found.producers.value.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    assert found.producers.half.round(2).tolist() == [0.21, 0.25, 0.03, 0.02]
    assert (found.overall.value.round(2), found.overall.half.round(2)) == (0.95, 0.02)
    table_9 = [
        [0.0176, 0, 0.0013, 0.0011],
        [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    assert found.matrix.round(4).tolist() == table_9


def test_the_worked_example_of_stehman_2014_comes_out() -> None:
    """Sections 3 and 4 as printed; the last digits are those of R's mapaccuracy 0.1.2 on the same points.

    The paper prints 0.114 for the error of the producer's accuracy of B, with s² = 0.00 for stratum D where its
    own table 3 has 0.10; with that it is 0.117.
    """
    code = {letter: k for k, letter in enumerate("ABCD")}
    stratum, mapped, reference = ([code[c] for c in text] for text in (STRATUM, MAPPED, REFERENCE))
    found = estimate(StratifiedSample(stratum, PIXELS, units=PIXELS), mapped, reference, 4)
    share = found.area.value / PIXELS.sum()
    assert share[[0, 2]] == pytest.approx([0.35, 0.20])
    assert found.area.error[[0, 2]] / PIXELS.sum() == pytest.approx([0.0822478, 0.06427977], abs=1e-7)
    assert (found.overall.value, found.overall.error) == pytest.approx((0.63, 0.08464219), abs=1e-7)
    assert (found.users.value[1], found.users.error[1]) == pytest.approx((0.5744681, 0.1247822), abs=1e-7)
    assert (found.producers.value[1], found.producers.error[1]) == pytest.approx((0.7941176, 0.1165479), abs=1e-6)
    assert found.matrix[1, 2] == pytest.approx(0.08)


def test_errors_are_the_spread_of_repeated_samples_from_other_strata() -> None:
    """A small population counted out: 1,000 samples of it spread as each of them says."""
    rng = np.random.default_rng(5)
    stratum = np.repeat([0, 1, 2], [400, 1000, 2600])
    truth = np.where(rng.random(4000) < np.array([0.8, 0.3, 0.04])[stratum], 1, 0)
    mapped = np.where(rng.random(4000) < 0.9, truth, 1 - truth)
    size = 1 + 0.01 * rng.random(4000)
    units = np.bincount(stratum)
    area = np.bincount(stratum, weights=size)
    relative = size / (area / units)[stratum]
    draws = []
    for _ in range(1000):
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(stratum == h), n, replace=False) for h, n in enumerate((120, 200, 300))]
        )
        sample = StratifiedSample(stratum[chosen], area, units=units, size=relative[chosen])
        draws.append(estimate(sample, mapped[chosen], truth[chosen], 2))
    for name, right in (
        ("area", [size[truth == k].sum() for k in (0, 1)]),
        ("users", [size[(truth == k) & (mapped == k)].sum() / size[mapped == k].sum() for k in (0, 1)]),
        ("producers", [size[(truth == k) & (mapped == k)].sum() / size[truth == k].sum() for k in (0, 1)]),
        ("overall", size[truth == mapped].sum() / size.sum()),
    ):
        values = np.array([getattr(draw, name).value for draw in draws])
        errors = np.array([getattr(draw, name).error for draw in draws])
        assert values.mean(axis=0) == pytest.approx(np.array(right), rel=0.01), name
        assert errors.mean(axis=0) == pytest.approx(values.std(axis=0), rel=0.1), name


def test_intervals_of_shares_are_those_of_wilson_where_points_are_drawn_alike() -> None:
    """One stratum is a simple random sample: SciPy has its Wilson interval, but for n − 1 in the standard error."""
    truth = np.repeat([1, 0], [47, 8])
    found = estimate(StratifiedSample(np.zeros(55, int), [1.0]), np.ones(55, int), truth, 2)
    low, high = found.users.interval()
    oracle = stats.binomtest(47, 55).proportion_ci(0.95, "wilson")
    assert (low[1], high[1]) == pytest.approx((oracle.low, oracle.high), abs=2e-3)


def test_a_stratum_that_was_counted_out_has_no_error() -> None:
    sample = StratifiedSample([0, 0, 0, 1, 1], [3.0, 100.0], units=[3, 100])
    assert sample.total(np.array([1, 1, 0, 0, 0])).error == 0
    assert StratifiedSample([0, 1, 1], [1.0, 100.0], units=[1, 100]).total(np.array([1, 0, 0])).value == 1


def test_ground_that_the_assessed_map_leaves_out_counts_for_areas_alone() -> None:
    mapped, reference = points(TABLE_8)
    whole = estimate(StratifiedSample(mapped, HECTARES), mapped, reference, 4)
    holes = mapped.copy()
    holes[::7] = 255
    found = estimate(StratifiedSample(mapped, HECTARES), holes, reference, 4)
    assert found.area.value.tolist() == whole.area.value.tolist()
    assert found.overall.value == pytest.approx(whole.overall.value, abs=0.02)


def test_areas_refuse_a_stratum_without_points() -> None:
    with pytest.raises(ValueError, match="at least two points"):
        StratifiedSample([0, 0, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least two points"):
        StratifiedSample([0, 0], [1.0, 2.0], units=[10, 1])


def test_the_sample_size_of_olofsson_2014() -> None:
    """Table 5: 641 points for a standard error of 0.01; equal and proportional shares of them."""
    users = [0.70, 0.60, 0.90, 0.95]
    assert sample_size(HECTARES, users, 0.01) == 641
    assert sample_size(HECTARES, users, 0.01, units=HECTARES / 0.09) == 641
    units = (HECTARES / 0.09).astype(int)
    assert allocate(HECTARES, units, users, 641, minimum=2).tolist() == [13, 10, 205, 413]
    assert allocate(HECTARES, units, users, 641, minimum=100).tolist() == [100, 100, 146, 295]
    neyman = allocate(HECTARES, units, users, 641, minimum=2, rule="neyman")
    assert expected_error(HECTARES, users, neyman) == pytest.approx(0.01, abs=1e-4)
    assert expected_error(HECTARES, users, neyman) < expected_error(HECTARES, users, [13, 10, 205, 413])


def test_no_stratum_gets_more_points_than_it_has_pixels() -> None:
    out = allocate([5, 30, 1000], [5, 30, 1000], [0.7, 0.8, 0.9], 200, minimum=50)
    assert out.tolist() == [5, 30, 165]
    assert allocate([500, 5], [30, 500], [0.8, 0.8], 400, minimum=10).tolist() == [30, 370]
    assert allocate([1, 1], [10, 10], [0.8, 0.8], 1000, minimum=2).tolist() == [10, 10]


def test_too_few_points_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(SettingsError, match="--size 150"):
        allocate([1, 1, 1], [1000] * 3, [0.8] * 3, 100, minimum=50)
