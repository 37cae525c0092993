"""Settling what the project file leaves open about the grid, by looking at the first scene."""

from __future__ import annotations

from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geossl.grid import AREA_TOLERANCE, Grid, areal_scale, crs_name
from geossl.project.settings import GridSettings


def choose_grid(wanted: GridSettings, scene: GeoBox) -> Grid:
    """The grid of a project.

    A scene that is in metres, north-up and of square pixels gives CRS, pixel size and the corner
    where tiles start, so that it is stored without resampling. Any other scene, and one whose CRS is not
    true to area there (Web Mercator), gives its UTM zone and a pixel size like its own, to two digits;
    tiles then start at the origin of that zone, as for every project there.
    """
    assert scene.crs is not None, "imagery refuses scenes without a CRS"
    if wanted.crs != "auto":
        crs = CRS(wanted.crs)
    elif scene.crs.projected and set(scene.crs.units) == {"metre"} and _keeps_areas(scene):
        crs = scene.crs
    else:
        crs = CRS.utm(scene.extent)
    if crs == scene.crs and scene.axis_aligned and _is_square(scene):
        own = abs(scene.resolution.x)
        if wanted.resolution in ("auto", own):
            return Grid(crs_name(crs), own, wanted.tile, (scene.affine.c, scene.affine.f), bands=wanted.bands)
    if wanted.resolution != "auto":
        return Grid(crs_name(crs), wanted.resolution, wanted.tile, bands=wanted.bands)
    # as large as on the ground: pixels of Web Mercator are not what they say
    there = scene if crs == scene.crs else scene.to_crs(crs, resolution="fit")
    resolution = float(f"{(abs(there.resolution.x) + abs(there.resolution.y)) / 2:.2g}")
    return Grid(crs_name(crs), resolution, wanted.tile, bands=wanted.bands)


def _keeps_areas(box: GeoBox) -> bool:
    middle = box.extent.centroid.coords[0]
    return abs(areal_scale(str(box.crs), *middle) - 1) <= AREA_TOLERANCE


def _is_square(box: GeoBox) -> bool:
    x, y = box.resolution.xy
    return x > 0 > y and x == -y
