"""Labels that come as shapes: polygons, lines or points with a class, or clearings with their dates."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geossl.cube.label_report import LabelReport
from geossl.cube.settings import Value
from geossl.cube.vectors import pick_column, read_vectors, set_one
from geossl.errors import LabelError
from geossl.grid import Tile
from geossl.legend import CHANGE, NO_LABEL

NO_CHANGE, CLEARING = CHANGE.codes

_MOST_VALUES = 254
"""Values beyond which a column is none of classes."""


@dataclass(frozen=True)
class Recent:
    """Labels of land cover that are dated near the task's image."""

    column: str
    date: dt.date
    days: int


class Shapes:
    """Polygons, lines or points with a column that names their class.

    Parameters
    ----------
    recent:
        Use only those that are dated near a day.
    later_wins:
        What becomes of ground that shapes of different classes claim: the class of the later one; else no label.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        layer: str | None,
        column: str | None,
        crs: str,
        *,
        recent: Recent | None = None,
        later_wins: bool = False,
    ) -> None:
        self._vectors = read_vectors(paths, layer, crs)
        where = ", ".join(map(str, paths))
        if column is None:
            raise LabelError(
                f"labels {where} do not say which column names the class", set_one("column", self._vectors.frame)
            )
        values = pick_column(self._vectors, column, "column", paths)
        self._classes = np.array([_value(value, where, column) for value in values], dtype=object)
        if (many := len(set(self._classes))) > _MOST_VALUES:
            raise LabelError(
                f"column {column!r} of {where} holds {many} different values, more than a legend can have classes",
                set_one("column", self._vectors.frame),
            )
        self._dated = np.ones(len(values), bool)
        if recent is not None:
            first, last = days(pick_column(self._vectors, recent.column, "date_column", paths))
            away = np.maximum(first - np.datetime64(recent.date), np.datetime64(recent.date) - last)
            self._dated = away <= np.timedelta64(recent.days, "D")  # NaT is near to nothing
        self._later_wins = later_wins
        self._asked = np.zeros(len(values), bool)
        self._overlaps: Counter[tuple[int, int]] = Counter()

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees."""
        return self._vectors.bounds

    def values(self, tiles: list[Tile]) -> list[Value]:
        found = {value for tile in tiles for value in self._classes[self._usable(tile)]}
        return sorted(found - {None}, key=lambda value: (isinstance(value, str), value))

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        near = self._usable(tile)
        codes = np.array([table.get(value, NO_LABEL) for value in self._classes[near]], np.uint8)
        near, codes = near[codes != NO_LABEL], codes[codes != NO_LABEL]
        self._asked[near] = True
        self._vectors.note(near, tile)
        nothing = np.zeros(tile.shape, np.uint8)
        claims: dict[int, NDArray[np.uint8]] = {}
        for code in np.unique(codes).tolist():
            of_class = near[codes == code]
            claims[code] = self._vectors.burn(of_class, np.ones(of_class.size, np.uint8), tile, nothing)
        claimed = sum(claims.values(), nothing)  # at most 254 classes
        labelled = np.full(tile.shape, NO_LABEL, np.uint8)
        if (claimed > 1).any():
            for first, second in itertools.combinations(claims, 2):
                self._overlaps[first, second] += int((claims[first] & claims[second]).sum())
            if self._later_wins:
                return self._vectors.burn(near, codes, tile, labelled)
        for code, claim in claims.items():
            labelled[(claim == 1) & (claimed == 1)] = code
        return labelled

    def report(self, names: Mapping[int, str]) -> LabelReport:
        found = self._vectors.findings(self._asked)
        found.blank = self._vectors.touching(self._classes == None)  # noqa: E711  # element by element
        found.other_dates = self._vectors.touching(~self._dated).count
        found.later_wins = self._later_wins
        found.overlaps = [(names[a], names[b], count) for (a, b), count in self._overlaps.most_common() if count]
        return found

    def _usable(self, tile: Tile) -> NDArray[np.intp]:
        near = self._vectors.near(tile)
        return near[self._dated[near]]


