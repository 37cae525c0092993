"""Vector files as labels want them: read, brought to the grid, repaired, and burned where they hold pixel centres."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import rasterize
from rasterio.windows import Window, transform

from geossl.cube.label_report import MOST, Features, LabelReport
from geossl.errors import LabelError
from geossl.grid import Tile

PARQUET = (".parquet", ".geoparquet")

_SAVE_AGAIN = "assign it, e.g. save the layer again in QGIS"


@dataclass
class Vectors:
    """The usable features of one or more files, in the order of the files, in the grid's coordinate system.

    Which of them hold a pixel's centre is noted while tiles are burned.
    """

    frame: geopandas.GeoDataFrame
    ids: NDArray[np.object_]
    """(N,) what names each feature: its number as QGIS shows it; of several files with the file's name."""
    shapes: int
    """Features of the files, also those that cannot be used."""
    bounds: tuple[float, float, float, float] | None
    """West, south, east, north of all features in degrees; None where there is none."""
    repaired: list[str]
    aside: dict[str, str]
    """Feature → why it cannot be used."""

    def __post_init__(self) -> None:
        self._touches = np.zeros(len(self.frame), bool)
        self._holds = np.zeros(len(self.frame), bool)

    def near(self, tile: Tile) -> NDArray[np.intp]:
        """Positions of the features that touch a tile, in the order of the file."""
        found: NDArray[np.intp] = np.sort(self._index.query(tile.extent.geom, predicate="intersects"))
        self._touches[found] = True
        return found

    def burn(
        self, positions: NDArray[np.intp], codes: Sequence[int] | NDArray[Any], tile: Tile, onto: NDArray[Any]
    ) -> NDArray[Any]:
        """A copy of ``onto`` (H, W) with the code of each feature where it holds a pixel's centre; the last one wins."""
        if not positions.size:
            return onto.copy()
        return rasterize(
            zip(self.frame.geometry.iloc[positions], np.asarray(codes).tolist(), strict=True),
            out=onto.copy(),
            transform=tile.transform,
            all_touched=False,
        )

    def note(self, positions: NDArray[np.intp], tile: Tile) -> None:
        """Remember which of these features hold the centre of a pixel of the tile."""
        numbers = self.burn(positions, positions + 1, tile, np.zeros(tile.shape, np.int32))
        seen = np.unique(numbers)
        self._holds[seen[seen > 0] - 1] = True
        for position in positions[~self._holds[positions]]:  # nothing to be seen: hidden by others, or a sliver
            self._holds[position] = _holds_centre(self.frame.geometry.iloc[position], tile)

    def findings(self, asked: NDArray[np.bool_]) -> LabelReport:
        """What there is to say once all tiles were burned; ``asked`` (N,) are those that were to be burned."""
        return LabelReport(
            shapes=self.shapes,
            outside=self.shapes - len(self.aside) - int(self._touches.sum()),
            slivers=Features.of(self.ids[asked & self._touches & ~self._holds].tolist()),
            repaired=Features.of(self.repaired),
            aside=dict(list(self.aside.items())[:MOST]),
            set_aside=len(self.aside),
        )

    def touching(self, which: NDArray[np.bool_]) -> Features:
        """Those of (N,) which that lie on a tile."""
        return Features.of(self.ids[which & self._touches].tolist())

    @functools.cached_property
    def _index(self) -> Any:
        return self.frame.sindex


def read_vectors(paths: Sequence[Path], layer: str | None, crs: str) -> Vectors:
    """The features of vector files; broken geometries are repaired, or set aside with the reason.

    Raises
    ------
    LabelError
        A file or layer cannot be read, or has no coordinate system.
    """
    parts = [_read(path, layer) for path in paths]
    names: list[str] = []
    for path, part in zip(paths, parts, strict=True):
        names += [f"{path.name}:{number}" if len(paths) > 1 else str(number) for number in part.index]
    shapes = len(names)
    there = [part.geometry[~(part.geometry.isna() | part.geometry.is_empty)] for part in parts]
    bounds = [part.to_crs("EPSG:4326").total_bounds for part in there if len(part)]
    ends = np.array([found for found in bounds if np.isfinite(found).all()])
    frame = pd.concat([part.to_crs(crs) for part in parts], ignore_index=True)
    frame, ids, repaired, aside = _repair(frame, np.array(names, object))
    return Vectors(
        frame,
        ids,
        shapes,
        (*ends[:, :2].min(axis=0).tolist(), *ends[:, 2:].max(axis=0).tolist()) if len(ends) else None,
        repaired,
        aside,
    )


