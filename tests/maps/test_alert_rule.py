"""The rule of alerts, against a plain loop over pixels and looks."""

from __future__ import annotations

import datetime as dt
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from geossl.maps.alerts.rule import (
    CONFIRMED,
    DETECTED,
    NEVER,
    NONE,
    OUTSIDE,
    UNSEEN,
    Alerts,
    Look,
    Rule,
    follow,
    to_date,
    to_day,
)

RULE = Rule(since=100, expire=60)
PIXELS = 3

percents = st.lists(st.sampled_from([0, 5, 30, 50, 60, 85, 88, 95, 100, UNSEEN]), min_size=PIXELS, max_size=PIXELS)
histories = st.lists(st.tuples(st.integers(60, 260), percents), max_size=14)
"""Days (several scenes may share one) and what each scene says of three pixels."""


def _looks(history: list[tuple[int, list[int]]]) -> list[Look]:
    return [
        Look(day, f"scene-{number}", lambda percent=percent: np.array(percent, np.uint8))
        for number, (day, percent) in enumerate(history)
    ]


def _plainly(history: list[tuple[int, list[int]]], pixel: int, rule: Rule, ignored: int = NEVER) -> dict[str, object]:
    """What the rule says of one pixel, by probabilities and Bayes' rule, look by look."""
    posterior, run, last = 0.5, None, ignored
    withdrawn = NEVER
    for day in sorted({day for day, _ in history}):
        said = [percent[pixel] for at, percent in history if at == day and percent[pixel] != UNSEEN]
        if not said or day <= ignored or (run and run["confirmed"] != NEVER):
            continue
        odds = [min(max(p / 100, 0.1), 0.9) for p in said]
        mean = sum(math.log(p / (1 - p)) for p in odds) / len(odds)
        p = 1 / (1 + math.exp(-mean))
        if run and run["first"] < day - rule.expire:
            withdrawn = max(withdrawn, run["raised"])
            posterior, run = 0.5, None
        updated = posterior * p / (posterior * p + (1 - posterior) * (1 - p))
        if run is None and updated > 0.5 + 1e-6:
            run = {"first": day, "standing": last, "raised": NEVER, "confirmed": NEVER}
        elif updated <= 0.5 + 1e-6:
            withdrawn = max(withdrawn, run["raised"] if run else NEVER)
            posterior, run, last = 0.5, None, day
            continue
        posterior = updated
        if run["raised"] == NEVER and posterior >= 0.85 - 1e-5:
            run["raised"] = day
        if posterior >= 0.975 - 1e-5:
            run["confirmed"] = day
    run = run or {"first": NEVER, "standing": NEVER, "raised": NEVER, "confirmed": NEVER}
    return run | {"withdrawn": withdrawn}


@given(histories, st.lists(st.sampled_from([NEVER, 120, 200]), min_size=PIXELS, max_size=PIXELS))
def test_it_is_what_bayes_rule_says_pixel_by_pixel(history: list[tuple[int, list[int]]], judged: list[int]) -> None:
    found = follow(_looks(history), PIXELS, RULE, np.array(judged, np.int16))
    plain = [_plainly(history, pixel, RULE, judged[pixel]) for pixel in range(PIXELS)]
    for name in ("first", "standing", "raised", "confirmed", "withdrawn"):
        assert getattr(found, name).tolist() == [each[name] for each in plain], name


def _same(a: Alerts, b: Alerts) -> None:
    for name in ("odds", "peak", "standing", "first", "raised", "confirmed", "last", "withdrawn"):
        assert_array_equal(getattr(a, name), getattr(b, name), name)


@given(histories, st.randoms(use_true_random=False))
def test_scenes_may_arrive_in_any_order(history: list[tuple[int, list[int]]], rng: random.Random) -> None:
    looks = _looks(history)
    late = looks.copy()
    rng.shuffle(late)
    _same(follow(looks, PIXELS, RULE), follow(late, PIXELS, RULE))


