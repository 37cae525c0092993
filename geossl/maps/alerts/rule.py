"""When is a pixel of forest called cleared? The rule that turns its looks into an alert.

A *look* is one clear observation of a pixel with the probability that no forest stands there. Looks are
put together by Bayes' rule, as for the RADD alerts (Reiche et al. 2018, Remote Sensing of Environment 204;
2021, Environmental Research Letters 16, 024005):

- No look alone may say more than :data:`BOUND` to 1 − BOUND.
- The first look that speaks for clearing begins a *run* with even odds; each later one updates its
  posterior probability.
- From :data:`LOW` on the pixel is an alert of low confidence (*detected*), from :data:`HIGH` on of high
  confidence (*confirmed*). As one look is bounded, that takes two at least.
- A run whose posterior falls to a half is dropped and its alert withdrawn; so is one that is not confirmed
  within a number of days, as the next look tells. What is confirmed stays.

In log odds this is a sum that is reset at 0: Page's (1954) cumulative sum test, which among all tests of
one rate of false alarms has the least worst-case delay (Moustakides 1986).

Two departures from RADD: a run begins with even odds, not with what the look before it said, since a reset
has forgotten that; and looks of one day are one look (their mean log odds), since neighbouring images of
one pass are not two witnesses.

The state of a pixel follows from its looks alone, sorted by day: a scene that arrives late, or again in
another revision, leaves no trace of its lateness. All days are counted from :data:`EPOCH`.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH = dt.date(2014, 12, 31)
"""Day 0 of alert dates, as GLAD and RADD alerts count them."""

NEVER = int(np.iinfo(np.int16).min)
"""The day of what has not happened."""

UNSEEN = 255
"""The percentage of a pixel that a look did not see."""

BOUND, LOW, HIGH = 0.9, 0.85, 0.975

NONE, DETECTED, CONFIRMED, OUTSIDE = 0, 1, 2, 255
"""Status of a pixel: forest without an alert, alert of low or high confidence, not watched."""

Days = NDArray[np.int16]


def to_day(date: dt.date) -> int:
    """Days since :data:`EPOCH`."""
    return (date - EPOCH).days


def to_date(day: int) -> dt.date:
    """The inverse of :func:`to_day`."""
    return EPOCH + dt.timedelta(days=int(day))


def _odds(probability: Any) -> Any:
    return np.log(probability / (1 - probability))


_LOG_ODDS = _odds(np.clip(np.arange(256) / 100, 1 - BOUND, BOUND)).astype(np.float32)
"""Log odds by percentage."""

# a sum of rounded log odds reaches the threshold that it stands for
_LOW, _HIGH = (float(_odds(threshold)) - 1e-4 for threshold in (LOW, HIGH))


@dataclass(frozen=True, slots=True)
class Look:
    """What one scene says of some pixels."""

    day: int
    scene: str
    read: Callable[[], NDArray[np.uint8]] = field(repr=False, compare=False)
    """(N,) probability in percent that no forest stands there; :data:`UNSEEN` where nothing clear was seen."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What may differ between places."""

    since: int
    """Day from which alerts count. A pixel that was one before is no forest, and not watched."""
    expire: int = 180
    """Days within which a run must be confirmed."""


@dataclass(slots=True)
class Alerts:
    """What the looks so far say of N pixels; every array is (N,)."""

    odds: NDArray[np.float32]
    """Log odds of the run that goes on; 0 where none does."""
    peak: NDArray[np.float32]
    """The highest that they have been in this run."""
    standing: Days
    """Last clear look before the run: until then there was forest."""
    first: Days
    """The run's first look: the date of the alert, once it is one."""
    raised: Days
    """The look that made it an alert."""
    confirmed: Days
    """The look that confirmed it."""
    last: Days
    """The last clear look that did not belong to a run."""
    withdrawn: Days
    """The day on which an alert was raised that later looks withdrew; of several, the last."""

    @classmethod
    def none(cls, pixels: int) -> Alerts:
        """Before the first look."""
        odds, peak = np.zeros(pixels, np.float32), np.zeros(pixels, np.float32)
        standing, first, raised, confirmed, last, withdrawn = (np.full(pixels, NEVER, np.int16) for _ in range(6))
        return cls(odds, peak, standing, first, raised, confirmed, last, withdrawn)

    def status(self, since: int) -> NDArray[np.uint8]:
        """(N,) :data:`NONE`, :data:`DETECTED`, :data:`CONFIRMED`, or :data:`OUTSIDE` for an alert before ``since``."""
        alert = self.raised != NEVER
        status = alert.astype(np.uint8) + (self.confirmed != NEVER)
        status[alert & (self.raised < since)] = OUTSIDE
        return status

    @property
    def percent(self) -> NDArray[np.uint8]:
        """(N,) the highest posterior probability of clearing in this run; 0 without one."""
        rounded = np.rint(100 / (1 + np.exp(-self.peak))).astype(np.uint8)
        return np.where(self.first != NEVER, rounded, np.uint8(0))


def follow(looks: Sequence[Look], pixels: int, rule: Rule, ignored: Days | None = None) -> Alerts:
    """What all looks, in whatever order they are given, say of some pixels.

    Parameters
    ----------
    pixels:
        N, how many they are.
    ignored:
        (N,) day up to which looks do not count, since a person has judged them: there was forest.
    """
    alerts = Alerts.none(pixels)
    if ignored is not None:
        alerts.last = ignored.copy()
    ordered = sorted(looks, key=lambda look: (look.day, look.scene))
    for day, together in itertools.groupby(ordered, key=lambda look: look.day):
        odds, seen = _of_one_day(together, pixels)
        if ignored is not None:
            seen &= day > ignored
        _update(alerts, day, odds, seen, rule)
    return alerts


def _of_one_day(looks: Iterator[Look], pixels: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean log odds of the looks of a day, and where there is one; both (N,)."""
    total, count = np.zeros(pixels, np.float32), np.zeros(pixels, np.uint8)
    for look in looks:
        percent = look.read()
        seen = percent != UNSEEN
        total += np.where(seen, _LOG_ODDS[percent], np.float32(0))
        count += seen
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0


def _update(alerts: Alerts, day: int, odds: NDArray[np.float32], seen: NDArray[np.bool_], rule: Rule) -> None:
    """Take the look of a day into account, in place."""
    a = alerts
    seen = seen & (a.confirmed == NEVER)
    running = seen & (a.odds > 0)
    # an int16 day minus NEVER would overflow
    expired = running & (a.first < day - rule.expire)
    _drop(a, expired)
    after = a.odds + np.where(seen, odds, np.float32(0))
    ended = running & ~expired & (after <= 0)
    _drop(a, ended)
    after[ended] = 0

    begins = seen & (a.odds == 0) & (after > 0) & ~ended
    a.first[begins] = day
    a.standing[begins] = a.last[begins]
    a.last[seen & (after <= 0)] = day
    a.odds = np.maximum(after, 0)
    a.peak = np.maximum(a.peak, a.odds)
    a.raised[seen & (a.raised == NEVER) & (a.odds >= _LOW)] = day
    a.confirmed[seen & (a.odds >= _HIGH)] = day


def _drop(alerts: Alerts, which: NDArray[np.bool_]) -> None:
    """Forget the runs of some pixels."""
    was = which & (alerts.raised != NEVER)
    alerts.withdrawn[was] = alerts.raised[was]
    alerts.odds[which] = alerts.peak[which] = 0
    for days in (alerts.standing, alerts.first, alerts.raised, alerts.confirmed):
        days[which] = NEVER