def pick_column(vectors: Vectors, name: str, setting: str, paths: Sequence[Path]) -> pd.Series[Any]:
    """The column of that name.

    Raises
    ------
    LabelError
        There is none, and these are there; or not one feature says anything in it.
    """
    frame = vectors.frame
    where = ", ".join(map(str, paths))
    if name not in frame.columns or name == frame.geometry.name:
        raise LabelError(f"labels {where} have no column {name!r}", set_one(setting, frame))
    values = frame[name]
    if len(values) and (values.isna() | (values.astype("string").str.strip() == "")).all():
        raise LabelError(
            f"column {name!r} of {where} is empty: none of its {len(values)} shapes says anything there",
            f"fill it in (in QGIS: switch editing on, then the attribute table), or {set_one(setting, frame)}",
        )
    return values


def set_one(setting: str, frame: geopandas.GeoDataFrame) -> str:
    """What to set, from what there is."""
    names = [str(name) for name in frame.columns if name != frame.geometry.name]
    return f"set `{setting}` to one of {', '.join(names)}" if names else "the file has no columns"


def _read(path: Path, layer: str | None) -> geopandas.GeoDataFrame:
    """All features of a file, by the numbers that other programs give them."""
    try:
        if path.suffix.lower() in PARQUET:
            frame = geopandas.read_parquet(path)
        else:
            # a table without geometries, such as the styles that QGIS keeps in a GeoPackage, is no layer of labels
            layers = [name for name, kind in pyogrio.list_layers(path).tolist() if kind is not None]
            if layer is None and len(layers) > 1:
                raise LabelError(f"{path} has several layers", f"set `layer` to one of {', '.join(layers)}")
            layer = layer or next(iter(layers), None)
            frame = geopandas.read_file(path, layer=layer, fid_as_index=True, on_invalid="ignore")
    except (DataSourceError, DataLayerError, OSError, ValueError, pyarrow.ArrowException) as error:
        raise LabelError(f"labels cannot be read from {path}: {error}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise LabelError(f"{path} has no geometries, so its rows lie nowhere")
    if frame.crs is None:
        raise LabelError(f"labels {path} have no coordinate system", _SAVE_AGAIN)
    return frame if frame.geometry.name == "geometry" else frame.rename_geometry("geometry")


def _repair(
    frame: geopandas.GeoDataFrame, ids: NDArray[np.object_]
) -> tuple[geopandas.GeoDataFrame, NDArray[np.object_], list[str], dict[str, str]]:
    """The usable features and their ids; the ids of those that were repaired; why others cannot be."""
    shapes = np.asarray(frame.geometry, object).copy()
    aside: dict[str, str] = {}
    repaired: list[str] = []
    bounds = shapely.bounds(shapes)
    for position in np.flatnonzero(shapely.is_missing(shapes) | shapely.is_empty(shapes)):
        aside[ids[position]] = "it has no geometry that can be read"
    for position in np.flatnonzero(~shapely.is_valid(shapes)):
        if ids[position] in aside:
            continue
        if not np.isfinite(bounds[position]).all():
            aside[ids[position]] = "it has coordinates that are no place on the grid"
            continue
        mended = _mended(shapes[position])
        if mended.is_empty:
            aside[ids[position]] = f"its geometry is broken beyond repair: {shapely.is_valid_reason(shapes[position])}"
        else:
            shapes[position] = mended
            repaired.append(ids[position])
    keep = ~np.isin(ids, list(aside)) if aside else np.ones(len(ids), bool)
    frame = frame.set_geometry(geopandas.GeoSeries(shapes, crs=frame.crs))
    return frame[keep].reset_index(drop=True), ids[keep], repaired, aside


def _mended(shape: Any) -> Any:
    """A valid geometry of the same kind (polygons stay polygons); empty where nothing of it is left."""
    mended = shapely.make_valid(shape)
    dimension = shapely.get_dimensions(shape)
    parts = shapely.get_parts(shapely.get_parts(mended))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == dimension])


def _holds_centre(shape: Any, tile: Tile) -> bool:
    """Whether one geometry holds the centre of a pixel of a tile, whatever lies over it."""
    left, bottom, right, top = shape.bounds
    (first, start), (last, end) = ((~tile.transform) @ (left, top), (~tile.transform) @ (right, bottom))
    height, width = tile.shape
    rows = max(int(start) - 1, 0), min(int(end) + 2, height)
    cols = max(int(first) - 1, 0), min(int(last) + 2, width)
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        return False
    window = Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
    return bool(
        rasterize(
            [shape], out_shape=(int(window.height), int(window.width)), transform=transform(window, tile.transform)
        ).any()
    )