@given(histories, st.integers(60, 260))
def test_a_cloudy_look_changes_nothing(history: list[tuple[int, list[int]]], day: int) -> None:
    cloudy = Look(day, "cloudy", lambda: np.full(PIXELS, UNSEEN, np.uint8))
    _same(follow(_looks(history), PIXELS, RULE), follow([*_looks(history), cloudy], PIXELS, RULE))


@given(histories)
def test_dates_are_in_order_and_confirmation_takes_two_days(history: list[tuple[int, list[int]]]) -> None:
    found = follow(_looks(history), PIXELS, RULE)
    confirmed, raised = found.confirmed != NEVER, found.raised != NEVER
    assert (raised | ~confirmed).all()
    assert (found.first[raised] <= found.raised[raised]).all()
    assert (found.standing[raised] < found.first[raised]).all()
    assert (found.first[confirmed] < found.confirmed[confirmed]).all()
    assert (found.confirmed[confirmed].astype(int) - found.first[confirmed] <= RULE.expire).all()
    assert (found.percent[raised] >= 85).all()


def _one(*said: tuple[int, int], rule: Rule = RULE) -> Alerts:
    return follow([Look(day, str(day), lambda p=p: np.array([p], np.uint8)) for day, p in said], 1, rule)


def _status(*said: tuple[int, int], rule: Rule = RULE) -> int:
    return int(_one(*said, rule=rule).status(rule.since)[0])


def test_two_sure_looks_make_a_confirmed_alert_and_a_clear_forest_withdraws_one() -> None:
    assert _status((110, 3), (120, 99)) == DETECTED
    assert _status((110, 3), (120, 99), (130, 99)) == CONFIRMED
    assert _status((110, 3), (120, 99), (130, 2)) == NONE
    # what is confirmed stays, whatever grows there
    assert _status((110, 3), (120, 99), (130, 99), (140, 1), (150, 1), (160, 1)) == CONFIRMED
    alert = _one((110, 3), (120, 99), (125, UNSEEN), (130, 99))
    assert (alert.standing[0], alert.first[0], alert.raised[0], alert.confirmed[0]) == (110, 120, 120, 130)


def test_two_images_of_one_day_are_one_look() -> None:
    assert _status((120, 99), (120, 99)) == DETECTED
    # and where they disagree, neither wins
    assert _status((120, 99), (120, 1)) == NONE


def test_an_alert_that_is_not_confirmed_in_time_is_withdrawn_by_the_next_look() -> None:
    assert _status((120, 99)) == DETECTED
    late = _one((120, 99), (185, 99))
    assert late.status(RULE.since)[0] == DETECTED
    assert late.first[0] == 185
    assert late.withdrawn[0] == 120


def test_what_was_cleared_before_is_not_watched() -> None:
    assert _status((80, 99), (90, 99), (120, 99)) == OUTSIDE
    # a doubt from before does not hide a clearing that follows
    assert _status((80, 3), (95, 60), (120, 99), (130, 99)) == CONFIRMED


def test_days_are_counted_as_glad_and_radd_count_them() -> None:
    assert to_day(dt.date(2015, 1, 1)) == 1
    assert to_date(to_day(dt.date(1985, 7, 1))) == dt.date(1985, 7, 1)


def test_the_test_is_pages_cumulative_sum() -> None:
    """A run's log odds are the largest sum over the looks since any of them, as Page (1954) has it."""
    rng = np.random.default_rng(0)
    percent = rng.integers(10, 80, 40)
    rule = Rule(since=0, expire=10_000)
    odds = np.log(percent / (100 - percent))
    for end in range(1, 41):
        found = _one(*((day, int(p)) for day, p in enumerate(percent[:end])), rule=rule)
        if found.confirmed[0] != NEVER:
            break
        sums = [odds[start:end].sum() for start in range(end)]
        assert found.odds[0] == pytest.approx(max(0, *sums), abs=1e-4)
    assert end > 10
