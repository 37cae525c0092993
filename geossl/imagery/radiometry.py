"""From a file's numbers to a sensor's stored numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.imagery.scene import Scene

RAW_RADAR = (
    "make terrain-corrected gamma0 of it first (ESA SNAP, pyroSAR or sarsen), or take a provider's RTC collection"
)
"""What to do with a radar image that is still in the geometry of its acquisition."""


def source_nodata(scene: Scene, sensor: Sensor, dtype: np.dtype[Any], tagged: float | None, what: str) -> float | None:
    """The number that means no-data in one file.

    1. what the scene says; 2. what the file tags; 3. the sensor's own, where the file's dtype can hold it;
    4. NaN in files of floating-point numbers; 5. 0 in unsigned files of a sensor whose own no-data is
    negative (Sentinel-2 as JPEG 2000: the format has no tag, and 0 is its no-data by specification);
    6. none: every pixel inside the file was measured.

    Raises
    ------
    SceneError
        The scene says a number that the file's dtype cannot hold.
    """
    own = sensor.radiometry.nodata
    if scene.source_nodata is not None:
        if not _holds(dtype, scene.source_nodata):
            raise SceneError(f"{what}: no-data is said to be {scene.source_nodata:g}, which {dtype} cannot hold")
        return scene.source_nodata
    if tagged is not None and _holds(dtype, tagged):
        return tagged
    if own is not None and _holds(dtype, own):
        return own
    if dtype.kind == "f":
        return math.nan
    return 0 if dtype.kind == "u" and own is not None and own < 0 else None


def is_decibel(sensor: Sensor) -> bool:
    """Whether a sensor's values are decibels (radar): their files may hold linear power instead, which is
    what must be resampled, since the mean of two powers is not the mean of their logarithms."""
    return sensor.radiometry.unit == "dB"


def check_numbers(scene: Scene, sensor: Sensor, dtype: str, what: str) -> None:
    """Refuse files whose numbers cannot become the sensor's.

    Raises
    ------
    SceneError
        Complex numbers; fractions for a sensor that stores integers, unless they are physical values;
        integers for a sensor of decibels.
    """
    if dtype.startswith("complex"):
        raise SceneError(f"{what}: the file holds complex numbers ({dtype})", "convert it to intensity first")
    floating = np.dtype(dtype).kind == "f"
    if is_decibel(sensor):
        if not floating:
            raise SceneError(f"{what}: the file holds {dtype}, the amplitude of a raw radar product (GRD)", RAW_RADAR)
    elif floating and sensor.radiometry.dtype != "float32" and not scene.physical:
        raise SceneError(
            f"{what}: the file holds {dtype}, sensor {sensor.name} stores {sensor.radiometry.dtype}",
            f"say that the values are physical ({sensor.radiometry.unit}), or describe a sensor with dtype float32",
        )


def to_stored(
    values: NDArray[Any],
    lost: NDArray[np.bool_],
    scene: Scene,
    sensor: Sensor,
    out: NDArray[Any],
    *,
    power: bool = False,
) -> NDArray[np.bool_] | None:
    """Turn one band's numbers into stored numbers.

    Parameters
    ----------
    values:
        (H, W), as the file has them; may be ``out`` itself.
    lost:
        (H, W), where they are no measurements. Set where the stored number would be the sensor's no-data,
        and where a power is not positive.
    out:
        (H, W), the sensor's dtype; filled here.
    power:
        The numbers are linear power, the sensor's are decibels.

    Returns
    -------
    (H, W), where a number did not fit and was clipped to the nearest that is not no-data; None: nowhere.
    """
    nodata = sensor.radiometry.nodata
    clipped = None
    if power:
        lost |= ~(values > 0)
        values = 10 * np.log10(np.where(lost, 1, values).astype(np.float64))
    if out.dtype.kind == "f":
        if values is not out or scene.shift:
            np.add(values, scene.shift, out=out, casting="unsafe")
    elif values.dtype.kind != "f" and _fits(values, scene.shift, out.dtype):
        _add(values, scene.shift, out)
    else:
        numbers = _integers(np.where(lost, 0, values), scene, sensor)
        lowest, highest = np.iinfo(out.dtype).min, np.iinfo(out.dtype).max
        clipped = ((numbers < lowest) | (numbers > highest)) & ~lost
        nearest = np.clip(numbers, lowest + (nodata == lowest), highest - (nodata == highest))
        np.copyto(out, np.where(clipped, nearest, numbers), casting="unsafe")
    if nodata is not None:
        lost |= out == nodata
    np.copyto(out, 0 if nodata is None else nodata, where=lost, casting="unsafe")
    return clipped


def _fits(values: NDArray[Any], shift: int, dtype: np.dtype[Any]) -> bool:
    """Whether integers can be shifted into a dtype without clipping."""
    there, here = np.iinfo(values.dtype), np.iinfo(dtype)
    lowest, highest = here.min - shift, here.max - shift
    return bool((there.min >= lowest or values.min() >= lowest) and (there.max <= highest or values.max() <= highest))


def _add(values: NDArray[Any], shift: int, out: NDArray[Any]) -> None:
    """Integers that fit are right modulo the dtype's size too, which spares wider numbers in between."""
    if values is out and not shift:
        return
    modulus = 2 ** (8 * out.dtype.itemsize)
    if values.dtype.itemsize == out.dtype.itemsize:
        unsigned = np.dtype(f"u{out.dtype.itemsize}")
        np.add(values.view(unsigned), unsigned.type(shift % modulus), out=out.view(unsigned))
    else:
        amount = np.array(shift % modulus, np.uint64).astype(out.dtype)
        np.add(values, amount, out=out, dtype=out.dtype, casting="unsafe")


def _integers(values: NDArray[Any], scene: Scene, sensor: Sensor) -> NDArray[np.int64]:
    if values.dtype.kind == "f":
        physical = values.astype(np.float64)
        steps = (physical - sensor.radiometry.offset) / sensor.radiometry.scale
        # far beyond any stored dtype, and still an int64
        values = np.clip(np.rint(steps), -(2.0**60), 2.0**60)
    return values.astype(np.int64) + scene.shift


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind == "f":
        return True
    info = np.iinfo(dtype)
    return math.isfinite(value) and float(value).is_integer() and info.min <= value <= info.max
