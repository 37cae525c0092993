"""Reflectance of pure materials in the Sentinel-2 bands, and its linear mixing.

The values are typical ones, rounded to 0.1 % absolute, read off published spectra at the band
centres: leaves, canopies, dry vegetation, soils and roofing from the USGS Spectral Library
Version 7 (Kokaly et al. 2017, doi:10.3133/ds1035) and the ECOSTRESS Spectral Library (Meerdink et
al. 2019, doi:10.1016/j.rse.2019.05.015); tropical canopies as Sentinel-2 Level-2A shows them;
turbid inland water after Pahlevan et al. 2020 (doi:10.1016/j.rse.2019.111604).
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""The ten bands of 10 and 20 m, in order of the sensor's table."""

# Percent, in the order of BANDS.
_PERCENT = {
    #                   B02   B03   B04   B05   B06   B07   B08   B8A   B11   B12
    "crown":          ( 2.2,  4.4,  2.4,  7.6, 24.5, 31.5, 33.0, 35.0, 16.0,  6.6),
    "crop leaf":      ( 2.8,  6.6,  3.0, 10.0, 34.0, 44.5, 46.5, 48.0, 21.0,  9.5),
    "grass leaf":     ( 3.2,  7.0,  4.4, 11.0, 27.5, 34.0, 36.0, 38.0, 24.0, 12.0),
    "dry vegetation": ( 7.0, 10.8, 15.8, 19.0, 21.8, 24.0, 26.0, 28.5, 35.0, 25.0),
    "red soil":       ( 4.3,  7.2, 12.6, 15.8, 17.4, 19.0, 20.4, 22.0, 30.5, 27.0),
    "sand":           (13.0, 18.0, 24.0, 27.0, 29.0, 30.8, 32.5, 34.5, 44.0, 40.5),
    "char":           ( 2.8,  3.4,  4.2,  4.8,  5.4,  6.0,  6.8,  7.4, 12.0, 13.0),
    "river water":    ( 5.2,  8.0,  8.6,  7.8,  4.6,  4.4,  3.4,  2.6,  0.8,  0.5),
    "lake water":     ( 3.4,  4.2,  2.4,  2.2,  1.4,  1.3,  1.0,  0.8,  0.4,  0.3),
    "clay tile":      ( 6.0,  9.2, 18.0, 22.0, 24.5, 26.5, 28.0, 30.0, 37.0, 33.0),
    "fibre cement":   (15.5, 17.5, 19.5, 20.5, 21.0, 21.6, 22.4, 23.0, 26.0, 24.0),
    "asphalt":        ( 7.2,  8.2,  9.2,  9.8, 10.2, 10.6, 11.2, 11.8, 14.0, 13.4),
    "metal roof":     (34.0, 36.0, 38.0, 39.0, 39.5, 40.0, 40.0, 40.5, 39.0, 34.0),
    "shade":          ( 0.4,  0.5,  0.4,  0.7,  2.4,  3.0,  3.2,  3.4,  1.2,  0.5),
}  # fmt: skip

ENDMEMBERS = MappingProxyType({name: np.array(row, np.float32) / 100 for name, row in _PERCENT.items()})
"""Reflectance (10 bands, 0 … 1) of every pure material."""


def mix(shares: dict[str, NDArray[np.float32]], bands: tuple[str, ...]) -> NDArray[np.float32]:
    """Reflectance of pixels that hold materials in these shares.

    Parameters
    ----------
    shares:
        Material → share of every pixel, each (H, W); they need not add up to exactly 1.
    bands:
        Names out of :data:`BANDS`.

    Returns
    -------
    ndarray
        (len(bands), H, W) float32 reflectance.
    """
    columns = [BANDS.index(name) for name in bands]
    spectra = np.stack([ENDMEMBERS[name][columns] for name in shares], axis=1)
    stack = np.stack(list(shares.values()))
    return np.tensordot(spectra, stack, axes=1).astype(np.float32, copy=False)
