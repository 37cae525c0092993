"""Arrays → pictures that people can read, and pictures → data URIs that a page can carry."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geossl.bands import Sensor, Statistics
from geossl.legend import NO_LABEL, Legend
from geossl.report.records import Picture

NOTHING = (232, 232, 228)
"""Colour of pixels without data."""

OVERLAYS = ((213, 94, 0), (0, 114, 178), (204, 121, 167), (230, 159, 0), (0, 158, 115))
"""Colour-blind-safe colours of masks (Okabe & Ito 2008), in order of use."""


def quicklook(image: NDArray[Any], sensor: Sensor, statistics: Statistics) -> Picture:
    """The most natural colours of a (C, H, W) array of stored values, stretched from p02 to p98.

    No-data becomes :data:`NOTHING`. Returns (H, W, 3) uint8.
    """
    return natural(np.asarray(image)[list(sensor.rgb())], sensor, statistics)


def natural(stored: NDArray[Any], sensor: Sensor, statistics: Statistics) -> Picture:
    """:func:`quicklook` of the (3, H, W) bands that it shows."""
    bands = list(sensor.rgb())
    low, high = (np.array([p[b] for b in bands]) for p in (statistics.p02, statistics.p98))
    missing = np.isnan(sensor.radiometry.to_physical(stored)).any(axis=0)
    return stretched(stored, missing, low, high)


def stretched(stored: NDArray[Any], missing: NDArray[np.bool_], low: NDArray[Any], high: NDArray[Any]) -> Picture:
    """(3, H, W) numbers as a picture: from a little below ``low`` (black) to ``high`` (white), a pair each band."""
    low, high = (ends.astype(np.float32)[:, None, None] for ends in (low, high))
    low = low - 0.15 * (high - low)  # keeps dark water and forest apart
    share = np.clip((stored.astype(np.float32) - low) / np.maximum(high - low, 1e-6), 0, 1) ** 0.85
    picture = np.nan_to_num(share * 255).round().astype(np.uint8).transpose(1, 2, 0)
    picture[missing] = NOTHING
    return picture


def shrink(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """At most ``side`` pixels high and wide: pictures by averaging, (H, W) codes by the nearest."""
    height, width = array.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return array
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = Image.Resampling.NEAREST if array.ndim == 2 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(size, how))


def overlay(picture: Picture, layers: Mapping[str, NDArray[np.bool_]]) -> Picture:
    """The picture, faded, with every mask (H, W) in its own colour of :data:`OVERLAYS`."""
    shown = picture.astype(np.float32) * 0.75 + 60
    for colour, mask in zip(OVERLAYS, layers.values(), strict=False):
        shown[mask] = 0.3 * shown[mask] + 0.7 * np.array(colour, np.float32)
    return shown.clip(0, 255).astype(np.uint8)


def photo_uri(picture: Picture) -> str:
    """A (H, W, 3) picture as a ``data:`` URI (WebP)."""
    return _uri(Image.fromarray(np.ascontiguousarray(picture)), "webp", quality=82, method=4)


def map_uri(codes: NDArray[np.uint8], legend: Legend) -> str:
    """A (H, W) class map in its legend's colours as a ``data:`` URI (PNG with a palette)."""
    palette = np.full((256, 3), NOTHING, np.uint8)
    for land_class in legend:
        palette[land_class.code] = land_class.rgb
    image = Image.fromarray(np.ascontiguousarray(codes), mode="P")
    image.putpalette(palette.tobytes())
    return _uri(image, "png", optimize=True)


def map_over(codes: NDArray[np.uint8], legend: Legend, ground: Picture) -> Picture:
    """A (H, W) class map over a picture, which shows where the map has no data or the legend's first class."""
    shown = ground.copy()
    for land_class in list(legend)[1:]:
        shown[codes == land_class.code] = land_class.rgb
    return shown


def svg_uri(svg: str) -> str:
    """An SVG document as a ``data:`` URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def shares(codes: NDArray[np.uint8], legend: Legend) -> Sequence[float]:
    """Share of the mapped pixels (all but no-data) that each class of the legend holds."""
    counts = np.bincount(codes.ravel(), minlength=256)
    mapped = max(int(counts.sum() - counts[NO_LABEL]), 1)
    return [float(counts[code] / mapped) for code in legend.codes]
