"""Quality flags: what a provider's mask says about each pixel, in one vocabulary.

Five masks are understood, each by a table: Sentinel-2's scene classification (``scl``), the bits of
``QA_PIXEL`` and of ``QA_RADSAT`` of Landsat Collection 2 (``qa_pixel``, ``qa_radsat``; USGS, LSDS-1618
and LSDS-1619), the classes of classic Fmask (``fmask``), and the bits that go by the same name in HLS
version 2 (``hls_fmask``; HLS Product User Guide 2.0, quality assessment layer).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

QualityKind = Literal["scl", "qa_pixel", "qa_radsat", "fmask", "hls_fmask"]
"""Which provider's mask a quality band is."""


class Quality(IntFlag):
    """Bits of a stored ``quality`` pixel (uint8); 0 is clear land."""

    NODATA = 1
    """Nothing was measured in at least one band."""
    CLOUD = 2
    SHADOW = 4
    """Cloud shadow."""
    SNOW = 8
    CIRRUS = 16
    SATURATED = 32
    """The provider says so, or the number did not fit the sensor's dtype and was clipped."""
    WATER = 64
    HELD = 128
    """The whole scene is held back, since it looks like a fault; see :mod:`geossl.cube.hold`."""


UNCLEAR = Quality.NODATA | Quality.CLOUD | Quality.SHADOW | Quality.SNOW | Quality.CIRRUS | Quality.HELD
"""Any of these: the ground was not seen."""


def is_clear(quality: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the ground was seen: none of :data:`UNCLEAR`. Any shape."""
    clear: NDArray[np.bool_] = (quality & np.uint8(UNCLEAR)) == 0
    return clear


_SCL_CLASSES = {
    0: Quality.NODATA,
    1: Quality.SATURATED,
    3: Quality.SHADOW,
    6: Quality.WATER,
    8: Quality.CLOUD,  # medium probability
    9: Quality.CLOUD,  # high probability
    10: Quality.CIRRUS,
    11: Quality.SNOW,
}  # 2 dark area, 4 vegetation, 5 bare, 7 unclassified: clear

_FMASK_CLASSES = {
    1: Quality.WATER,
    2: Quality.SHADOW,
    3: Quality.SNOW,
    4: Quality.CLOUD,
    255: Quality.NODATA,
}  # 0 land: clear

_QA_PIXEL_BITS = {
    0: Quality.NODATA,  # fill
    1: Quality.CLOUD,  # dilated cloud
    2: Quality.CIRRUS,  # high confidence
    3: Quality.CLOUD,
    4: Quality.SHADOW,
    5: Quality.SNOW,
    7: Quality.WATER,
}  # 6 says clear; 8 … 15 are confidences

_QA_RADSAT_BITS = dict.fromkeys((0, 1, 2, 3, 4, 5, 6, 8), Quality.SATURATED) | {
    9: Quality.NODATA,  # dropped pixel (Landsat 4-7)
    11: Quality.NODATA,  # terrain occlusion (Landsat 8-9): other ground than this pixel's was seen
}  # 0 … 6 are bands 1 … 7, 8 is band 9 of Landsat 8-9 and band 6 in high gain of Landsat 7; others are unused

_HLS_FMASK_BITS = {
    0: Quality.CIRRUS,  # reserved, and set by no version so far
    1: Quality.CLOUD,
    2: Quality.CLOUD,  # adjacent to cloud or shadow
    3: Quality.SHADOW,
    4: Quality.SNOW,
    5: Quality.WATER,
}  # 6 and 7 are the aerosol level; 255 is fill


def _table(classes: dict[int, Quality]) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for code, flag in classes.items():
        table[code] = flag
    return table


def _bit_table(bits: dict[int, Quality], size: int) -> NDArray[np.uint8]:
    table = np.zeros(size, np.uint8)
    for bit, flag in bits.items():
        table[(np.arange(size) >> bit) & 1 == 1] |= np.uint8(flag)
    return table


_SCL, _FMASK = _table(_SCL_CLASSES), _table(_FMASK_CLASSES)
# Only the lowest 8 and 12 bits matter.
_QA_PIXEL, _QA_RADSAT = _bit_table(_QA_PIXEL_BITS, 1 << 8), _bit_table(_QA_RADSAT_BITS, 1 << 12)
_HLS_FMASK = _bit_table(_HLS_FMASK_BITS, 256)
_HLS_FMASK[255] = Quality.NODATA


def _look_up(table: NDArray[np.uint8], codes: NDArray[Any], fill: int) -> NDArray[np.uint8]:
    # Some providers tag fill as −9999 or 65535.
    known: NDArray[np.uint8] = table[np.where((codes < 0) | (codes > 255), fill, codes)]
    return known


FILL: dict[QualityKind, int] = {"scl": 0, "qa_pixel": 1, "qa_radsat": 1 << 9, "fmask": 255, "hls_fmask": 255}
"""The code by which each mask says "nothing here"."""


def from_scl(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Flags from Sentinel-2 scene classification codes 0 … 11. Any integers, any shape."""
    return _look_up(_SCL, codes, FILL["scl"])


def from_qa_pixel(bits: NDArray[Any]) -> NDArray[np.uint8]:
    """Flags from Landsat Collection 2 ``QA_PIXEL`` bits (uint16). Any shape."""
    return _QA_PIXEL[bits & 0xFF]


def from_qa_radsat(bits: NDArray[Any]) -> NDArray[np.uint8]:
    """Flags from Landsat Collection 2 ``QA_RADSAT`` bits (uint16): saturated in any band. Any shape."""
    return _QA_RADSAT[bits & 0xFFF]


def from_fmask(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Flags from classic Fmask classes 0 … 4 and 255 (fill). Any integers, any shape."""
    return _look_up(_FMASK, codes, FILL["fmask"])


def from_hls_fmask(bits: NDArray[Any]) -> NDArray[np.uint8]:
    """Flags from the ``Fmask`` bits of HLS version 2 and 255 (fill). Any integers, any shape."""
    return _look_up(_HLS_FMASK, bits, FILL["hls_fmask"])


FLAGS: dict[QualityKind, Callable[[NDArray[Any]], NDArray[np.uint8]]] = {
    "scl": from_scl,
    "qa_pixel": from_qa_pixel,
    "qa_radsat": from_qa_radsat,
    "fmask": from_fmask,
    "hls_fmask": from_hls_fmask,
}
"""Kind of mask → its function from codes to flags."""
