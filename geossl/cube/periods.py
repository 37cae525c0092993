"""Periods of whole months, as composites name them: ``2020-06-01/P4M`` is June to September 2020."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np

_PERIOD = re.compile(r"(\d{4}-(?:0[1-9]|1[0-2]))-01/P([1-9]\d*)M")
_MONTHS = re.compile(r"(\d{4})(?:-(0[1-9]|1[0-2]))?(?:/(\d{4})(?:-(0[1-9]|1[0-2]))?)?")


def parse(value: Any) -> dt.date | str:
    """A day, or a period by its name or as people write it: ``2020``, ``2020-06`` or ``2020-06/2020-09``.

    Raises
    ------
    ValueError
        It is neither, or ends before it begins.
    """
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    text = str(value).strip()
    if _PERIOD.fullmatch(text):
        return text
    if found := _MONTHS.fullmatch(text):
        year, month, last_year, last_month = found.groups()
        first = np.datetime64(f"{year}-{month or '01'}", "M")
        # a year alone ends in December
        end = f"{last_year}-{last_month or '12'}" if last_year else f"{year}-{month or '12'}"
        months = int((np.datetime64(end, "M") - first).astype(int)) + 1
        if months < 1:
            raise ValueError(f"{text} ends before it begins")
        return f"{first}-01/P{months}M"
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "should be a day such as 2020-10-01, or a period such as 2020, 2020-06 or 2020-06/2020-09"
        ) from None


def bounds(period: str) -> tuple[np.datetime64, np.datetime64]:
    """First month of a period, and the month after its last (datetime64[M])."""
    start, _, duration = period.partition("/")
    first = np.datetime64(start[:7], "M")
    return first, first + np.timedelta64(int(duration.removeprefix("P").removesuffix("M")), "M")


def middle(period: str) -> np.datetime64:
    """datetime64[ns]. As a composite's time it lets the nearest composite to a date be the one that contains it."""
    start, end = (month.astype("datetime64[ns]") for month in bounds(period))
    return np.datetime64(start + (end - start) // 2, "ns")


def day(when: dt.date | str) -> dt.date:
    """A day itself, or the middle of a period."""
    return when if isinstance(when, dt.date) else middle(when).astype("datetime64[D]").item()
