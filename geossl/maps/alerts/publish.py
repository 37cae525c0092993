"""Publish alerts: rasters of date and status, polygons to judge in QGIS, styles, in one move.

A monitor's folder looks so::

    looks/<scene>/          what every scene says, kept between runs
    cover/                  the cover before monitoring
    tiles/                  the alerts of every tile, kept between runs
    releases/<release>/     alerts as published; never changed by geossl once they are there
    published.json          all releases and patches that there ever were
    collection.json         STAC collection of the releases, in the catalogue of the maps
    latest -> releases/<release>

The QGIS project of the maps shows the newest alerts of every monitor too.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from geossl.files import aside, point, read_json, write_json
from geossl.grid import Grid
from geossl.legend import NO_LABEL
from geossl.maps.alerts.patches import AlertPatches, AlertPixels, find_patches, outlines
from geossl.maps.alerts.review import Published
from geossl.maps.alerts.rule import CONFIRMED, EPOCH, NEVER, NONE, to_date
from geossl.maps.alerts.stac import list_releases, write_alert_item
from geossl.maps.alerts.style import ALERTS, alert_style
from geossl.maps.alerts.tiles import REVIEWED, AlertTiles, state_key
from geossl.maps.cog import CONFIDENCE_SCALE, Extent, write_cog
from geossl.maps.qgis import write_project
from geossl.maps.quicklook import write_quicklook
from geossl.maps.space import room
from geossl.maps.style import confidence_style, raster_style

LAYER = "alerts"
"""Name of the layer in the GeoPackage."""

FIELDS = (
    "alert_id",
    "status_code",
    "status",
    "first_date",
    "last_date",
    "standing_date",
    "confirmed_date",
    "area_ha",
    "confidence",
    "review",
    "reason",
    "release",
)


@dataclass(frozen=True, slots=True)
class AlertRelease:
    """Alerts as they were published."""

    id: str
    name: str
    folder: Path
    until: int
    """Day of the newest scene that was looked at."""
    patches: int
    hectares: float
    """Of all alerts."""
    confirmed: float
    """Of those that are confirmed."""
    edited: Path | None = None
    """The polygons of an older release with verdicts that were not read back yet."""

    @property
    def dates(self) -> Path:
        return self.folder / f"{self.name}-date.tif"

    @property
    def status(self) -> Path:
        return self.folder / f"{self.name}-status.tif"

    @property
    def polygons(self) -> Path:
        return self.folder / f"{self.name}.gpkg"


def publish_alerts(
    store: AlertTiles,
    grid: Grid,
    tiles: Sequence[str],
    folder: Path,
    name: str,
    *,
    until: int,
    minimum_ha: float,
    keep: int,
    root: Path,
    since: int,
    verdicts: Mapping[str, tuple[str, str, str]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> AlertRelease:
    """Publish the alerts of some tiles.

    Parameters
    ----------
    folder:
        Of the monitor.
    root:
        Of all maps, whose catalogue and QGIS project list the alerts too.
    since:
        First day of the monitoring.
    until:
        Day of the newest scene that they follow from.
    minimum_ha:
        Smaller patches are left out, of rasters and polygons alike, unless a person confirmed them.
    keep:
        How many releases stay; older ones are deleted, but for those with verdicts that nobody has read.
    verdicts:
        Patch id → verdict, reason, and release judged, as people gave them so far.
    about:
        Lineage: what else the alerts were made from.
    """
    key = [state_key(store, tiles), minimum_ha, sorted((verdicts or {}).items())]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=4).hexdigest()
    release_id = f"{to_date(until):%Y%m%d}-{digest}"
    target = folder / "releases" / release_id
    pixels = published_pixels(find_patches(store, grid, tiles), grid, minimum_ha)
    patches = AlertPatches.of(pixels, grid)
    frame = _frame(pixels, patches, grid, release_id, verdicts or {})
    sure = frame["status_code"] >= CONFIRMED
    hectares, confirmed = float(frame["area_ha"].sum()), float(frame["area_ha"][sure].sum())
    if not target.is_dir():
        for abandoned in target.parent.glob(".partial-*"):  # by a process that was killed
            shutil.rmtree(abandoned)
        with room(folder, "the new release", lambda: _bytes_wanted(folder)), aside(target) as partial:
            partial.mkdir()
            extent = _rasters(partial, name, store, grid, tiles, pixels)
            _polygons(partial, name, frame)
            write_json(
                partial / f"{name}-lineage.json",
                {
                    "until": to_date(until).isoformat(),
                    "day_zero": EPOCH.isoformat(),
                    "minimum_ha": minimum_ha,
                    "patches": patches.id,
                    **(about or {}),
                    "tiles": {tile_id: store.record(tile_id) for tile_id in tiles},
                },
            )
            write_alert_item(
                root,
                partial,
                name,
                release_id,
                extent=extent,
                since=to_date(since),
                until=to_date(until),
                figures={"alerts": len(patches), "hectares": hectares, "confirmed_hectares": confirmed},
            )
    _register(folder, release_id, until, patches.id)
    point(folder / "latest", target)
    edited = _prune(folder, name, release_id, keep, verdicts or {})
    list_releases(root, folder, name)
    write_project(root)
    return AlertRelease(release_id, name, target, until, len(patches), hectares, confirmed, edited)


def _bytes_wanted(folder: Path) -> int:
    """About what a release takes while it is made: as much as the last one, and its rasters once more."""
    return sum(path.stat().st_size * (1 + (path.suffix == ".tif")) for path in (folder / "latest").glob("*"))


def published_pixels(pixels: AlertPixels, grid: Grid, minimum_ha: float) -> AlertPixels:
    """Without patches under so many hectares, but with whatever a person confirmed."""
    smallest = max(1, math.ceil(minimum_ha * 1e4 / grid.resolution**2))
    large = np.bincount(pixels.patch, minlength=1)[pixels.patch] >= smallest
    return pixels[large | (pixels.bands["status"] == REVIEWED)]


def published(folder: Path) -> Published:
    """What the monitor in a folder has published so far."""
    stored = read_json(folder / "published.json") or {"releases": {}, "patches": []}
    releases = {release: dt.date.fromisoformat(day) for release, day in stored["releases"].items()}
    return Published(releases, frozenset(stored["patches"]))


def _register(folder: Path, release: str, until: int, patches: Sequence[str]) -> None:
    before = published(folder)
    days = {each: day for each, day in before.releases.items() if each != release} | {release: to_date(until)}
    write_json(
        folder / "published.json",
        {
            "releases": {each: day.isoformat() for each, day in days.items()},
            "patches": sorted(before.patches.union(patches)),
        },
    )


def _frame(
    pixels: AlertPixels, patches: AlertPatches, grid: Grid, release: str, verdicts: Mapping[str, tuple[str, str, str]]
) -> gpd.GeoDataFrame:
    """The published fields of every patch."""
    shapes = gpd.GeoSeries(outlines(pixels, grid), crs=grid.crs)
    names = dict(zip(ALERTS.codes, ALERTS.names, strict=True))
    # a rejected patch that is here again, or a confirmed one that has outgrown what was judged, is to be judged anew
    said = [
        verdicts[patch][:2] if status == REVIEWED and patch in verdicts else (None, None)
        for patch, status in zip(patches.id, patches.status, strict=True)
    ]
    area = shapes.to_crs(_projection(shapes)).area.to_numpy() / 1e4 if len(shapes) else np.empty(0)
    columns = {
        "alert_id": pa.array(patches.id, pa.string()),
        "status_code": pa.array(patches.status, pa.int32()),
        "status": pa.array([names[int(code)] for code in patches.status], pa.string()),
        "first_date": _dates(patches.first),
        "last_date": _dates(patches.last),
        "standing_date": _dates(patches.standing),
        "confirmed_date": _dates(patches.confirmed),
        "area_ha": pa.array(area, pa.float64()),
        "confidence": pa.array(patches.percent / 100, pa.float64()),
        "review": pa.array([verdict for verdict, _ in said], pa.string()),
        "reason": pa.array([reason for _, reason in said], pa.string()),
        "release": pa.array([release] * len(patches), pa.string()),
    }
    assert tuple(columns) == FIELDS
    return gpd.GeoDataFrame(pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype), geometry=shapes)


def _projection(shapes: gpd.GeoSeries) -> str:
    """An equal-area projection around the middle of some shapes."""
    left, bottom, right, top = shapes.total_bounds
    middle = gpd.GeoSeries.from_xy([(left + right) / 2], [(bottom + top) / 2], crs=shapes.crs).to_crs("EPSG:4326")
    return f"+proj=laea +lat_0={middle.y[0]} +lon_0={middle.x[0]} +datum=WGS84"


def _dates(days: NDArray[np.int16]) -> pa.Array:
    since_1970 = days.astype(np.int32) + (EPOCH - pd.Timestamp(0).date()).days
    return pa.array(since_1970, pa.int32(), mask=days == NEVER).cast(pa.date32())


def _polygons(folder: Path, name: str, frame: gpd.GeoDataFrame) -> None:
    frame.to_file(
        folder / f"{name}.gpkg",
        driver="GPKG",
        layer=LAYER,
        engine="pyogrio",
        geometry_type="Polygon",
        use_arrow=True,
        VERSION="1.3",  # what QGIS of Debian 12 knows
    )
    frame.to_parquet(folder / f"{name}.parquet", schema_version="1.1.0")
    (folder / f"{name}.qml").write_text(alert_style(FIELDS), encoding="utf-8")


def _rasters(
    folder: Path, name: str, store: AlertTiles, grid: Grid, tiles: Sequence[str], pixels: AlertPixels
) -> Extent:
    """Cloud-optimised GeoTIFFs of status, date and probability, over all tiles; where they lie."""
    tops, lefts = zip(*(grid.tile(tile_id).pixel_origin for tile_id in tiles), strict=True)
    size = grid.tile_size
    extent = Extent(grid, range(min(tops), max(tops) + size), range(min(lefts), max(lefts) + size))
    for kind, dtype, nodata, overviews in (
        ("status", "uint8", NO_LABEL, "mode"),
        ("date", "int16", NEVER, "nearest"),
        ("confidence", "uint8", NO_LABEL, "average"),
    ):
        write_cog(
            folder / f"{name}-{kind}.tif",
            extent,
            _planes(kind, store, grid, tiles, extent, pixels),
            functools.partial(_describe, kind=kind),
            overviews,
            dtype=dtype,
            nodata=nodata,
        )
    (folder / f"{name}-status.qml").write_text(raster_style(ALERTS), encoding="utf-8")
    (folder / f"{name}-confidence.qml").write_text(confidence_style(), encoding="utf-8")
    write_quicklook(folder / f"{name}.png", folder / f"{name}-status.tif", ALERTS)
    return extent


def _describe(raster: DatasetWriter, kind: str) -> None:
    if kind == "status":
        raster.write_colormap(1, ALERTS.colormap())
        raster.set_band_description(1, "alert status")
    elif kind == "date":
        raster.set_band_description(1, f"first detection, days since {EPOCH.isoformat()}")
        raster.units = (f"days since {EPOCH.isoformat()}",)
    else:
        raster.scales = (CONFIDENCE_SCALE,)
        raster.set_band_description(1, "probability of clearing")


def _planes(
    kind: str, store: AlertTiles, grid: Grid, tiles: Sequence[str], extent: Extent, pixels: AlertPixels
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """(1, H, W) of each tile: what its kept alerts say; elsewhere forest without an alert, or nothing."""
    size = grid.tile_size
    tile_of = pixels.row // size * (1 << 32) + pixels.col // size
    for tile_id in tiles:
        tile = grid.tile(tile_id)
        top, left = tile.pixel_origin
        here = tile_of == tile.iy * (1 << 32) + tile.ix
        at = pixels.row[here] - top, pixels.col[here] - left
        if kind == "status":
            # what is too small to be kept is no alert yet
            plane = np.where(store.read(tile_id)["status"] == NO_LABEL, NO_LABEL, NONE).astype(np.uint8)
            plane[at] = pixels.bands["status"][here]
        elif kind == "date":
            plane = np.full(tile.shape, NEVER, np.int16)
            plane[at] = pixels.bands["first"][here]
        else:
            plane = np.full(tile.shape, NO_LABEL, np.uint8)
            plane[at] = pixels.bands["percent"][here]
        yield Window(left - extent.cols.start, top - extent.rows.start, size, size), plane[None]


def _prune(
    folder: Path, name: str, newest: str, keep: int, verdicts: Mapping[str, tuple[str, str, str]]
) -> Path | None:
    """Delete the oldest releases beyond ``keep``; returns polygons with verdicts that nobody has read back."""
    older = [each for each in published(folder).releases if each != newest and (folder / "releases" / each).is_dir()]
    edited = None
    for number, each in enumerate(older):
        path = folder / "releases" / each / f"{name}.gpkg"
        if has_unread_verdicts(path, verdicts):
            edited = path
        elif number < len(older) - (keep - 1):
            shutil.rmtree(folder / "releases" / each)
    return edited


def has_unread_verdicts(path: Path, verdicts: Mapping[str, tuple[str, str, str]]) -> bool:
    """Whether polygons hold verdicts that they were not published with and that were not read back."""
    before = path.with_suffix(".parquet")
    if not (path.is_file() and before.is_file()):
        return False
    known = {(patch, *said[:2]) for patch, said in verdicts.items()}
    return not _said(gpd.read_file(path, ignore_geometry=True)) <= _said(gpd.read_parquet(before)) | known


def _said(frame: Any) -> set[tuple[str, str, str]]:
    """Id, verdict and reason of the alerts that were judged."""
    rows = zip(*(frame[name].astype("string").fillna("") for name in ("alert_id", "review", "reason")), strict=True)
    return {row for row in rows if row[1]}
