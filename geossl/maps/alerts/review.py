"""Read verdicts back from polygons that were judged in QGIS."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely import STRtree
from shapely.validation import explain_validity

from geossl.cube.vectors import read_vectors
from geossl.cube.verdicts import CONFIRMED, REJECTED, TileVerdicts
from geossl.errors import LabelError
from geossl.grid import Grid, Tile
from geossl.legend import NO_LABEL
from geossl.maps.alerts.rule import NEVER, to_day
from geossl.maps.alerts.style import NOT_FOREST, VERDICTS
from geossl.maps.alerts.tiles import AlertTiles

_ALWAYS = int(np.iinfo(np.int16).max)
_COLUMNS = ("alert_id", "first_date", "last_date", "review", "reason", "release")
_LISTED = 5


@dataclass(frozen=True)
class Published:
    """What a monitor has published so far."""

    releases: Mapping[str, dt.date]
    """Release → day of its newest image."""
    patches: frozenset[str]
    """Ids of all patches that there ever were."""


@dataclass(frozen=True)
class Review:
    """The verdicts of one file."""

    said: dict[str, tuple[str, str, str]]
    """Patch id → verdict, reason, and the release that was judged."""
    tiles: dict[str, TileVerdicts]
    until: dt.date
    """Day of the newest image that was judged."""

    def count(self, verdict: str) -> int:
        return sum(each[0] == verdict for each in self.said.values())


def read_review(path: Path, grid: Grid, tiles: Sequence[str], store: AlertTiles, published: Published) -> Review:
    """The verdicts that a file holds, checked and put onto the grid.

    Rows without a verdict are passed over. A patch may have been cut, and its parts judged differently.

    Raises
    ------
    LabelError
        The file is none of this monitor's alerts, or what it says cannot be: an alert that never was, another
        word than the verdicts, a geometry that is none, both verdicts on one place, or no verdict at all.
    """
    frame = _judged(path, grid, published)
    tree = STRtree(frame.geometry.to_numpy())
    found: dict[str, TileVerdicts] = {}
    for tile_id in tiles:
        tile = grid.tile(tile_id)
        near = np.sort(tree.query(tile.extent.geom))
        if near.size and (verdicts := _on_tile(frame.iloc[near], tile, store, published, path)) is not None:
            found[tile_id] = verdicts
    if not found:
        raise LabelError(f"no verdict of {path} lies on ground that is watched")
    said: dict[str, tuple[str, str, str]] = {}
    for row in frame.itertuples():
        # of a patch that was cut, what its parts say together
        before = said.get(row.alert_id)
        verdict = row.review if before is None or before[0] == row.review else " and ".join(VERDICTS)
        said[row.alert_id] = (verdict, row.reason, row.release)
    return Review(said, found, max(published.releases[release] for release in frame["release"]))


def _judged(path: Path, grid: Grid, published: Published) -> gpd.GeoDataFrame:
    """The rows with a verdict, in the grid's coordinates."""
    frame = read_vectors([path], None, grid.crs).frame
    if missing := [name for name in _COLUMNS if name not in frame.columns]:
        raise LabelError(
            f"{path} has no column {missing[0]!r}", "judge the polygons that `geossl alerts` has published"
        )
    for name in ("alert_id", "review", "reason", "release"):
        frame[name] = frame[name].astype("string").fillna("").str.strip()
    frame = frame[frame["review"] != ""].reset_index(drop=True)
    if not len(frame):
        raise LabelError(
            f"{path} holds no verdict", f"set `review` of some alerts to {' or '.join(VERDICTS)}, and save"
        )
    _refuse(path, frame, ~frame["review"].isin(VERDICTS), f"a verdict other than {' or '.join(VERDICTS)}", "review")
    _refuse(path, frame, ~frame["alert_id"].isin(published.patches), "an alert that never was", "alert_id")
    _refuse(path, frame, ~frame["release"].isin(list(published.releases)), "a release that never was", "release")
    broken = ~frame.geometry.is_valid | ~frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])
    if broken.any():
        first = frame.geometry[broken].iloc[0]
        why = first.geom_type if first.is_valid else explain_validity(first)
        _refuse(path, frame, broken, f"a geometry that is no polygon ({why})", "alert_id", "repair it in QGIS")
    return frame


def _refuse(
    path: Path, frame: gpd.GeoDataFrame, bad: pd.Series[bool], what: str, column: str, remedy: str = ""
) -> None:
    if bad.any():
        some = frame[bad]
        shown = _list(f"{row.alert_id} ({getattr(row, column)!r})" for row in some.head(_LISTED).itertuples())
        raise LabelError(f"{path}: {len(some)} row(s) have {what}: {shown}", remedy or f"correct `{column}`, and save")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _on_tile(
    frame: gpd.GeoDataFrame, tile: Tile, store: AlertTiles, published: Published, path: Path
) -> TileVerdicts | None:
    """The verdicts on one tile, None where they hold the centre of no pixel."""
    masks = {verdict: _burn(frame, frame["review"] == verdict, 1, tile).astype(bool) for verdict in VERDICTS}
    confirmed, rejected = (masks[verdict] for verdict in VERDICTS)
    if (both := confirmed & rejected).any():
        row, col = np.argwhere(both)[0]
        x, y = tile.transform @ (col + 0.5, row + 0.5)
        here = frame[frame.geometry.distance(gpd.points_from_xy([x], [y])[0]) < tile.grid.resolution]
        raise LabelError(
            f"{path}: alerts {_list(sorted(set(here['alert_id'])))} are both confirmed and rejected at"
            f" {x:.0f}, {y:.0f} ({both.sum()} pixels)",
            "give each place one verdict",
        )
    label = np.full(tile.shape, NO_LABEL, np.uint8)
    label[confirmed], label[rejected] = CONFIRMED, REJECTED
    if (label == NO_LABEL).all():
        return None
    until = _burn(frame, slice(None), [to_day(published.releases[each]) for each in frame["release"]], tile)
    never = _burn(frame, (frame["review"] == "rejected") & (frame["reason"] == NOT_FOREST), 1, tile).astype(bool)
    until[never & rejected] = _ALWAYS
    starts, ends = (_days(frame[name]) for name in ("first_date", "last_date"))
    first, last = (_burn(frame, slice(None), days, tile) for days in (starts, ends))
    if store.raster(tile.id).is_file():  # a pixel's own day, where it is one of the patch's
        own = store.read(tile.id)["first"]
        first = np.where((own != NEVER) & (own >= first) & (own <= last), own, first)
    said = label != NO_LABEL
    return TileVerdicts(label, np.where(said, first, 0).astype(np.int16), np.where(said, until, 0).astype(np.int16))


def _burn(frame: gpd.GeoDataFrame, which: Any, value: int | Sequence[int], tile: Tile) -> NDArray[np.int16]:
    """(H, W) int16: a value of each chosen row where it holds a pixel's centre, else 0."""
    shapes = frame.geometry[which]
    out: NDArray[np.int16] = np.zeros(tile.shape, np.int16)
    if len(shapes):
        values = [value] * len(shapes) if isinstance(value, int) else value
        rasterize(zip(shapes, values, strict=True), out=out, transform=tile.transform)
    return out


def _days(dates: pd.Series[Any]) -> list[int]:
    return [to_day(date.date()) for date in pd.to_datetime(dates)]