class DatedShapes:
    """Clearings with their dates, which make change labels for any two states.

    Cleared after ``before`` and not after ``after``: a clearing. Cleared earlier, at an unknown date, or in a
    year that lies only partly between the two: no label. All other ground that was looked at: no change.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        layer: str | None,
        column: str,
        crs: str,
        dates: tuple[dt.date, dt.date],
        area: Area | None,
    ) -> None:
        self._vectors = read_vectors(paths, layer, crs)
        first, last = days(pick_column(self._vectors, column, "date_column", paths))
        if len(first) and np.isnat(first).all():
            raise LabelError(
                f"column {column!r} of {', '.join(map(str, paths))} holds no date that can be read",
                "write dates as 2024-03-31, or years as 2024",
            )
        self._inside, self._other, straddling = between(first, last, dates)
        self._undated, self._straddling = np.isnat(first), straddling
        self._area = area

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees."""
        return self._vectors.bounds

    def values(self, tiles: list[Tile]) -> list[Value]:
        touched = [self._vectors.near(tile).size for tile in tiles]
        return [NO_CHANGE, CLEARING] if any(touched) else []

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        near = self._vectors.near(tile)
        self._vectors.note(near, tile)
        codes = np.full(tile.shape, table[NO_CHANGE], np.uint8)
        # ground cleared twice was cleared in between if one of the dates says so
        for chosen, code in ((self._other, NO_LABEL), (self._inside, table[CLEARING])):
            which = near[chosen[near]]
            codes = self._vectors.burn(which, np.full(which.size, code), tile, codes)
        if self._area is not None:
            codes[~self._area.looked_at(tile)] = NO_LABEL
        return codes

    def report(self, names: Mapping[int, str]) -> LabelReport:  # noqa: ARG002  # of the protocol
        found = self._vectors.findings(np.ones(len(self._undated), bool))
        found.undated = self._vectors.touching(self._undated)
        found.undecided = self._vectors.touching(self._straddling).count
        return found


class Area:
    """The ground that was looked at for changes."""

    def __init__(self, path: Path, crs: str) -> None:
        self._vectors = read_vectors([path], None, crs)

    def looked_at(self, tile: Tile) -> NDArray[np.bool_]:
        """(H, W)"""
        near = self._vectors.near(tile)
        return self._vectors.burn(near, np.ones(near.size, np.uint8), tile, np.zeros(tile.shape, np.uint8)) > 0


def between(
    first: NDArray[np.datetime64], last: NDArray[np.datetime64], dates: tuple[dt.date, dt.date]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which changes, each on some day of first … last, came after the earlier date and not after the later one.

    Returns
    -------
    inside, neither, straddling:
        Surely between the dates; neither that nor surely after them (earlier, unknown or straddling); and which
        of these may be on either side of a date.
    """
    before, after = (np.datetime64(date) for date in dates)
    inside = (first > before) & (last <= after)
    neither = ~inside & ~(first > after)
    straddling = neither & (last > before) & (first <= after)
    return inside, neither, straddling


def days(values: pd.Series[Any]) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    """First and last day that each date may mean, NaT where there is none: a bare year is any of its days."""
    text = values.astype("string").str.strip()
    years = text.str.fullmatch(r"\d{4}(\.0)?").fillna(value=False)
    ends = []
    for day in ("-01-01", "-12-31"):
        whole = text.mask(years, text.str[:4] + day)
        times = pd.to_datetime(whole, errors="coerce", utc=True, format="ISO8601")
        ends.append(times.dt.tz_localize(None).to_numpy("datetime64[D]"))
    return ends[0], ends[1]


def _value(value: Any, where: str, column: str) -> Value | None:
    """A class as settings write it: a whole number or a word; None where the file says nothing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float | np.integer | np.floating | np.bool_) and float(value).is_integer():
        return int(value)
    raise LabelError(
        f"column {column!r} of {where} holds {value!r}, neither a whole number nor a word",
        "name the column of the class; categories are words or whole numbers",
    )
