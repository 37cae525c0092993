"""How fast a class raster becomes polygons with attributes, beside GDAL's own tools.

Ten million pixels, a hundred thousand polygons. Both sides write a GeoPackage with class code, class name and area on
an equal-area basis; ours also has mean confidence and dates, and writes the same as GeoParquet, and its areas are
of a projection around the map's middle, where GDAL's are of a global one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geossl.grid import Grid
from geossl.legend import LandClass, Legend
from geossl.maps.cog import Extent
from geossl.maps.polygons import LAYER, write_polygons
from geossl.maps.tiles import Source, TileRecord

from .harness import Sides, Skipped, bench, rate

SIDE = 3200
GRID = Grid("EPSG:32722", 10, 1024, (500_000, 9_500_000))
LEGEND = Legend(
    (LandClass(1, "water", "#2b83ba"), LandClass(2, "pasture", "#ffffbf"), LandClass(3, "forest", "#1a9641"))
)
SMOOTH = 1.8
"""Sigma of the noise that classes are made from, in pixels: a patch has about a hundred."""


@bench(
    "polygons-vs-gdal",
    unit="thousand polygons/s",
    reference="gdal_polygonize.py, then ogr2ogr with names and equal-area hectares",
    better="higher",
    goal=1.0,
    rounds=3,
)
def polygons_vs_gdal(folder: Path) -> Iterator[Sides]:
    """Without a minimum mapping unit, so that both sides have the same polygons."""
    if missing := [name for name in ("gdal_polygonize.py", "ogr2ogr") if shutil.which(name) is None]:
        raise Skipped(f"{' and '.join(missing)} not found (Debian: gdal-bin, python3-gdal)")
    extent = Extent(GRID, range(SIDE), range(SIDE))
    codes = _classes()
    classes, confidence = folder / "classes.tif", folder / "confidence.tif"
    _write(classes, codes, extent)
    _write(confidence, np.full_like(codes, 80), extent)
    records = [_record(tile_id) for tile_id in _tiles(extent)]
    ours, theirs, raw = folder / "ours.gpkg", folder / "theirs.gpkg", folder / "raw.gpkg"
    counts: dict[str, int] = {}

    def by_us() -> None:
        counts["ours"] = write_polygons(ours, classes, confidence, records, extent, LEGEND)

    def by_gdal() -> None:
        for path in (raw, theirs):
            path.unlink(missing_ok=True)
        _run("gdal_polygonize.py", "-q", str(classes), "-f", "GPKG", str(raw), LAYER, "class_code")
        names = " ".join(f"WHEN {land.code} THEN '{land.name}'" for land in LEGEND)
        sql = (
            f"SELECT geom, class_code, CASE class_code {names} END AS class_name, "
            f"ST_Area(ST_Transform(geom, 6933)) / 10000 AS area_ha FROM {LAYER}"
        )
        _run("ogr2ogr", "-f", "GPKG", str(theirs), str(raw), "-sql", sql, "-nln", LAYER, "-nlt", "POLYGON")

    by_gdal()
    found = _run("ogrinfo", "-so", str(theirs), LAYER)
    counts["gdal"] = int(next(line for line in found.splitlines() if line.startswith("Feature Count")).split()[-1])
    thousand = counts["gdal"] / 1e3
    yield Sides(lambda: rate(thousand, by_us), lambda: rate(thousand, by_gdal))
    assert counts["ours"] == counts["gdal"], counts
    print(f"  {counts['ours']:,} polygons on either side")


def _classes() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((SIDE, SIDE), np.float32), SMOOTH) for _ in LEGEND]
    return np.array(LEGEND.codes, np.uint8)[np.argmax(fields, axis=0)]


def _write(path: Path, pixels: NDArray[np.uint8], extent: Extent) -> None:
    height, width = pixels.shape
    profile = {"driver": "COG", "dtype": "uint8", "count": 1, "nodata": 255, "compress": "deflate"}
    with rasterio.open(
        path, "w", height=height, width=width, crs=GRID.crs, transform=extent.transform, **profile
    ) as file:
        file.write(pixels, 1)


def _tiles(extent: Extent) -> list[str]:
    last = (len(extent.rows) - 1) // GRID.tile_size + 1
    return [GRID[x, y].id for y in range(last) for x in range(last)]


def _record(tile_id: str) -> TileRecord:
    source = Source(tile_id, "scene", 0, "sum", "2024-06-01", "2024-06-01")
    return TileRecord(tile_id, "task", "collection", "snapshot", (256, 32, 32), (source,), None)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
