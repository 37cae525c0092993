"""The kinds of files that labels come in, each read tile by tile."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import rasterio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from geossl.cube.settings import Value
from geossl.errors import LabelError, SceneError
from geossl.grid import Tile
from geossl.imagery.raster import open_raster
from geossl.legend import CHANGE, NO_LABEL

_NOTHING = -(2**31)
"""Stands for "no label" among a raster's own numbers."""

_NO_CHANGE, _CLEARING = CHANGE.codes


class Raster:
    """A raster of class numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def values(self, tiles: list[Tile]) -> list[Value]:
        found = {int(value) for tile in tiles for value in np.unique(self._read(tile))}
        return sorted(found - {_NOTHING})

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        raw = self._read(tile)
        codes = np.full(tile.shape, NO_LABEL, np.uint8)
        for value, code in table.items():
            codes[raw == value] = code
        return codes

    def _read(self, tile: Tile) -> NDArray[np.int32]:
        """(H, W) the raster's own numbers, each of the pixel that holds the centre of the tile's pixel."""
        raw = np.full(tile.shape, _NOTHING, np.int32)
        try:
            with open_raster(str(self.path), "labels") as dataset:
                if dataset.crs is None:
                    raise LabelError(f"labels {self.path} have no coordinate system", "assign it, e.g. with gdal_edit")
                if np.dtype(dataset.dtypes[0]).kind not in "ui":
                    raise LabelError(f"labels {self.path} hold {dataset.dtypes[0]}, not whole numbers")
                reproject(
                    rasterio.band(dataset, 1),
                    raw,
                    src_nodata=dataset.nodata,
                    dst_nodata=_NOTHING,
                    dst_transform=tile.transform,
                    dst_crs=tile.grid.crs,
                    resampling=Resampling.nearest,
                    tolerance=1e-3,  # of a source pixel: ten times faster than exact, and no pixel differs
                )
        except SceneError as error:
            raise LabelError(error.what, error.remedy) from error
        return raw


class Shapes:
    """Polygons, lines or points with a column that names their class."""

    def __init__(self, path: Path, layer: str | None, column: str | None, crs: str) -> None:
        self.frame = read_vector(path, layer, crs)
        if column is None:
            raise LabelError(f"labels {path} do not say which column names the class", _set_one("column", self.frame))
        values = pick_column(self.frame, column, "column", path)
        self.classes = np.array([_value(value, path, column) for value in values], dtype=object)

    def values(self, tiles: list[Tile]) -> list[Value]:
        found = {value for tile in tiles for value in self.classes[_near(self.frame, tile)]}
        return sorted(found - {None}, key=lambda value: (isinstance(value, str), value))

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        """Where shapes overlap, the later one of the file lies on top."""
        near = _near(self.frame, tile)
        codes = np.array([table.get(value, NO_LABEL) for value in self.classes[near]], np.uint8)
        return burn(self.frame.iloc[near], codes, tile, np.full(tile.shape, NO_LABEL, np.uint8))


class DatedShapes:
    """Clearings with their dates, which make change labels for any two states.

    Cleared after ``before`` and not after ``after``: a clearing. Cleared earlier, or at an unknown
    date: no label. All other ground that was looked at: no change.
    """

    def __init__(
        self, path: Path, layer: str | None, column: str, crs: str, dates: tuple[dt.date, dt.date], area: Path | None
    ) -> None:
        self.frame = read_vector(path, layer, crs)
        when = _days(pick_column(self.frame, column, "date_column", path))
        before, after = (np.datetime64(date) for date in dates)
        self.inside = (when > before) & (when <= after)
        self.unknown = np.isnat(when) | (when <= before)
        self.area = None if area is None else read_vector(area, None, crs)

    def values(self, tiles: list[Tile]) -> list[Value]:
        return [_NO_CHANGE, _CLEARING] if any(_near(self.frame, tile).size for tile in tiles) else []

    def codes(self, tile: Tile, table: Mapping[Value, int]) -> NDArray[np.uint8]:
        codes = np.full(tile.shape, NO_LABEL if self.area is not None else table[_NO_CHANGE], np.uint8)
        if self.area is not None:
            near = _near(self.area, tile)
            codes = burn(self.area.iloc[near], np.full(near.size, table[_NO_CHANGE], np.uint8), tile, codes)
        looked_at = codes != NO_LABEL
        near = _near(self.frame, tile)
        # ground cleared twice was cleared in between if one of the dates says so
        for chosen, code in ((self.unknown, NO_LABEL), (self.inside, table[_CLEARING])):
            which = near[chosen[near]]
            codes = burn(self.frame.iloc[which], np.full(which.size, code, np.uint8), tile, codes)
        codes[~looked_at] = NO_LABEL
        return codes


def read_vector(path: Path, layer: str | None, crs: str) -> geopandas.GeoDataFrame:
    """Features with a geometry, in the grid's coordinate system.

    Raises
    ------
    LabelError
        The file or layer cannot be read, or has no coordinate system.
    """
    try:
        layers = pyogrio.list_layers(path)[:, 0].tolist()
        if layer is None and len(layers) > 1:
            raise LabelError(f"{path} has several layers", f"set `layer` to one of {', '.join(layers)}")
        frame = geopandas.read_file(path, layer=layer)
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(f"labels cannot be read from {path}: {error}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise LabelError(f"{path} has no geometries, so its rows lie nowhere")
    if frame.crs is None:
        raise LabelError(f"labels {path} have no coordinate system", "assign it, e.g. save the layer again in QGIS")
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    return frame.to_crs(crs).reset_index(drop=True)


def pick_column(frame: geopandas.GeoDataFrame, name: str, setting: str, path: Path) -> pd.Series[Any]:
    """The column of that name; :class:`LabelError` names those that exist."""
    if name not in frame.columns or name == frame.geometry.name:
        raise LabelError(f"labels {path} have no column {name!r}", _set_one(setting, frame))
    return frame[name]


def burn(
    frame: geopandas.GeoDataFrame, codes: NDArray[np.uint8], tile: Tile, onto: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """A copy of ``onto`` (H, W) with the code of each feature where it holds a pixel's centre."""
    if not len(frame):
        return onto.copy()
    return rasterize(
        zip(frame.geometry, codes.tolist(), strict=True),
        out=onto.copy(),
        transform=tile.transform,
        all_touched=False,
    )


def _near(frame: geopandas.GeoDataFrame, tile: Tile) -> NDArray[np.intp]:
    """Positions of the features that may touch a tile, in the order of the file."""
    return np.sort(frame.sindex.query(tile.extent.geom))


def _set_one(setting: str, frame: geopandas.GeoDataFrame) -> str:
    names = [str(name) for name in frame.columns if name != frame.geometry.name]
    return f"set `{setting}` to one of {', '.join(names)}" if names else "the file has no columns"


def _value(value: Any, path: Path, column: str) -> Value | None:
    """A class as settings write it: a whole number or a word; None where the file says nothing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | np.integer | np.floating | np.bool_) and float(value).is_integer():
        return int(value)
    raise LabelError(f"column {column!r} of {path} holds {value!r}, neither a whole number nor a word")


def _days(values: pd.Series[Any]) -> NDArray[np.datetime64]:
    """Dates, NaT where there is none. Bare years, as numbers or text, count as their last day."""
    text = values.astype("string").str.strip()
    years = text.str.fullmatch(r"\d{4}(\.0)?").fillna(value=False)
    text = text.mask(years, text.str[:4] + "-12-31")
    days: NDArray[np.datetime64] = (
        pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601").dt.tz_localize(None).to_numpy("datetime64[D]")
    )
    return days
