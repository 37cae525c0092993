"""The kinds of files that labels come in, each read tile by tile: rasters here, shapes in ``label_shapes``."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from geossl.cube.label_report import LabelReport
from geossl.cube.label_shapes import CLEARING, NO_CHANGE, Area, between
from geossl.cube.settings import Value
from geossl.errors import LabelError, SceneError
from geossl.grid import Tile
from geossl.imagery.raster import SUFFIXES, open_raster, reading
from geossl.legend import NO_LABEL

_NOTHING = -(2**31)
"""Stands for "no label" among a raster's own numbers."""

_YEARS = (1900, 2100)
"""What a year of loss can be."""


class LabelFile(Protocol):
    """A file of labels, whatever its kind."""

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees."""
        ...

    def values(self, tiles: list[Tile]) -> list[Value]:
        """The distinct values that it has on these tiles, ascending."""
        ...

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        """(H, W) class codes on one tile; NO_LABEL where there is none."""
        ...

    def report(self, names: Mapping[int, str]) -> LabelReport:
        """What could not be used, once the codes of all tiles were asked for; by the classes' names."""
        ...


@dataclass(frozen=True)
class Look:
    """What a raster itself says of its numbers."""

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)
    """``#rrggbb``"""


class Raster:
    """A raster of class numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees."""
        with open_raster(str(self.path), "labels") as dataset:
            west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        return west, south, east, north

    @functools.cached_property
    def look(self) -> Look:
        """Names from the ``.aux.xml`` beside it (categories, or an attribute table), colours from its palette."""
        with open_raster(str(self.path), "labels") as dataset:
            try:
                palette = dataset.colormap(1)
            except ValueError:  # it has none
                palette = {}
        colors = {value: f"#{red:02x}{green:02x}{blue:02x}" for value, (red, green, blue, _) in palette.items()}
        return Look(_names(self.path.with_name(f"{self.path.name}.aux.xml")), colors)

    def values(self, tiles: list[Tile]) -> list[Value]:
        found = {int(value) for tile in tiles for value in np.unique(self._read(tile))}
        return sorted(found - {_NOTHING})

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        raw = self._read(tile)
        codes = np.full(tile.shape, NO_LABEL, np.uint8)
        for value, code in table.items():
            codes[raw == value] = code
        return codes

    def report(self, names: Mapping[int, str]) -> LabelReport:  # noqa: ARG002  # of the protocol
        return LabelReport()

    def _read(self, tile: Tile) -> NDArray[np.int32]:
        """(H, W) the raster's own numbers, each of the pixel that holds the centre of the tile's pixel."""
        raw = np.full(tile.shape, _NOTHING, np.int32)
        try:
            with open_raster(str(self.path), "labels") as dataset:
                if dataset.crs is None:
                    raise LabelError(f"labels {self.path} have no coordinate system", "assign it, e.g. with gdal_edit")
                if np.dtype(dataset.dtypes[0]).kind not in "ui":
                    raise LabelError(
                        f"labels {self.path} hold {dataset.dtypes[0]}, not whole numbers",
                        "if they are classes, store them so: gdal_translate -ot Byte",
                    )
                with reading(dataset.name, "labels"):
                    reproject(
                        rasterio.band(dataset, 1),
                        raw,
                        src_nodata=dataset.nodata,
                        dst_nodata=_NOTHING,
                        dst_transform=tile.transform,
                        dst_crs=tile.grid.crs,
                        resampling=Resampling.nearest,
                        tolerance=1e-5,  # of a source pixel: twenty times faster than exact, and no pixel differs
                    )
        except SceneError as error:
            raise LabelError(error.what, error.remedy) from error
        return raw


class LossYears(Raster):
    """A raster of the year of loss, such as Hansen's ``lossyear``: n stands for the year ``offset`` + n, 0 for no loss.

    A year wholly between the two dates: a clearing. An earlier one, or one that lies only partly between them:
    no label. Later ones and no loss: no change.
    """

    def __init__(self, path: Path, offset: int, dates: tuple[dt.date, dt.date], area: Area | None) -> None:
        super().__init__(path)
        self._offset, self._dates, self._area = offset, dates, area
        self._undecided = 0

    def values(self, tiles: list[Tile]) -> list[Value]:
        numbers = [int(value) for value in super().values(tiles)]
        for number in numbers:
            if number and not _YEARS[0] <= number + self._offset <= _YEARS[1]:
                raise LabelError(
                    f"labels {self.path} hold {number}, which with `year_offset: {self._offset}` is the year "
                    f"{number + self._offset}",
                    "set `year_offset` to what must be added: 2000 for Hansen's lossyear, 0 where years are written "
                    "out; declare any other number as the raster's no-data",
                )
        return [NO_CHANGE, CLEARING] if numbers else []

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        raw = self._read(tile)
        numbers = np.unique(raw[(raw != _NOTHING) & (raw != 0)])
        first, after = ((numbers + self._offset + more - 1970).astype("datetime64[Y]") for more in (0, 1))
        last = (after.astype("datetime64[D]").astype(np.int64) - 1).astype("datetime64[D]")
        inside, neither, straddling = between(first.astype("datetime64[D]"), last, self._dates)
        codes = np.full(tile.shape, table[NO_CHANGE], np.uint8)
        codes[np.isin(raw, numbers[neither]) | (raw == _NOTHING)] = NO_LABEL
        codes[np.isin(raw, numbers[inside])] = table[CLEARING]
        seen = np.isin(raw, numbers[straddling])
        if self._area is not None:
            looked_at = self._area.looked_at(tile)
            codes[~looked_at] = NO_LABEL
            seen &= looked_at
        self._undecided += int(seen.sum())
        return codes

    def report(self, names: Mapping[int, str]) -> LabelReport:
        found = super().report(names)
        found.undecided = self._undecided
        return found


def is_raster(path: Path) -> bool:
    """Whether a file of that name is taken for a raster."""
    return path.suffix.lower() in SUFFIXES


def _names(path: Path) -> dict[int, str]:
    """Value → name, from GDAL's side-car file; nothing where there is none."""
    try:
        band = ET.parse(path).find("PAMRasterBand")
    except (OSError, ET.ParseError):
        return {}
    if band is None:
        return {}
    names = {value: (entry.text or "").strip() for value, entry in enumerate(band.iterfind("CategoryNames/Category"))}
    if (table := band.find("GDALRasterAttributeTable")) is not None:
        # GDAL's usages: 2 name, 5 value, 3 lowest value
        usage = [field.findtext("Usage") for field in table.iterfind("FieldDefn")]
        value = next((usage.index(kind) for kind in ("5", "3") if kind in usage), None)
        if value is not None and "2" in usage:
            for row in table.iterfind("Row"):
                cells = [cell.text or "" for cell in row.iterfind("F")]
                if cells[value].strip().lstrip("-").isdigit():
                    names[int(cells[value])] = cells[usage.index("2")].strip()
    return {value: name for value, name in names.items() if name}
