"""Labels on the cube's grid, in the cube's history: polygons burned, rasters warped by nearest neighbour.

A file says what it says in its own words or numbers; the settings' classes (or, without them, the file
itself) say which class code each of them becomes. What no class claims is an error, not a guess; what
cannot be used is counted in the layer's report.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from pathlib import Path

import icechunk
import numpy as np
import zarr

from geossl.cube import layout
from geossl.cube.label_files import LabelFile, Look, LossYears, Raster, is_raster
from geossl.cube.label_shapes import Area, DatedShapes, Recent, Shapes
from geossl.cube.legends import known_legend
from geossl.cube.repository import Cube
from geossl.cube.settings import LabelSettings, Value
from geossl.errors import LabelError
from geossl.grid import Tile
from geossl.legend import CHANGE, NO_LABEL, LandClass, Legend

_BESIDE = (".shx", ".dbf", ".prj", ".cpg")
"""Extensions of the files that make up a shapefile."""

_COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666", "#80b1d3", "#fb8072")


def add_labels(
    cube: Cube,
    name: str,
    settings: LabelSettings,
    collection: str,
    base: Path,
    *,
    before: dt.date | None = None,
    after: dt.date | None = None,
    date: dt.date | None = None,
) -> str:
    """Put labels onto all tiles of a collection, in one commit; replaces a layer of that name.

    The layer's attributes say where it is from, which version of its name it is, and what became of the file
    (:class:`~geossl.cube.label_report.LabelReport`).

    Parameters
    ----------
    base:
        Folder that relative paths in the settings start from.
    before, after:
        Dates of the two states, for change labels; neither for land cover.
    date:
        Date of the image, for land cover whose labels have dates.

    Returns
    -------
    str
        The newest snapshot. Adding the same file again with the same settings does nothing.

    Raises
    ------
    LabelError
        The file cannot be read, has no coordinate system, holds values that no class claims, or lies
        elsewhere than the imagery.
    """
    if (before is None) != (after is None) or (before and after and before >= after):
        raise LabelError(f"change labels {name!r} need two dates, the earlier one first", f"got {before} and {after}")
    source = cube.view().collection(collection)
    tiles = [source.tile(tile_id) for tile_id in source.tile_ids]
    paths = [base / path for path in settings.paths]
    from_files = ", ".join(path.name for path in paths)
    attributes = {
        "task": "change" if after else "landcover",
        "before": before.isoformat() if before else None,
        "after": after.isoformat() if after else None,
        "date": date.isoformat() if date and settings.date_column else None,
        "source": from_files,
        "checksum": _checksum(settings, base, [tile.id for tile in tiles]),
    }

    def work(session: icechunk.Session) -> str | None:
        root = zarr.open_group(session.store, mode="r+")
        place = f"{layout.LABELS}/{name}"
        if place in root and {key: root[place].attrs.get(key) for key in attributes} == attributes:
            return None
        file = _open(paths, base, settings, source.grid.crs, (before, after) if before and after else None, date)
        values = file.values(tiles)
        if not values:
            raise LabelError(
                f"no label of {from_files} lies on the imagery of {collection!r}: the labels lie at "
                f"{_degrees(file.bounds)}, the imagery at {_degrees(_bounds(tiles))}",
                "check that the file covers the same place, and that its coordinate system is the right one",
            )
        look = file.look if isinstance(file, Raster) else None
        legend, table = _legend(values, settings, look, change=after is not None, name=name)
        group = layout.create_labels(root, name, source.grid, legend, **attributes)
        labelled, pixels = 0, Counter[int]()
        for tile in tiles:
            codes = file.codes(tile, table)
            if (codes != NO_LABEL).any():
                layout.create_label_tile(group, tile, codes)
                labelled += 1
                pixels.update(dict(zip(*(each.tolist() for each in np.unique(codes, return_counts=True)), strict=True)))
        names = dict(zip(legend.codes, legend.names, strict=True))
        report = file.report(names)
        report.pixel_area = source.grid.resolution**2
        report.pixels = {name: pixels[code] for code, name in names.items()}
        if not labelled:
            raise LabelError(
                f"labels {name!r}: not one pixel of the imagery got a label from {from_files}",
                "; ".join(list(report.lines())[1:]),
            )
        version = layout.next_version(root, name)
        group.attrs.update({"version": version, "report": report.to_dict()})
        return f"labels {name}, version {version}, from {from_files} on {labelled} tile(s)"

    return cube.transact(work)


def _open(
    paths: list[Path],
    base: Path,
    settings: LabelSettings,
    crs: str,
    dates: tuple[dt.date, dt.date] | None,
    date: dt.date | None,
) -> LabelFile:
    path, timed = paths[0], settings.date_column is not None or settings.year_offset is not None
    if settings.area is not None and (dates is None or not timed):
        raise LabelError(
            f"labels {path} have an `area`, which says where changes were looked for",
            "use it for change with a `date_column` or a `year_offset`",
        )
    area = Area(base / settings.area, crs) if settings.area else None
    if any(map(is_raster, paths)):
        if len(paths) > 1:
            raise LabelError(
                f"labels {', '.join(map(str, paths))}: a raster cannot be joined with other files",
                "name vector files, or one raster",
            )
        if settings.year_offset is None:
            return Raster(path)
        if dates is None:
            raise LabelError(f"labels {path} hold years of loss, but land cover has no two dates", "use it for change")
        return LossYears(path, settings.year_offset, dates, area)
    if settings.date_column is None:
        return Shapes(paths, settings.layer, settings.column, crs, later_wins=settings.overlap == "later")
    if dates is not None:
        return DatedShapes(paths, settings.layer, settings.date_column, crs, dates, area)
    if date is None:
        raise LabelError(
            f"labels {path} have a date column, but the task does not say of which date its image is",
            "set the task's `date`; labels within `days` of it are used",
        )
    recent = Recent(settings.date_column, date, settings.days)
    return Shapes(paths, settings.layer, settings.column, crs, recent=recent, later_wins=settings.overlap == "later")


def _legend(
    values: list[Value], settings: LabelSettings, look: Look | None, *, change: bool, name: str
) -> tuple[Legend, dict[Value, int]]:
    """The legend, and the class code of every value of the file."""
    numbers = all(isinstance(value, int) for value in values)
    wanted = [value for value in values if value not in settings.ignore]
    classes = settings.classes
    if isinstance(classes, str):
        # of dozens of classes, those that are there
        classes = tuple(c for c in known_legend(classes) if {*c.values, c.name} & {*wanted})
    if classes or settings.classes:
        table = {v: c.code for c in classes or () for v in (c.values or ((c.code if numbers else c.name),))}
        table |= {c.name: c.code for c in classes or () if isinstance(settings.classes, str)}
        found = [LandClass(c.code, c.name, c.color) for c in classes or ()]
    elif change:
        found = list(CHANGE)
        table = {(c.code if numbers else c.name): c.code for c in CHANGE}
    else:
        table = {v: v if isinstance(v, int) else position for position, v in enumerate(wanted, start=1)}
        found = [_own_class(value, table[value], position, look) for position, value in enumerate(wanted)]
    if unknown := [value for value in wanted if value not in table]:
        raise LabelError(
            f"labels {name!r}: no class claims {_listed(unknown)}; the file holds {_listed(values)}, the classes "
            f"claim {_listed(list(table))}",
            "add them to the `values` of a class, or to `ignore`",
        )
    if len(found) < 2:
        only = f"hold one class only, {found[0].name!r}" if found else "hold no class that is not ignored"
        raise LabelError(
            f"labels {name!r} {only}", "a map tells at least two apart: label some ground that is something else"
        )
    return Legend(tuple(found), CHANGE.title if found == list(CHANGE) else name), {v: table[v] for v in wanted}


def _own_class(value: Value, code: int, position: int, look: Look | None) -> LandClass:
    """The class that a value of a file without a legend means."""
    color = _COLORS[position % len(_COLORS)]
    if isinstance(value, str):
        return LandClass(code, value, color)
    look = look or Look()
    return LandClass(code, look.names.get(value, f"class {value}"), look.colors.get(value, color))


def _listed(values: list[Value]) -> str:
    more = f" and {len(values) - 20} more" if len(values) > 20 else ""
    return ", ".join(map(repr, values[:20])) + more


def _bounds(tiles: list[Tile]) -> tuple[float, float, float, float] | None:
    """West, south, east, north in degrees."""
    boxes = [tile.extent.to_crs("EPSG:4326").boundingbox for tile in tiles]
    if not boxes:
        return None
    west, south = min(box.left for box in boxes), min(box.bottom for box in boxes)
    return west, south, max(box.right for box in boxes), max(box.top for box in boxes)


def _degrees(bounds: tuple[float, float, float, float] | None) -> str:
    if bounds is None:
        return "no place at all"
    west, south, east, north = bounds
    return f"longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"


def label_inputs(settings: LabelSettings, base: Path) -> list[Path]:
    """Every file that labels are made from: the named ones, and what there is of the files beside them."""
    named = [base / path for path in (*settings.paths, settings.area) if path is not None]
    found = []
    for path in named:
        beside = [path.with_suffix(suffix) for suffix in _BESIDE] if path.suffix.lower() == ".shp" else []
        # what QGIS has edited may lie in the log of a GeoPackage; names of a raster's classes in its side-car
        beside += [path.with_name(path.name + end) for end in ("-wal", ".aux.xml")]
        found += [path, *(other for other in beside if other.exists() and other.stat().st_size)]
    return found


def _checksum(settings: LabelSettings, base: Path, tile_ids: list[str]) -> str:
    """Of everything that the layer is made from."""
    digest = hashlib.blake2b(repr((settings.model_dump_json(), tile_ids)).encode(), digest_size=16)
    for file in label_inputs(settings, base):
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        except OSError as error:
            raise LabelError(
                f"labels cannot be read from {file}: {error.strerror}", "check `labels.path` in the project file"
            ) from error
    return digest.hexdigest()
