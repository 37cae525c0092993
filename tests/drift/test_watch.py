"""Usual scenes stay unnoticed at the promised rate; changed land is noticed; faults are called by name."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from geossl.drift.baseline import Baseline
from geossl.drift.describe import SIDE, Description, describe
from geossl.drift.faults import Watch
from geossl.errors import StoreError

WAVELENGTHS = (0.49, 0.56, 0.66, 0.84, 1.6, 2.2)
BANDS, PLACES = len(WAVELENGTHS), 36
MEAN, SPREAD = np.full(BANDS, 0.2), np.full(BANDS, 0.05)
"""Reflectance that 0 and 1 stand for."""


class Land:
    """A region whose places have their own levels, seasons and textures."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.level = self.rng.normal(0, 1, (PLACES, BANDS))
        self.swing = 0.4 * self.rng.normal(1, 0.3, (PLACES, 1)) * np.linspace(-1, 1, BANDS)
        rough = self.rng.normal(0, 1, (PLACES, BANDS, SIDE, SIDE))
        self.texture = ndimage.gaussian_filter(rough, (0, 0, 1.5, 1.5)) * 2

    def image(self, day: np.datetime64) -> NDArray[np.float32]:
        """(PLACES, BANDS, SIDE, SIDE)"""
        year = float((day - day.astype("datetime64[Y]")) / np.timedelta64(1, "D")) / 365.25
        mean = self.level + self.swing * np.sin(2 * np.pi * year)
        mean = mean + self.rng.normal(0, 0.03, (PLACES, BANDS)) + self.rng.normal(0, 0.03, BANDS)
        noise = self.rng.normal(0, 0.1, self.texture.shape)
        return (mean[..., None, None] + 0.3 * self.texture + noise).astype(np.float32)

    def scene(self, day: str, change=lambda image: image, cloudy: float = 0.3) -> Description:
        time = np.datetime64(day, "ns")
        image = change(self.image(time))
        valid = np.broadcast_to(self.rng.random((PLACES, 1, 1)) > cloudy, (PLACES, SIDE, SIDE))
        return describe(day, time, np.arange(PLACES), image, valid, image.mean(axis=(2, 3))[:, :4])


def days(*years: int) -> list[str]:
    return [str(np.datetime64(f"{year}-01-05") + np.timedelta64(18 * n, "D")) for year in years for n in range(20)]


@pytest.fixture(scope="module")
def land() -> Land:
    return Land(0)


@pytest.fixture(scope="module")
def watch(land: Land) -> Watch:
    return Watch(Baseline([land.scene(day) for day in days(2020, 2021)], false_alarms=0.05), WAVELENGTHS, MEAN, SPREAD)


def test_a_description_is_what_a_plain_loop_says(land: Land) -> None:
    image = land.image(np.datetime64("2020-05-05", "ns"))
    valid = np.ones((PLACES, SIDE, SIDE), bool)
    valid[3, :, :20], valid[7, :40] = False, False
    found = describe(
        "s", np.datetime64("2020-05-05", "ns"), np.arange(PLACES)[::-1], image, valid, np.zeros((PLACES, 0))
    )
    assert found.place.tolist() == [place for place in range(PLACES) if place != PLACES - 1 - 7]
    for row, place in enumerate(found.place):
        window = PLACES - 1 - place
        seen = image[window][:, valid[window]]
        np.testing.assert_allclose(found.mean[row], seen.mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(found.spread[row], 0.5 * np.log(seen.var(axis=1) + 1e-4), atol=1e-4)


def test_the_year_that_was_put_in_is_found_again(land: Land, watch: Watch) -> None:
    time = np.datetime64("2022-04-02", "ns")
    expected, known = watch.baseline.expected.at(time, np.arange(PLACES))
    assert known.all()
    truth = land.level + land.swing * np.sin(2 * np.pi * 91 / 365.25)
    assert np.abs(expected[:, :BANDS] - truth).max() < 0.1


@pytest.mark.slow
def test_usual_scenes_are_unusual_at_the_promised_rate_at_most() -> None:
    """Over several lands: the further year is like the history, so the rate is the promised one."""
    called = []
    for seed in range(8):
        land = Land(seed + 1)
        watch = Watch(
            Baseline([land.scene(day) for day in days(2020, 2021)], false_alarms=0.1), WAVELENGTHS, MEAN, SPREAD
        )
        findings = [watch.look(land.scene(day)) for day in days(2022)]
        assert [f.fault for f in findings if f is not None] == [None] * 20
        called += [f.unusual for f in findings if f is not None]
    assert np.mean(called) < 0.1 + 2 * np.sqrt(0.1 * 0.9 / len(called))


def half(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half of the places become other land."""
    out = image.copy()
    out[::2] = out[::2][:, ::-1] + 1.0
    return out


def hazy(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image + 1.2 * (0.49 / np.array(WAVELENGTHS, np.float32))[:, None, None] ** 2


def striped(image: NDArray[np.float32]) -> NDArray[np.float32]:
    out = image.copy()
    out[:, 2] += np.random.default_rng(5).normal(0, 0.1, SIDE).astype(np.float32)
    return out


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (half, None),
        (lambda image: image + np.float32(0.3), "offset"),
        (lambda image: image * np.float32(1.15) + np.float32(0.15 * 4), "gain"),
        (hazy, "haze"),
        (striped, "stripes"),
        (lambda image: np.roll(image, (1, 2), (2, 3)), "misplaced"),
    ],
    ids=["other land", "offset", "gain", "haze", "stripes", "misplaced"],
)
def test_what_was_done_to_a_scene_is_noticed_and_called_by_name(land: Land, watch: Watch, change, fault) -> None:
    for day in ("2022-03-03", "2022-08-20", "2022-11-11"):
        finding = watch.look(land.scene(day, change))
        assert finding is not None
        assert finding.fault == fault, finding.why
        assert finding.why
        assert finding.unusual or fault in ("stripes", "misplaced")
        if fault == "misplaced":
            assert "lies 2.2 px off (+1.0 down, +2.0 to the right)" in finding.why


def test_a_cloudy_scene_is_not_judged_and_a_short_history_says_so(land: Land, watch: Watch) -> None:
    assert watch.look(land.scene("2022-03-03", cloudy=0.95)) is None
    with pytest.raises(StoreError, match="7 clear scenes are too short a history"):
        Baseline([land.scene(day) for day in days(2020)[:7]])


def test_a_short_history_says_what_it_can_promise(land: Land) -> None:
    baseline = Baseline([land.scene(day) for day in days(2020)[:12]], false_alarms=0.01)
    assert baseline.promised == pytest.approx(1 / 13)
    assert baseline.threshold == baseline.distances.max()
