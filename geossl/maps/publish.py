"""Publish a predicted map: rasters, polygons, styles and their description, in one move.

A map's folder below the maps' root looks so::

    catalog.json                      STAC catalogue of all maps
    maps.qgz                          QGIS project of the newest release of each
    <name>/tiles/                     predicted tiles, kept between runs
    <name>/releases/<release>/        one published map; never changed once it is there
    <name>/models/                    STAC Items of the models that made the releases
    <name>/collection.json            STAC collection of the releases, the newest last
    <name>/latest -> releases/<release>

A release is built beside the others and moved into place when it is whole; then ``latest``,
``collection.json`` and the QGIS project follow, one move each. Readers see the last good map until then.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac

from geossl.files import aside, point, write_json
from geossl.grid import Grid
from geossl.legend import Legend
from geossl.maps.cog import Extent, write_classes, write_confidence
from geossl.maps.dates import knows_dates, to_number, write_dates
from geossl.maps.models import keep_models, write_model
from geossl.maps.polygons import write_polygons
from geossl.maps.predict import MapReport
from geossl.maps.qgis import write_project
from geossl.maps.quicklook import write_quicklook
from geossl.maps.settings import MapSettings
from geossl.maps.space import room
from geossl.maps.stac import map_item, write_catalog, write_collection, write_item
from geossl.maps.style import confidence_style, date_style, polygon_style, raster_style
from geossl.maps.tiles import TileFolder
from geossl.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class Release:
    """One published map."""

    id: str
    name: str
    folder: Path
    fresh: bool
    """Whether it was published now; False: it was there already, since nothing has changed."""

    @property
    def classes(self) -> Path:
        return self.folder / f"{self.name}.tif"

    @property
    def confidence(self) -> Path:
        return self.folder / f"{self.name}-confidence.tif"

    @property
    def dates(self) -> Path:
        """Only a map of change has them."""
        return self.folder / f"{self.name}-date.tif"

    @property
    def polygons(self) -> Path:
        return self.folder / f"{self.name}-polygons.gpkg"

    @property
    def quicklook(self) -> Path:
        return self.folder / f"{self.name}.png"

    @property
    def item(self) -> Path:
        return self.folder / f"{self.id}.json"


def tiles_folder(root: Path, name: str) -> Path:
    """Where the predicted tiles of a map are kept between runs."""
    return root / name / "tiles"


def publish_map(
    report: MapReport,
    root: Path,
    name: str,
    *,
    legend: Legend,
    grid: Grid,
    encoder: str | None,
    settings: MapSettings,
    polygon_codes: Collection[int] | None = None,
    pinned: Collection[str] = (),
    tiles: Path | None = None,
    about: Mapping[str, Any] | None = None,
    model: pystac.Item | None = None,
    pin: Callable[[str], None] | None = None,
    progress: Progress = silent,
) -> Release:
    """Publish what :func:`geossl.maps.predict.predict_map` left in :func:`tiles_folder`.

    Parameters
    ----------
    root:
        Folder of all maps of the store.
    encoder:
        Id of the encoder that the model was made from; None where it has none.
    polygon_codes:
        Classes to make polygons of; None: all.
    pinned:
        Ids of releases that something refers to: they stay, however many there are.
    tiles:
        Folder of the tiles where it is another one.
    about:
        What else the map follows from, for its lineage.
    model:
        The model as :func:`geossl.maps.models.describe_model` says it.
    pin:
        Called with the release's id before anybody can see it, to keep what it is made from.

    One process at a time publishes a map.

    Raises
    ------
    GeosslError
        No tile has any data.
    StoreError
        The disk is full; the last release stays the newest.
    """
    extent = Extent.of(grid, report.records)
    folder = root / name
    release_id = _release_id(report, legend, settings, polygon_codes, about)
    release = Release(release_id, name, folder / "releases" / release_id, fresh=True)
    if pin is not None:
        pin(release_id)
    if release.folder.is_dir():
        release = dataclasses.replace(release, fresh=False)
    else:
        for abandoned in release.folder.parent.glob(".partial-*"):  # by a process that was killed
            shutil.rmtree(abandoned)
        with room(root, "the new release", lambda: _bytes_wanted(folder)), aside(release.folder) as partial:
            partial.mkdir()
            where = TileFolder(tiles or tiles_folder(root, name))
            _build(
                partial,
                release,
                report,
                extent,
                legend,
                encoder,
                settings,
                polygon_codes,
                where,
                about,
                model,
                progress,
            )
    _make_newest(release, root, legend.title or name, settings.keep, pinned)
    return release


def _bytes_wanted(folder: Path) -> int:
    """About what a release takes while it is made: rasters with overviews and one more of each, and polygons as ever."""
    polygons = sum(path.stat().st_size for path in (folder / "latest").glob("*-polygons.*"))
    return polygons + 2 * sum(path.stat().st_size for path in (folder / "tiles").glob("*.tif"))


def _release_id(
    report: MapReport,
    legend: Legend,
    settings: MapSettings,
    polygon_codes: Collection[int] | None,
    about: Mapping[str, Any] | None,
) -> str:
    """Last day of the map's imagery, and a hash of everything that it was made from."""
    content = [
        [record.to_dict() for record in report.records],
        legend.to_dict(),
        settings.minimum_ha,
        settings.simplify,
        None if polygon_codes is None else sorted(polygon_codes),
        *([dict(about)] if about else []),
    ]
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
    last = max(record.dates[1] for record in report.records if record.extent is not None)
    return f"{last:%Y%m%d}-{digest}"


