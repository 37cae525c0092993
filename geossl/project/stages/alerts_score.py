"""`geossl alerts --score`: commission, omission and delay per month, against clearings whose days are known."""

from __future__ import annotations

from collections.abc import Iterator

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from geossl.cube.settings import LabelSettings
from geossl.cube.vectors import pick_column, read_vectors
from geossl.errors import LabelError, SettingsError
from geossl.files import write_json
from geossl.maps.alerts.patches import AlertPixels, find_patches
from geossl.maps.alerts.publish import published_pixels
from geossl.maps.alerts.rule import NEVER, to_day
from geossl.maps.alerts.score import Scores, score_alerts, summary
from geossl.progress import Progress
from geossl.project.project import Project
from geossl.project.stages.alerts import Monitor, folder_of, open_monitor


def scores(project: Project, progress: Progress) -> dict[str, Scores]:
    """Judge the alerts of every monitor that has a reference; writes ``scores.json`` beside its releases.

    Raises
    ------
    SettingsError
        No monitor has one.
    """
    found: dict[str, Scores] = {}
    for name, settings in project.settings.alerts.items():
        if settings.reference is not None:
            found[name] = _score(project, open_monitor(project, name, progress), settings.reference)
            write_json(folder_of(project, name) / "scores.json", found[name].to_dict())
    if not found:
        raise SettingsError(
            "no monitor has a reference to be judged by",
            "name dated clearings, as in `alerts: {NAME: {reference: {path: …, date_column: …}}}`",
        )
    return found


def _score(project: Project, monitor: Monitor, reference: LabelSettings) -> Scores:
    grid = monitor.scenes.grid
    frame, days = _reference(project, reference, grid.crs)
    area = None if reference.area is None else read_vectors([project.root / reference.area], None, grid.crs).frame
    pixels: AlertPixels = published_pixels(
        find_patches(monitor.alert_tiles, grid, monitor.tiles), grid, monitor.settings.minimum_ha
    )
    looks = [look for look in monitor.looks if monitor.look_folder.has(look)]
    return score_alerts(
        pixels,
        monitor.alert_tiles,
        frame,
        days,
        grid,
        monitor.tiles,
        monitor.is_forest,
        looks,
        monitor.look_folder,
        monitor.rule.since,
        area,
    )


def _reference(project: Project, reference: LabelSettings, crs: str) -> tuple[gpd.GeoDataFrame, NDArray[np.int16]]:
    """The polygons and the day of each."""
    paths = [project.root / path for path in reference.paths]
    where = ", ".join(map(str, paths))
    if reference.date_column is None:
        raise LabelError(f"the reference {where} has no days", "set its `date_column`")
    vectors = read_vectors(paths, reference.layer, crs)
    frame = vectors.frame
    values = pick_column(vectors, reference.date_column, "date_column", paths).astype("string").str.strip()
    if (years := values.str.fullmatch(r"\d{4}(\.0)?").fillna(value=False)).any():
        raise LabelError(
            f"column {reference.date_column!r} of {where} holds years such as {values[years].iloc[0]}",
            "a delay in days needs the day of each clearing",
        )
    dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    known = dates.notna().to_numpy()
    if not known.any():
        raise LabelError(f"column {reference.date_column!r} of {where} holds no day", "write days as 2024-07-31")
    days = np.array([to_day(date.date()) if ok else NEVER for date, ok in zip(dates, known, strict=True)], np.int16)
    # where one lies on another, the later one is burned last; but ground is cleared once
    order = np.argsort(-days.astype(np.int32), kind="stable")
    order = order[known[order]]
    return frame.iloc[order].reset_index(drop=True), days[order]


def tables(name: str, found: Scores) -> Iterator[Table | str]:
    """What is printed: clearings by month, alerts by month, and all of it."""
    yield _clearings(name, found)
    yield _alerts(name, found)
    for what, sure in (("all alerts", False), ("confirmed alerts", True)):
        total = found.total(sure=sure)
        yield (
            f"{what}: F1 {total['f1']:.3f}, commission {total['commission']:.1%}, omission {total['omission']:.1%},"
            f" area {total['alerts']:.1f} ha where {total['cleared']:.1f} ha were cleared ({total['area_error']:+.1%})"
        )
    if found.unwatched:
        yield f"{found.unwatched:.1f} ha more were cleared where no forest was watched"
    if found.clearings:
        every = summary(found.clearings)
        yield (
            f"median days from clearing to first clear look {every['days_clouds']:.0f}, to detection"
            f" {every['days_detected']:.0f}, to confirmation {every['days_confirmed']:.0f};"
            f" the date is wrong by {every['date_error']:.0f}"
        )


def _clearings(name: str, found: Scores) -> Table:
    table = Table(title=f"{name}: what was cleared, and when it was noticed", title_justify="left")
    for heading in ("month", "clearings", "ha", "omitted", "not seen yet", "days: clouds", "method", "to confirm"):
        table.add_column(heading, justify="left" if heading == "month" else "right")
    for month, clearings in found.months():
        row = summary(clearings)
        table.add_row(
            month,
            f"{row['clearings']:.0f}",
            f"{row['hectares']:.1f}",
            f"{row['omission']:.0%}",
            f"{row['not_yet_seen']:.0f}",
            *(_days(row[what]) for what in ("days_clouds", "days_method", "days_confirmed")),
        )
    return table


def _alerts(name: str, found: Scores) -> Table:
    table = Table(title=f"{name}: what was raised, and whether it was true", title_justify="left")
    for heading in ("month", "ha", "commission", "confirmed ha", "commission of those", "withdrawn ha"):
        table.add_column(heading, justify="left" if heading == "month" else "right")
    for row in found.alerts:
        table.add_row(
            row.month,
            f"{row.raised:.1f}",
            f"{row.wrong / row.raised:.0%}" if row.raised else "–",
            f"{row.sure:.1f}",
            f"{row.sure_wrong / row.sure:.0%}" if row.sure else "–",
            f"{row.withdrawn:.1f}",
        )
    return table


def _days(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0f}"
