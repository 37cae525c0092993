"""Between the ground and the sensor: the sun, relief in its light, haze, clouds and their shadows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.demo.noise import Field, fractal, generator, smoothstep
from geossl.demo.seasons import wetness
from geossl.demo.terrain import Terrain

_PIXEL = 10.0
_PASS_HOUR = 10.5
"""Local solar time of Sentinel-2's descending pass."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands, in degrees."""

    elevation: float
    azimuth: float


def sun(day: date, latitude: float) -> Sun:
    """The sun at the sensor's pass (Cooper 1969 for the declination)."""
    declination = np.radians(23.45 * np.sin(2 * np.pi * (284 + day.timetuple().tm_yday) / 365))
    hour, phi = np.radians(15 * (_PASS_HOUR - 12)), np.radians(latitude)
    up = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    north = np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    return Sun(float(np.degrees(np.arcsin(up))), float(np.degrees(np.arctan2(east, north)) % 360))


def illumination(terrain: Terrain, light: Sun) -> Field:
    """Light on every slope relative to flat ground; what is left after Level-2A's terrain correction."""
    south, east = (component / np.float32(_PIXEL) for component in terrain.slope)
    elevation, azimuth = np.radians(light.elevation), np.radians(light.azimuth)
    # the surface normal is (−east, +south, 1) in (east, north, up)
    direct = np.sin(elevation) + np.cos(elevation) * (south * np.cos(azimuth) - east * np.sin(azimuth))
    direct /= np.sqrt(1 + south**2 + east**2)
    return (1 + 0.75 * (direct / np.sin(elevation) - 1)).clip(0.5, 1.4).astype(np.float32)


@dataclass(frozen=True)
class Sky:
    """What hangs over the land on one day; arrays are (H, W)."""

    cloud: Field
    """Opacity of low clouds, 0 … 1."""
    brightness: Field
    """Reflectance of an opaque cloud in the visible."""
    cirrus: Field
    """Opacity of high thin cloud."""
    shadow: Field
    """Share of direct light that clouds keep from the ground."""
    haze: Field
    """Optical depth of what the atmospheric correction left over, at 0.49 µm."""


def cloud_share(day: date, seed: int) -> float:
    """Share of the square under low cloud: mostly clear in the dry season, broken in the rains."""
    rng = generator(seed, "cloud share", day.toordinal())
    wet = wetness(day)
    # Images with a closed cover are never downloaded; the worst kept one is two fifths cloudy.
    return (
        float(np.clip(rng.beta(1.1, 2.2) * (0.08 + 0.62 * wet), 0.0, 0.42)) if rng.random() < 0.35 + 0.5 * wet else 0.0
    )


def build_sky(size: int, seed: int, day: date, light: Sun) -> Sky:
    """The sky of a day: the same seed and day always give the same clouds."""
    rng = generator(seed, "sky", day.toordinal())
    share = cloud_share(day, seed)
    shape = fractal(size, rng, beta=3.1, longest=260, shortest=3) + 0.22 * fractal(
        size, rng, beta=2.0, longest=40, shortest=4
    )
    shape /= shape.std()
    cut = float(np.quantile(shape, 1 - share)) if share > 0 else float(shape.max()) + 9.0
    depth = np.maximum(shape - cut + 0.10, 0) * 5.0
    cloud = (1 - np.exp(-(depth**1.5))).astype(np.float32)
    thick = 0.42 + 0.30 * smoothstep(depth, 0.2, 4.5) + 0.035 * fractal(size, rng, beta=2.0, longest=40)
    height = rng.uniform(900, 2200)
    away = height / np.tan(np.radians(light.elevation)) / _PIXEL
    # the shadow falls away from the sun; the field is periodic, so it may be rolled
    down, right = away * np.cos(np.radians(light.azimuth)), -away * np.sin(np.radians(light.azimuth))
    shadow = ndimage.gaussian_filter(np.roll(cloud, (round(down), round(right)), (0, 1)), 1.3, mode="wrap")
    veil = rng.random() < 0.25
    cirrus = 0.20 * smoothstep(fractal(size, rng, beta=3.4), 0.6, 2.4) if veil else np.zeros((size, size), np.float32)
    haze = rng.gamma(2.0, 0.006) * (1 + 0.35 * fractal(size, rng, beta=3.2)) + 0.10 * np.sqrt(cloud * (1 - cloud))
    return Sky(
        cloud, thick.astype(np.float32), cirrus.astype(np.float32), shadow, np.maximum(haze, 0).astype(np.float32)
    )


def through(sky: Sky, reflectance: NDArray[np.float32], wavelengths: tuple[float, ...]) -> NDArray[np.float32]:
    """Reflectance as the corrected product shows it; both (C, H, W), wavelengths in µm."""
    w = np.array(wavelengths, np.float32)[:, None, None]
    lit = reflectance * (1 - sky.shadow * (0.66 + 0.12 * np.clip((w - 0.5) / 1.7, 0, 1)))
    tau = sky.haze * (w / 0.49) ** -1.5
    hazy = lit * (1 - tau) + 0.42 * tau
    high = np.float32(0.60) - 0.22 * smoothstep(w, 1.2, 2.2)
    veiled = hazy * (1 - sky.cirrus) + high * sky.cirrus
    # ice and droplets absorb in the short-wave infrared
    white = sky.brightness * (1 - 0.32 * smoothstep(w, 1.0, 1.6) - 0.16 * smoothstep(w, 1.6, 2.2))
    return (veiled * (1 - sky.cloud) + white * sky.cloud).astype(np.float32)
