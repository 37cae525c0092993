"""Bands, sensors and the radiometric contract.

A :class:`Sensor` says how stored integers become physical values::

    value = stored * scale + offset          # where stored != nodata

Bands, their order, wavelengths, scale, offset and the statistics used for normalisation travel
with the cube *and* with every encoder, and :func:`require_same_radiometry` refuses to let two
sides that disagree meet.

Sensors ship as data in ``sensors.toml``; a user's own sensor is the same table in the project file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geossl.errors import RadiometryError

STORED_DTYPES = ("uint8", "int16", "uint16", "float32")


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band."""

    name: str
    """The sensor's own name, such as ``B04``."""
    wavelength: float | None
    """Centre wavelength in µm; None where it has no meaning (radar, an index)."""
    gsd: float
    """Native ground sample distance in metres."""
    common_name: str | None = None
    """STAC EO common name, such as ``red``."""


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How stored numbers become physical values."""

    dtype: str
    """NumPy dtype of the stored numbers; one of :data:`STORED_DTYPES`."""
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """The stored number that means "nothing was measured here"."""
    unit: str = "none"
    """``reflectance``, ``radiance``, ``linear power``, …; ``none``: the numbers have no scale."""

    def __post_init__(self) -> None:
        if self.dtype not in STORED_DTYPES:
            raise RadiometryError(f"dtype {self.dtype!r} is not one of {', '.join(STORED_DTYPES)}")
        if not (math.isfinite(self.scale) and self.scale != 0 and math.isfinite(self.offset)):
            raise RadiometryError(f"scale {self.scale!r} and offset {self.offset!r} must be finite, scale not 0")
        if self.nodata is not None and math.isnan(self.nodata):
            raise RadiometryError("no-data must be a number such as -9999", "NaN in files is read as no-data anyway")
        if self.nodata is not None and self.dtype != "float32":
            info = np.iinfo(self.dtype)
            if not (float(self.nodata).is_integer() and info.min <= self.nodata <= info.max):
                raise RadiometryError(f"no-data {self.nodata!r} does not fit into {self.dtype}")

    def to_physical(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """``stored * scale + offset`` as float32; no-data becomes NaN. Any shape."""
        value = stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        if self.nodata is not None:
            value[stored == self.nodata] = np.nan
        return value


@dataclass(frozen=True, slots=True)
class Sensor:
    """A named, ordered set of bands with one radiometry."""

    name: str
    bands: tuple[Band, ...]
    radiometry: Radiometry
    title: str = ""

    def __post_init__(self) -> None:
        names = self.band_names
        if not names:
            raise RadiometryError(f"sensor {self.name!r} has no bands")
        if len(set(names)) != len(names):
            raise RadiometryError(f"sensor {self.name!r} names a band twice: {', '.join(names)}")

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    @property
    def wavelengths(self) -> tuple[float | None, ...]:
        """Centre wavelengths in µm, in band order."""
        return tuple(band.wavelength for band in self.bands)

    def band(self, name: str) -> Band:
        """The band of that name or STAC common name."""
        for band in self.bands:
            if name in (band.name, band.common_name):
                return band
        raise RadiometryError(
            f"sensor {self.name!r} has no band {name!r}", f"its bands are {', '.join(self.band_names)}"
        )

    def subset(self, names: Sequence[str]) -> Self:
        """The same sensor with only these bands, in this order (names or common names)."""
        return dataclasses.replace(self, bands=tuple(self.band(name) for name in names))

    def rgb(self) -> tuple[int, int, int]:
        """Indices of the bands that make the most natural picture: red, green, blue where present.

        Without them: the three bands nearest 0.66, 0.56 and 0.48 µm, or the first band thrice.
        """
        common = {band.common_name: i for i, band in enumerate(self.bands)}
        if {"red", "green", "blue"} <= common.keys():
            return common["red"], common["green"], common["blue"]
        if {"swir16", "nir", "red"} <= common.keys():
            return common["swir16"], common["nir"], common["red"]
        if len(self.bands) < 3:
            return 0, 0, 0
        known = [w if w is not None else math.inf for w in self.wavelengths]
        if not any(map(math.isfinite, known)):
            return 0, 1, 2
        r, g, b = (min(range(len(known)), key=lambda i: abs(known[i] - want)) for want in (0.66, 0.56, 0.48))
        return r, g, b

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is its inverse."""
        return dataclasses.asdict(self) | {"bands": [dataclasses.asdict(band) for band in self.bands]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            name=data["name"],
            bands=tuple(Band(**({"wavelength": None} | band)) for band in data["bands"]),  # TOML has no null
            radiometry=Radiometry(**data["radiometry"]),
            title=data.get("title", ""),
        )


@functools.cache
def sensors() -> dict[str, Sensor]:
    """The sensors that ship with geossl, by name."""
    text = resources.files("geossl").joinpath("sensors.toml").read_text(encoding="utf-8")
    return {name: Sensor.from_dict({"name": name, **table}) for name, table in tomllib.loads(text).items()}


def sensor(name: str) -> Sensor:
    """The shipped sensor of that name.

    Raises
    ------
    RadiometryError
        There is none of that name.
    """
    try:
        return sensors()[name]
    except KeyError:
        raise RadiometryError(
            f"no sensor is called {name!r}",
            f"choose one of {', '.join(sensors())}, or describe your own under `sensor:` in the project file",
        ) from None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per-band statistics over clear pixels, in *stored* units, each of length C."""

    count: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    p02: tuple[float, ...]
    """2nd percentile, for pictures."""
    p98: tuple[float, ...]
    """98th percentile, for pictures."""

    def to_dict(self) -> dict[str, list[float]]:
        return {field.name: list(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[float]]) -> Self:
        values: dict[str, Any] = {field.name: tuple(data[field.name]) for field in dataclasses.fields(cls)}
        return cls(**values)


def differences(ours: Sensor, theirs: Sensor) -> list[str]:
    """In what two sensors differ that images of both would not mean the same: bands, order, wavelengths, units."""
    found = []
    if ours.band_names != theirs.band_names:
        found.append(f"bands: {', '.join(ours.band_names)} ≠ {', '.join(theirs.band_names)}")
    elif ours.wavelengths != theirs.wavelengths:
        found.append(f"wavelengths (µm): {ours.wavelengths} ≠ {theirs.wavelengths}")
    found.extend(
        f"{field.name}: {a!r} ≠ {b!r}"
        for field in dataclasses.fields(Radiometry)
        if (a := getattr(ours.radiometry, field.name)) != (b := getattr(theirs.radiometry, field.name))
    )
    return found


def require_same_radiometry(
    ours: Sensor,
    theirs: Sensor,
    *,
    us: str,
    them: str,
    remedy: str = "use imagery with the same bands and units, or train an encoder for these",
) -> None:
    """Refuse to continue where two sides disagree on bands, order, wavelength, unit, scale or no-data.

    Parameters
    ----------
    us, them:
        What the two sides are called in the message ("the encoder s2-mae-3f2a", "the cube at ./store").

    Raises
    ------
    RadiometryError
        Names both sides and every difference.
    """
    if found := differences(ours, theirs):
        raise RadiometryError(
            f"{us} (sensor {ours.name}) and {them} (sensor {theirs.name}) do not match: " + "; ".join(found),
            remedy,
        )
