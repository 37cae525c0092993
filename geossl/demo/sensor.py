"""From a surface under a sky to the integers of a Level-2A product and its scene classification."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.bands import sensor
from geossl.demo.noise import Field, fractal, generator
from geossl.demo.sky import Sky, Sun, build_sky, illumination, sun, through
from geossl.demo.spectra import BANDS, mix
from geossl.demo.world import World, surface

SENSOR = sensor("sentinel-2-l2a").subset(BANDS)
"""The ten bands of the generated scenes."""

_BASELINES = ((date(2022, 12, 6), "05.09"), (date(2022, 1, 25), "04.00"), (date.min, "03.01"))
"""First day of every processing baseline, newest first; from 04.00 on products carry an offset."""
_OFFSET = 1000


@dataclass(frozen=True)
class Observation:
    """One pass over the square, as its files hold it."""

    day: date
    baseline: str
    offset: int
    """Added to every stored value; the product's metadata say so."""
    sun: Sun
    bands: dict[str, NDArray[np.uint16]]
    """Stored numbers (0: no data) at the band's own ground sample distance."""
    scl: NDArray[np.uint8]
    """Scene classification at 20 m, with codes of Sen2Cor."""

    @property
    def cloud_cover(self) -> float:
        """Percent of the valid pixels that the scene classification calls cloud or cirrus."""
        valid = self.scl > 0
        return 100.0 * float(np.isin(self.scl, (8, 9, 10)).sum() / max(int(valid.sum()), 1))


def observe(world: World, day: date, latitude: float) -> Observation:
    """What the sensor delivers of the landscape on a day."""
    light = sun(day, latitude)
    sky = build_sky(world.size, world.seed, day, light)
    shares = surface(world, day)
    relief = illumination(world.terrain, light)
    rng = generator(world.seed, "sensor", day.toordinal())
    seen: dict[str, Field] = {}
    for gsd in (10, 20):
        if gsd == 20:
            shares = {name: _halve(share) for name, share in shares.items()}
            relief = _halve(relief)
            sky = Sky(**{field.name: _halve(getattr(sky, field.name)) for field in fields(sky)})
        chosen = [band for band in SENSOR.bands if band.gsd == gsd]
        names = tuple(band.name for band in chosen)
        wavelengths = tuple(band.wavelength or 0.0 for band in chosen)
        picture = through(sky, mix(shares, names) * relief, wavelengths)
        for name, plane in zip(names, picture, strict=True):
            blurred = ndimage.gaussian_filter(plane, 0.62 if gsd == 10 else 0.48)
            noise = rng.standard_normal(plane.shape, dtype=np.float32) * (0.0012 + 0.009 * blurred)
            seen[name] = blurred + noise
    baseline = next(name for first, name in _BASELINES if day >= first)
    offset = _OFFSET if baseline >= "04.00" else 0
    swath = _swath(world.size, day)
    bands = {name: _store(seen[name], offset, swath) for name in BANDS}
    scl = _classify(seen, sky, relief, rng)
    scl[~swath[::2, ::2]] = 0
    return Observation(day, baseline, offset, light, bands, scl)


def _halve(field: Field) -> Field:
    """Means of 2 × 2 pixels."""
    n = field.shape[0] // 2
    return field.reshape(n, 2, n, 2).mean(axis=(1, 3))


def _store(reflectance: Field, offset: int, swath: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Reflectance as Level-2A stores it: 0 is no data, so that no measurement may be 0."""
    stored = np.clip(np.rint(reflectance * 10_000) + offset, 1, 65_535).astype(np.uint16)
    step = swath.shape[0] // stored.shape[0]
    stored[~swath[::step, ::step]] = 0
    return stored


def _swath(size: int, day: date) -> NDArray[np.bool_]:
    """Pixels inside the swath: every fifth day the neighbouring orbit sees only the western part."""
    if day.toordinal() % 5 != 2:
        return np.ones((size, size), bool)
    rows, columns = np.mgrid[: size // 2, : size // 2]
    inside = columns < 0.36 * size - 0.21 * rows  # descending orbits lean to the south-west
    return inside.repeat(2, 0).repeat(2, 1)


def _classify(seen: dict[str, Field], sky: Sky, relief: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A scene classification after Sen2Cor's manner, with its faults: thin edges missed, bright roofs suspected.

    It looks at the pixels where Sen2Cor does, and at the sky only for what thresholds on pixels
    would find; all inputs at 20 m.
    """
    blue, green, red = (_halve(seen[name]) for name in ("B02", "B03", "B04"))
    nir, swir = seen["B8A"], seen["B11"]
    ndvi = (nir - red) / np.maximum(nir + red, 0.02)
    ndwi = (green - nir) / np.maximum(green + nir, 0.02)
    size = len(ndvi)
    doubt = 0.07 * fractal(size, rng, beta=1.5, longest=60)
    cloud = ndimage.gaussian_filter(sky.cloud, 1.0) + doubt
    shadow = ndimage.gaussian_filter(sky.shadow, 1.5) + 1.4 * doubt

    scl = np.full((size, size), 5, np.uint8)  # not vegetated
    scl[ndvi > 0.42] = 4
    scl[(ndvi > 0.30) & (ndvi <= 0.42) & (doubt > 0.05)] = 7  # unclassified
    scl[(ndwi > 0.12) & (swir < 0.08)] = 6
    scl[(nir + swir < 0.22) & (relief < 0.82) & (scl != 6)] = 2
    scl[(shadow > 0.30) & (nir < 0.26) & (scl != 6)] = 3
    scl[(sky.cirrus > 0.045 + 0.3 * np.abs(doubt)) & (blue > 0.04)] = 10
    scl[(cloud > 0.22) | ((blue > 0.27) & (ndvi < 0.10))] = 8
    scl[(cloud > 0.62) & (blue > 0.20)] = 9
    return scl