def _build(
    folder: Path,
    release: Release,
    report: MapReport,
    extent: Extent,
    legend: Legend,
    encoder: str | None,
    settings: MapSettings,
    polygon_codes: Collection[int] | None,
    tiles: TileFolder,
    about: Mapping[str, Any] | None,
    model: pystac.Item | None,
    progress: Progress,
) -> None:
    """Write all files of a release into ``folder``."""
    records, name = report.records, release.name
    classes, confidence = folder / f"{name}.tif", folder / f"{name}-confidence.tif"
    write_classes(classes, tiles, records, extent.grid, legend, progress)
    write_confidence(confidence, tiles, records, extent.grid, progress)
    if knows_dates(records):
        changed = legend.codes if polygon_codes is None else polygon_codes
        write_dates(folder / f"{name}-date.tif", tiles, records, extent.grid, changed, progress)
        days = {to_number(record.dates[1]) for record in records if record.extent is not None}
        (folder / f"{name}-date.qml").write_text(date_style(days), encoding="utf-8")
    count = write_polygons(
        folder / f"{name}-polygons.gpkg",
        classes,
        confidence,
        records,
        extent,
        legend,
        minimum_ha=settings.minimum_ha,
        tolerance=settings.simplify,
        codes=polygon_codes,
        progress=progress,
    )
    (folder / f"{name}.qml").write_text(raster_style(legend), encoding="utf-8")
    (folder / f"{name}-confidence.qml").write_text(confidence_style(), encoding="utf-8")
    (folder / f"{name}-polygons.qml").write_text(polygon_style(legend, polygon_codes), encoding="utf-8")
    write_quicklook(folder / f"{name}.png", classes, legend)
    lineage: dict[str, Any] = {
        "task": records[0].task,
        "encoder": encoder,
        "windows": dict(zip(("window", "margin", "overlap"), records[0].windows, strict=True)),
        "seam": None if report.seam is None else dataclasses.asdict(report.seam),
        "minimum_ha": settings.minimum_ha,
        "polygons": count,
        **(about or {}),
    }
    tiles_made = [record.to_dict() for record in records]
    write_json(folder / f"{name}-lineage.json", {**lineage, "grid": extent.grid.to_dict(), "tiles": tiles_made})
    item = map_item(
        folder, name, release.id, legend=legend, extent=extent, records=records, lineage=lineage, model=model
    )
    write_item(release.folder.parents[2], folder / f"{release.id}.json", item, name)
    if model is not None:
        write_model(release.folder.parents[1], model, item)


def _make_newest(release: Release, root: Path, title: str, keep: int, pinned: Collection[str]) -> None:
    """Let the catalogue and ``latest`` lead to a release, then delete the oldest beyond ``keep`` that nothing pins."""
    folder = root / release.name
    others = [path for path in _published(folder) if path != release.item]
    newest = [*others, release.item][-keep:]
    kept = [path for path in [*others, release.item] if path in newest or path.parent.name in pinned]
    point(folder / "latest", release.folder)
    keep_models(folder, {json.loads(path.read_text(encoding="utf-8"))["properties"]["geossl:task"] for path in kept})
    write_collection(root, folder, release.name, title, kept)
    write_catalog(root)
    write_project(root)
    for path in release.folder.parent.iterdir():  # also what a killed process left before the catalogue knew of it
        if path.is_dir() and path.name not in pinned and path / f"{path.name}.json" not in kept:
            shutil.rmtree(path)


def _published(folder: Path) -> list[Path]:
    """The item files of a map's releases that are still there, the newest last."""
    try:
        collection = json.loads((folder / "collection.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    paths = [folder / link["href"] for link in collection["links"] if link["rel"] == "item"]
    return [path for path in paths if path.is_file()]
