"""The truth as vector labels: land cover wall to wall, and dated clearings."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import geopandas
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio import features
from shapely.geometry import shape

from geossl.demo.cover import LANDCOVER
from geossl.demo.world import World

_SMALLEST = 12
"""Patches under this many pixels (0.12 ha) go to their largest neighbour, as interpreters do."""


def land_cover(world: World, day: date, box: GeoBox) -> geopandas.GeoDataFrame:
    """Polygons with the column ``class`` that cover the square without gap or overlap."""
    codes = features.sieve(world.land_cover(day), _SMALLEST)
    names = {c.code: c.name for c in LANDCOVER}
    found = [(shape(polygon), names[int(code)]) for polygon, code in features.shapes(codes, transform=box.affine)]
    return geopandas.GeoDataFrame(
        {"class": [name for _, name in found]}, geometry=[g for g, _ in found], crs=str(box.crs)
    )


def clearings(world: World, box: GeoBox) -> geopandas.GeoDataFrame:
    """One polygon a clearing with its ``date`` and ``area_ha``, all years, in order of date."""
    rows = []
    for clearing in sorted(world.clearings, key=lambda c: c.date):
        mask: NDArray[np.uint8] = np.zeros(world.size * world.size, np.uint8)
        mask[clearing.pixels] = 1
        mask = mask.reshape(world.size, world.size)
        polygon = next(
            shape(g) for g, _ in features.shapes(mask, mask=mask.astype(bool), transform=box.affine, connectivity=8)
        )
        rows.append({"date": clearing.date.isoformat(), "area_ha": round(clearing.hectares, 2), "geometry": polygon})
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs=str(box.crs))


def write_labels(folder: Path, world: World, day: date, box: GeoBox) -> tuple[Path, Path]:
    """Write ``landcover.gpkg`` (as on a day) and ``clearings.gpkg``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "landcover.gpkg", folder / "clearings.gpkg"
    for path, frame in zip(paths, (land_cover(world, day, box), clearings(world, box)), strict=True):
        path.unlink(missing_ok=True)
        frame.to_file(path, driver="GPKG", layer=path.stem)
    return paths
