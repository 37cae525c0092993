"""How good are alerts? Commission, omission and delay per month, against clearings whose days are known.

A *clearing* is one polygon of the reference, as far as it lies on watched forest. It is found where at least
half of its pixels have an alert, on the day by which half of them had; it could be seen once half of them had
been seen, clear of clouds, on its day or later. So its delay has two parts: the clouds', which no method can
shorten, and the method's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from geossl.grid import Grid, Tile
from geossl.maps.alerts.looks import LookFolder, SceneLook
from geossl.maps.alerts.patches import AlertPixels
from geossl.maps.alerts.rule import CONFIRMED, NEVER, UNSEEN, to_date
from geossl.maps.alerts.tiles import AlertTiles

_LATER = int(np.iinfo(np.int16).max)
"""A day that has not come."""


@dataclass(frozen=True)
class ClearingScore:
    """One clearing of the reference."""

    day: int
    hectares: float
    """On watched forest."""
    found: float
    """Hectares of it with an alert."""
    confirmed: float
    seen: int | None
    """The day by which half of it had been seen; None: not yet."""
    detected: int | None
    """The day by which half of it had an alert."""
    sure: int | None
    """The day by which half of it was confirmed."""
    dated: float | None
    """The middle between the last look at forest and the first at the clearing, of its median pixel."""


@dataclass(frozen=True)
class AlertScore:
    """The alerts that were raised in one month, in hectares."""

    month: str
    raised: float
    wrong: float
    """Where nothing was cleared by then."""
    sure: float
    """Confirmed ones among them."""
    sure_wrong: float
    withdrawn: float
    """Raised in this month, and withdrawn later; single pixels count too."""


@dataclass(frozen=True)
class Scores:
    """All clearings and alerts since monitoring began."""

    clearings: list[ClearingScore] = field(default_factory=list)
    """In order of day."""
    alerts: list[AlertScore] = field(default_factory=list)
    until: int = 0
    """The newest look."""
    unwatched: float = 0.0
    """Hectares that were cleared where no forest was watched: no alert could tell."""

    def months(self) -> Iterator[tuple[str, list[ClearingScore]]]:
        """The clearings of each month that has some."""
        by_month: dict[str, list[ClearingScore]] = {}
        for clearing in self.clearings:
            by_month.setdefault(_month(clearing.day), []).append(clearing)
        yield from by_month.items()

    def total(self, *, sure: bool = False) -> dict[str, float]:
        """Hectares, precision, recall and F1 of all alerts, or of the confirmed ones."""
        true = sum(c.confirmed if sure else c.found for c in self.clearings)
        raised = sum(a.sure if sure else a.raised for a in self.alerts)
        wrong = sum(a.sure_wrong if sure else a.wrong for a in self.alerts)
        there = sum(c.hectares for c in self.clearings)
        precision = (raised - wrong) / raised if raised else float("nan")
        recall = true / there if there else float("nan")
        both = raised + there
        return {
            "cleared": there,
            "alerts": raised,
            "commission": 1 - precision,
            "omission": 1 - recall,
            "f1": 2 * true / both if both else float("nan"),
            "area_error": (raised - there) / there if there else float("nan"),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; days as ISO dates."""
        return {
            "until": to_date(self.until).isoformat(),
            "unwatched": self.unwatched,
            "all": self.total(),
            "confirmed": self.total(sure=True),
            "months": {month: summary(clearings) for month, clearings in self.months()},
            "alerts": {
                a.month: {"raised": a.raised, "wrong": a.wrong, "confirmed": a.sure, "withdrawn": a.withdrawn}
                for a in self.alerts
            },
        }


def summary(clearings: Sequence[ClearingScore]) -> dict[str, float]:
    """Some clearings in figures: number, hectares, omission, median days of delay and of the date's error."""
    hectares = sum(c.hectares for c in clearings)
    found = [c for c in clearings if c.detected is not None]
    return {
        "clearings": len(clearings),
        "not_yet_seen": sum(c.seen is None for c in clearings),
        "hectares": hectares,
        "found": len(found),
        "omission": 1 - sum(c.found for c in clearings) / hectares,
        "days_clouds": _median([c.seen - c.day for c in clearings if c.seen is not None]),
        "days_detected": _median([c.detected - c.day for c in found if c.detected is not None]),
        "days_confirmed": _median([c.sure - c.day for c in clearings if c.sure is not None]),
        "days_method": _median([c.detected - c.seen for c in found if c.detected is not None and c.seen is not None]),
        "date_error": _median([abs(c.dated - c.day) for c in clearings if c.dated is not None]),
    }


