"""From a file's numbers to a sensor's stored numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.imagery.scene import Scene


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


def check_numbers(scene: Scene, sensor: Sensor, dtype: str, what: str) -> None:
    """Refuse files whose numbers cannot become the sensor's.

    Raises
    ------
    SceneError
        Complex numbers; fractions for a sensor that stores integers, unless they are physical values.
    """
    if dtype.startswith("complex"):
        raise SceneError(f"{what}: the file holds complex numbers ({dtype})", "convert it to intensity first")
    if np.dtype(dtype).kind == "f" and sensor.radiometry.dtype != "float32" and not scene.physical:
        raise SceneError(
            f"{what}: the file holds {dtype}, sensor {sensor.name} stores {sensor.radiometry.dtype}",
            f"say that the values are physical ({sensor.radiometry.unit}), or describe a sensor with dtype float32",
        )


def to_stored(
    values: NDArray[Any], measured: NDArray[np.bool_], scene: Scene, sensor: Sensor, out: NDArray[Any]
) -> NDArray[np.bool_]:
    """Turn one band's numbers into stored numbers.

    Parameters
    ----------
    values:
        (H, W), as the file has them.
    measured:
        (H, W), where they are measurements. Cleared where the stored number would be the sensor's no-data.
    out:
        (H, W), the sensor's dtype; filled here.

    Returns
    -------
    (H, W), where a number did not fit and was clipped to the nearest that is not no-data.
    """
    nodata = sensor.radiometry.nodata
    clipped = np.zeros(values.shape, bool)
    if out.dtype.kind == "f":
        np.add(values, scene.shift, out=out, casting="unsafe")
    elif values.dtype == out.dtype and not scene.shift:
        np.copyto(out, values)
    else:
        numbers = _integers(np.where(measured, values, 0), scene, sensor)
        lowest, highest = np.iinfo(out.dtype).min, np.iinfo(out.dtype).max
        clipped = ((numbers < lowest) | (numbers > highest)) & measured
        nearest = np.clip(numbers, lowest + (nodata == lowest), highest - (nodata == highest))
        np.copyto(out, np.where(clipped, nearest, numbers), casting="unsafe")
    if nodata is not None:
        measured &= out != nodata
    out[~measured] = 0 if nodata is None else nodata
    return clipped


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
