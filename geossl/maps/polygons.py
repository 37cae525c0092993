"""Polygons of a map as GeoPackage and GeoParquet."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geossl.files import aside
from geossl.legend import Legend
from geossl.maps.cog import CONFIDENCE_SCALE, Extent
from geossl.maps.patches import Patches, stream_patches
from geossl.maps.tiles import TileRecord
from geossl.progress import Progress, silent

LAYER = "polygons"
"""Name of the layer in the GeoPackage."""


def write_polygons(
    path: Path,
    classes: Path,
    confidence: Path,
    records: Sequence[TileRecord],
    extent: Extent,
    legend: Legend,
    *,
    minimum_ha: float = 0.0,
    tolerance: float = 0.0,
    codes: Collection[int] | None = None,
    progress: Progress = silent,
) -> int:
    """Write a map's polygons as GeoPackage (``path``) and GeoParquet (beside it, ``.parquet``).

    Fields: ``class_code``, ``class_name``, ``area_ha`` (of the patch's pixels, equal-area, whatever the map
    projection and however outlines are simplified),
    ``confidence`` (mean, 0 … 1), ``date_from`` and ``date_to`` (earliest and latest acquisition).

    Parameters
    ----------
    classes, confidence:
        Rasters over ``extent`` as :mod:`geossl.maps.cog` writes them.
    minimum_ha:
        Minimum mapping unit. Smaller patches join their largest neighbour, or are left out where
        they have none.
    tolerance:
        In pixels: corners of outlines smaller than that are cut, without gaps between neighbours; 0: none.
    codes:
        Classes to make polygons of; None: all.

    Returns
    -------
    How many polygons there are.
    """
    wanted = [land.code for land in legend if codes is None or land.code in codes]
    smallest = max(1, math.ceil(minimum_ha * 1e4 / extent.grid.resolution**2))
    area_crs = _equal_area(extent)
    names = dict(zip(legend.codes, legend.names, strict=True))
    written = 0
    parquet = path.with_suffix(".parquet")
    with (
        aside(path) as gpkg_partial,
        aside(parquet) as parquet_partial,
        _Parquet(parquet_partial) as rows,
    ):
        for patches in stream_patches(
            classes, confidence, records, extent, wanted, smallest, tolerance=tolerance, progress=progress
        ):
            frame = _to_frame(patches[patches.pixels >= smallest], extent, names, area_crs)
            if len(frame) or not written:  # the first one also says which fields there are
                pyogrio.write_dataframe(
                    frame,
                    gpkg_partial,
                    driver="GPKG",
                    layer=LAYER,
                    geometry_type="Polygon",
                    append=gpkg_partial.exists(),
                    use_arrow=True,
                    # what GDAL 3.6 and QGIS 3.22 read without a warning
                    dataset_options={"VERSION": "1.2"},
                )
                rows.write(frame)
            written += len(frame)
        if (found := pyogrio.read_info(gpkg_partial, layer=LAYER)["features"]) != written:
            raise OSError(f"{path} has {found} polygons where {written} were written")
    return written


def _equal_area(extent: Extent) -> CRS:
    """An equal-area projection around the middle of an extent."""
    left, bottom, right, top = extent.bounds
    to_degrees = Transformer.from_crs(extent.grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    return CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84")


def _to_frame(patches: Patches, extent: Extent, names: dict[int, str], area_crs: CRS) -> gpd.GeoDataFrame:
    """The published fields of finished patches."""
    matrix = extent.transform

    def to_crs(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return pixels * (matrix.a, matrix.e) + (matrix.c, matrix.f)

    shapes = gpd.GeoSeries(shapely.transform(patches.polygons(), to_crs), crs=extent.grid.crs)
    pixels_ha = patches.pixels * abs(matrix.a * matrix.e) / 1e4
    scale = shapes.to_crs(area_crs).area.to_numpy() / shapes.area.to_numpy()
    columns = {
        "class_code": pa.array(patches.code, pa.int32()),
        "class_name": pa.array([names[code] for code in patches.code], pa.string()),
        "area_ha": pa.array(pixels_ha * scale, pa.float64()),
        "confidence": pa.array(patches.percent / patches.pixels * CONFIDENCE_SCALE, pa.float64()),
        "date_from": pa.array(patches.first.astype(np.int32), pa.int32()).cast(pa.date32()),
        "date_to": pa.array(patches.last.astype(np.int32), pa.int32()).cast(pa.date32()),
    }
    # pandas' own types have no plain dates
    return gpd.GeoDataFrame(pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype), geometry=shapes)


class _Parquet:
    """A GeoParquet 1.1 file written a batch of rows at a time, which geopandas cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, frame: gpd.GeoDataFrame) -> None:
        table = pa.Table.from_pandas(frame.to_wkb(), preserve_index=False)
        # of no rows pandas does not know what they would hold
        at = table.schema.get_field_index("geometry")
        table = table.set_column(at, "geometry", table["geometry"].cast(pa.binary()))
        column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": frame.crs.to_json_dict()}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        table = table.replace_schema_metadata({"geo": json.dumps(geo)})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