def score_alerts(
    alerts: AlertPixels,
    store: AlertTiles,
    clearings: gpd.GeoDataFrame,
    days: NDArray[np.int16],
    grid: Grid,
    tiles: Sequence[str],
    forest: Callable[[str], NDArray[np.bool_]],
    looks: Sequence[SceneLook],
    folder: LookFolder,
    since: int,
    area: gpd.GeoDataFrame | None = None,
) -> Scores:
    """Judge published alerts by a reference.

    Parameters
    ----------
    alerts:
        The pixels that were published.
    store:
        All of them, and those that were withdrawn.
    clearings, days:
        Polygons in the grid's coordinates, and the day of each.
    area:
        Polygons of the ground where the reference is complete; None: everywhere.
    """
    until = max((look.day for look in looks), default=since)
    hectare = grid.resolution**2 / 1e4
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("event", "seen", "raised", "confirmed", "dated")}
    raised: list[NDArray[np.int16]] = []
    right: list[NDArray[np.bool_]] = []
    sure: list[NDArray[np.bool_]] = []
    withdrawn: list[NDArray[np.int16]] = []
    unwatched = 0
    for tile_id in tiles:
        tile = grid.tile(tile_id)
        event = _burn(clearings, np.arange(1, len(clearings) + 1), tile) - 1
        looked = np.ones(tile.shape, bool) if area is None else _burn(area, np.ones(len(area)), tile) > 0
        day = np.where(event >= 0, days[event], np.int16(_LATER))
        bands = _bands(alerts, tile)
        here = (bands["raised"] != NEVER) & looked
        raised.append(bands["raised"][here])
        right.append((day <= bands["raised"])[here] & (day >= since)[here])
        sure.append((bands["status"] >= CONFIRMED)[here])

        gone = store.read(tile_id)["withdrawn"]
        withdrawn.append(gone[looked & (gone >= since)])

        cleared, watched = (event >= 0) & looked & (day >= since) & (day <= until), forest(tile_id)
        unwatched += int(np.count_nonzero(cleared & ~watched))
        judged = cleared & watched
        ours = {name: np.where(values == NEVER, np.int16(_LATER), values)[judged] for name, values in bands.items()}
        # an alert from before the trees fell has found nothing
        early = ours["raised"] < day[judged]
        columns["event"].append(event[judged])
        columns["seen"].append(_seen(looks, folder, tile_id, judged, day[judged]))
        columns["raised"].append(np.where(early, _LATER, ours["raised"]))
        columns["confirmed"].append(np.where(early, _LATER, ours["confirmed"]))
        middle = (ours["standing"].astype(np.float64) + ours["first"]) / 2
        columns["dated"].append(np.where(early | (ours["standing"] == _LATER), np.inf, middle))
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Scores(
        list(_clearings(found, days, hectare)),
        list(
            _alerts(
                np.concatenate(raised),
                np.concatenate(right),
                np.concatenate(sure),
                np.concatenate(withdrawn),
                hectare,
            )
        ),
        until,
        unwatched * hectare,
    )


def _clearings(found: dict[str, NDArray[Any]], days: NDArray[np.int16], hectare: float) -> Iterator[ClearingScore]:
    order = np.argsort(found["event"], kind="stable")
    events, starts = np.unique(found["event"][order], return_index=True)
    scores = []
    for event, rows in zip(events, np.split(order, starts[1:]), strict=True):
        half = (len(rows) + 1) // 2 - 1

        def by_half(name: str, rows: NDArray[Any] = rows, half: int = half) -> int | None:
            day = int(np.partition(found[name][rows], half)[half])
            return None if day == _LATER else day

        dated = found["dated"][rows]
        dated = dated[np.isfinite(dated)]
        scores.append(
            ClearingScore(
                day=int(days[event]),
                hectares=len(rows) * hectare,
                found=float((found["raised"][rows] != _LATER).sum() * hectare),
                confirmed=float((found["confirmed"][rows] != _LATER).sum() * hectare),
                seen=by_half("seen"),
                detected=by_half("raised"),
                sure=by_half("confirmed"),
                dated=float(np.median(dated)) if dated.size else None,
            )
        )
    yield from sorted(scores, key=lambda score: score.day)


def _alerts(
    raised: NDArray[np.int16],
    right: NDArray[np.bool_],
    sure: NDArray[np.bool_],
    withdrawn: NDArray[np.int16],
    hectare: float,
) -> Iterator[AlertScore]:
    months, gone = (_months(days) for days in (raised, withdrawn))
    for month in np.union1d(months, gone):
        of = months == month
        parts = of, of & ~right, of & sure, of & sure & ~right, gone == month
        yield AlertScore(str(month), *(float(np.count_nonzero(which) * hectare) for which in parts))


def _months(days: NDArray[np.int16]) -> NDArray[np.str_]:
    """The month of each day, such as 2024-07."""
    found, position = np.unique(days, return_inverse=True)
    return np.array([_month(day) for day in found], dtype="U7")[position]


def _seen(
    looks: Sequence[SceneLook], folder: LookFolder, tile_id: str, where: NDArray[np.bool_], day: NDArray[np.int16]
) -> NDArray[np.int16]:
    """(N,) day of the first clear look at some pixels on their day or later."""
    seen = np.full(day.shape, _LATER, np.int16)
    for look in sorted(looks, key=lambda look: look.day):
        waiting = (seen == _LATER) & (day <= look.day)
        if tile_id in look.steps and waiting.any():
            seen[waiting & (folder.read(look.scene, tile_id, where) != UNSEEN)] = look.day
    return seen


def _bands(alerts: AlertPixels, tile: Tile) -> dict[str, NDArray[np.int16]]:
    """(H, W) of each band on one tile; status 0 and days NEVER where there is no alert."""
    (top, left), (height, width) = tile.pixel_origin, tile.shape
    here = (alerts.row // height == tile.iy) & (alerts.col // width == tile.ix)
    out = {}
    for name in ("status", "raised", "confirmed", "first", "standing"):
        plane = np.full(tile.shape, 0 if name == "status" else NEVER, np.int16)
        plane[alerts.row[here] - top, alerts.col[here] - left] = alerts.bands[name][here]
        out[name] = plane
    return out


def _burn(frame: gpd.GeoDataFrame, values: NDArray[Any], tile: Tile) -> NDArray[np.int32]:
    """(H, W) the value of the last shape that holds a pixel's centre, 0 where none does."""
    out = np.zeros(tile.shape, np.int32)
    near = np.sort(frame.sindex.query(tile.extent.geom))
    if near.size:
        shapes = zip(frame.geometry.iloc[near], values[near].astype(int).tolist(), strict=True)
        rasterize(shapes, out=out, transform=tile.transform)
    return out


def _month(day: int) -> str:
    return f"{to_date(day):%Y-%m}"


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")
