"""A picture of the imagery for the background of maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geossl.files import aside
from geossl.grid import Grid

BACKGROUND = "background.tif"
"""Name of the picture below the maps' root."""

_CAPTION = "TIFFTAG_IMAGEDESCRIPTION"


def write_picture(
    path: Path,
    picture: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    grid: Grid,
    origin: tuple[int, int],
    every: int,
    text: str,
) -> None:
    """Write a picture as GeoTIFF of red, green, blue and alpha, with overviews.

    Parameters
    ----------
    picture:
        (H, W, 3).
    seen:
        (H, W); the rest is transparent.
    origin:
        Row and column of its first pixel in the grid's pixel lattice.
    every:
        Grid pixels per picture pixel.
    text:
        What it shows.
    """
    (row, col), size = origin, grid.resolution
    transform = Affine(size * every, 0, grid.origin[0] + col * size, 0, -size * every, grid.origin[1] - row * size)
    height, width = seen.shape
    profile = {
        "driver": "COG", "dtype": "uint8", "count": 4, "height": height, "width": width,
        "crs": grid.crs, "transform": transform,
        "compress": "deflate", "predictor": "yes", "overview_resampling": "average",
    }  # fmt: skip
    with aside(path) as partial, rasterio.open(partial, "w", **profile) as raster:
        raster.update_tags(**{_CAPTION: text})
        raster.write(np.concatenate([picture.transpose(2, 0, 1), np.where(seen, 255, 0).astype(np.uint8)[None]]))
        raster.colorinterp = [getattr(rasterio.enums.ColorInterp, name) for name in ("red", "green", "blue", "alpha")]


def caption(path: Path) -> str:
    """What a picture shows; empty where that was not written down."""
    with rasterio.open(path) as raster:
        return str(raster.tags().get(_CAPTION, ""))
