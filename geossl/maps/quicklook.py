"""Small pictures of a map in its legend's colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from geossl.files import aside
from geossl.legend import Legend


def render(codes: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """Class codes (H, W) → RGBA (H, W, 4); whatever is not a class is transparent."""
    table = np.zeros((256, 4), np.uint8)
    for code, rgba in legend.colormap().items():
        table[code] = rgba
    return table[codes]


def write_quicklook(path: Path, classes: Path, legend: Legend, *, side: int = 768) -> None:
    """A PNG of a class raster, at most ``side`` pixels wide and high, read from its overviews."""
    with rasterio.open(classes) as raster:
        factor = max(1.0, max(raster.shape) / side)
        shape = tuple(max(1, round(length / factor)) for length in raster.shape)
        codes = raster.read(1, out_shape=shape)
    with aside(path) as partial:
        Image.fromarray(render(codes, legend)).save(partial, format="PNG", optimize=True)
