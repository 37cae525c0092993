"""Labels on the cube's grid, in the cube's history: polygons burned, rasters warped by nearest neighbour.

A file says what it says in its own words or numbers; the settings' classes (or, without them, the file
itself) say which class code each of them becomes. What no class claims is an error, not a guess.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.cube import layout
from geossl.cube.label_files import DatedShapes, Raster, Shapes
from geossl.cube.repository import Cube
from geossl.cube.settings import LabelSettings, Value
from geossl.errors import LabelError
from geossl.grid import Tile
from geossl.legend import CHANGE, NO_LABEL, LandClass, Legend

_COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666", "#80b1d3", "#fb8072")


class LabelFile(Protocol):
    """A file of labels, whatever its kind."""

    def values(self, tiles: list[Tile]) -> list[Value]:
        """The distinct values that it has on these tiles, ascending."""
        ...

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        """(H, W) class codes on one tile; NO_LABEL where there is none."""
        ...


def add_labels(
    cube: Cube,
    name: str,
    settings: LabelSettings,
    collection: str,
    base: Path,
    *,
    before: dt.date | None = None,
    after: dt.date | None = None,
) -> str:
    """Put labels onto all tiles of a collection, in one commit; replaces a layer of that name.

    Parameters
    ----------
    base:
        Folder that relative paths in the settings start from.
    before, after:
        Dates of the two states, for change labels; neither for land cover.

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
    path = base / settings.path
    attributes = {
        "task": "change" if after else "landcover",
        "before": before.isoformat() if before else None,
        "after": after.isoformat() if after else None,
        "source": path.name,
        "checksum": _checksum(path, base, settings, [tile.id for tile in tiles]),
    }

    def work(session: icechunk.Session) -> str | None:
        root = zarr.open_group(session.store, mode="r+")
        place = f"{layout.LABELS}/{name}"
        if place in root and {key: root[place].attrs.get(key) for key in attributes} == attributes:
            return None
        file = _open(path, base, settings, source.grid.crs, (before, after) if before and after else None)
        values = file.values(tiles)
        legend, table = _legend(values, settings, change=after is not None, name=name)
        group = layout.create_labels(root, name, source.grid, legend, **attributes)
        labelled = 0
        for tile in tiles if values else ():
            codes = file.codes(tile, table)
            if (codes != NO_LABEL).any():
                layout.create_label_tile(group, tile, codes)
                labelled += 1
        if not labelled:
            raise LabelError(
                f"no label of {path} lies on the imagery of {collection!r}",
                "check that the file covers the same place and has the right coordinate system",
            )
        return f"labels {name} from {path.name} on {labelled} tile(s)"

    return cube.transact(work)


def _open(
    path: Path, base: Path, settings: LabelSettings, crs: str, dates: tuple[dt.date, dt.date] | None
) -> LabelFile:
    if path.suffix.lower() in (".tif", ".tiff"):
        return Raster(path)
    if settings.date_column is None:
        return Shapes(path, settings.layer, settings.column, crs)
    if dates is None:
        raise LabelError(f"labels {path} have a date column, but land cover has no two dates", "use it for change only")
    area = base / settings.area if settings.area else None
    return DatedShapes(path, settings.layer, settings.date_column, crs, dates, area)


def _legend(
    values: list[Value], settings: LabelSettings, *, change: bool, name: str
) -> tuple[Legend, dict[Value, int]]:
    """The legend, and the class code of every value of the file."""
    numbers = all(isinstance(value, int) for value in values)
    wanted = [value for value in values if value not in settings.ignore]
    if settings.classes:
        legend = Legend(tuple(LandClass(c.code, c.name, c.color) for c in settings.classes), name)
        table = {v: c.code for c in settings.classes for v in (c.values or ((c.code if numbers else c.name),))}
    elif change:
        legend = CHANGE
        table = {(c.code if numbers else c.name): c.code for c in CHANGE}
    else:
        codes = {v: v if isinstance(v, int) else position for position, v in enumerate(wanted, start=1)}
        colors = [_COLORS[position % len(_COLORS)] for position in range(len(wanted))]
        legend = Legend(
            tuple(
                LandClass(codes[value], f"class {value}" if isinstance(value, int) else value, color)
                for value, color in zip(wanted, colors, strict=True)
            ),
            name,
        )
        table = codes
    if unknown := [value for value in wanted if value not in table]:
        raise LabelError(
            f"labels {name!r}: no class claims {', '.join(map(repr, unknown))}; the file holds "
            f"{', '.join(map(repr, values))}, the classes claim {', '.join(map(repr, table))}",
            "add them to the `values` of a class, or to `ignore`",
        )
    return legend, {value: table[value] for value in wanted}


def _checksum(path: Path, base: Path, settings: LabelSettings, tile_ids: list[str]) -> str:
    """Of everything that the layer is made from."""
    digest = hashlib.blake2b(repr((settings.model_dump_json(), tile_ids)).encode(), digest_size=16)
    for file in (path, base / settings.area if settings.area else None):
        if file is None:
            continue
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        except OSError as error:
            raise LabelError(f"labels cannot be read from {file}: {error.strerror}") from error
    return digest.hexdigest()
