"""Rasters that are located by ground control points only: how well the points agree, and roughly where they are.

GDAL warps such a raster by a polynomial through its points. A polynomial always gives an answer, so what
its residuals say is looked at first.
"""

from __future__ import annotations

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.io import DatasetReader

from geossl.errors import SceneError

ORDER = 2
"""Order of the polynomial from pixels to coordinates."""

_FEWEST = 10
"""Points; the polynomial goes through any 6, whether they are right or not."""

_WORST = 1.0
"""Pixels that a point may lie off the polynomial."""

_SPREAD = 0.8
"""Share of the raster's width and height that the points must span: outside of them it is guessed."""


def by_points(dataset: DatasetReader) -> bool:
    """Whether ground control points alone say where an open file is."""
    return bool(dataset.transform.is_identity and dataset.gcps[0])


def rough_box(dataset: DatasetReader, name: str) -> GeoBox:
    """A (rotated) box of about the raster's pixels that holds the raster and has its coordinate system.

    Parameters
    ----------
    name:
        Of the file, and whose it is, to begin the message of an error.

    Raises
    ------
    SceneError
        The points have no coordinate system, are few or close together, or contradict one another.
    """
    points, crs = dataset.gcps
    name += ", which is located by ground control points only,"
    remedy = "warp it to a map projection first (gdalwarp; radar: ESA SNAP, pyroSAR or sarsen)"
    if crs is None:
        raise SceneError(f"{name} does not say their coordinate system", remedy)
    pixels = np.array([(point.col, point.row) for point in points])
    places = np.array([(point.x, point.y) for point in points])
    size = np.array([dataset.width, dataset.height])
    if len(points) < _FEWEST or (np.ptp(pixels, axis=0) < _SPREAD * size).any():
        raise SceneError(f"{name} has {len(points)} of them: too few, or too close together, to be relied on", remedy)
    linear, *_ = np.linalg.lstsq(_terms(pixels, 1), places, rcond=None)
    curved, *_ = np.linalg.lstsq(_terms(pixels, ORDER), places, rcond=None)
    (c, f), (a, d), (b, e) = linear
    plane = Affine(a, b, c, d, e, f)
    if plane.is_degenerate:
        raise SceneError(f"{name} has them all on one line", remedy)
    across = np.linalg.inv([[a, b], [d, e]])
    off = float(np.abs((_terms(pixels, ORDER) @ curved - places) @ across.T).max())
    if off > _WORST:
        raise SceneError(f"{name} cannot be placed: its points lie up to {off:.1f} pixels off a smooth surface", remedy)
    edge = np.linspace(0, 1, 33)
    sides = [(edge, 0 * edge), (edge, 0 * edge + 1), (0 * edge, edge), (0 * edge + 1, edge)]
    border = np.concatenate([np.stack(side, axis=1) for side in sides]) * size
    seen = (_terms(border, ORDER) @ curved - (c, f)) @ across.T
    (left, top), (right, bottom) = np.floor(seen.min(axis=0)), np.ceil(seen.max(axis=0))
    return GeoBox((int(bottom - top), int(right - left)), plane @ Affine.translation(left, top), CRS(crs.to_string()))


def _terms(points: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """(n, 3 or 6) 1, x, y and for order 2 their products."""
    x, y = points.T
    terms = [np.ones_like(x), x, y]
    return np.stack(terms if order == 1 else [*terms, x * x, x * y, y * y], axis=1)
