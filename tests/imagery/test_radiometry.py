"""From a file's numbers to the sensor's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin

from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.warp import check_scene, read_tile

from .conftest import MakeScene, MakeSensor, Write

GRID = Grid("EPSG:32622", 10, 256)
NODATA = -32768


def test_the_shift_is_exact_and_spares_no_data(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    raw = np.array([[0, 1, 999, 1000, 1500, 33767, 33768, 65535]], np.uint16)
    path = write(tmp_path / "a.tif", raw, transform=from_origin(0, 0, 10, 10))
    pixels = read_tile(make_scene(path, shift=-1000, source_nodata=0), make_sensor(), GRID[0, 0])
    assert pixels is not None
    assert pixels.image[0, 0, :8].tolist() == [NODATA, -999, -1, 0, 500, 32767, 32767, 32767]
    assert pixels.saturated == 2
    flags = [Quality.NODATA, 0, 0, 0, 0, 0, Quality.SATURATED, Quality.SATURATED]
    assert pixels.quality[0, :8].tolist() == flags


def test_clipping_never_makes_no_data(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    path = write(tmp_path / "a.tif", np.array([[-9999, -5, 0, 1, 254, 255, 256]], np.int16), nodata=-9999,
                 transform=from_origin(0, 0, 10, 10))  # fmt: skip
    for nodata, expected in ((0, [0, 1, 0, 1, 254, 255, 255]), (255, [255, 0, 0, 1, 254, 255, 254])):
        pixels = read_tile(make_scene(path), make_sensor(dtype="uint8", nodata=nodata), GRID[0, 0])
        assert pixels is not None
        assert pixels.image[0, 0, :7].tolist() == expected
        assert pixels.saturated == 2
        # what *is* the sensor's number for no-data cannot be told from it any more
        assert ((pixels.quality[0, :7] & Quality.NODATA > 0) == (np.array(expected) == nodata)).all()


def test_physical_values_become_stored_numbers(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    values = np.array([[np.nan, 0.0, 0.05, 0.12344, -0.01, 5.0, np.inf]], np.float32)
    path = write(tmp_path / "a.tif", values, transform=from_origin(0, 0, 10, 10))
    scene = make_scene(path, properties={"geossl:physical": True})
    pixels = read_tile(scene, make_sensor(offset=-0.2, scale=1e-4), GRID[0, 0])
    assert pixels is not None
    assert pixels.image[0, 0, :7].tolist() == [NODATA, 2000, 2500, 3234, 1900, 32767, NODATA]
    with pytest.raises(
        SceneError, match=r"scene s, band B1: .*a\.tif: the file holds float32, sensor toy stores int16"
    ):
        check_scene(make_scene(path), make_sensor())


def test_a_float_sensor_keeps_floats(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    values = np.array([[np.nan, 0.0, 0.05, -3.25, 1e-30]], np.float32)
    path = write(tmp_path / "a.tif", values, transform=from_origin(0, 0, 10, 10))
    pixels = read_tile(make_scene(path), make_sensor(dtype="float32", nodata=-9999), GRID[0, 0])
    assert pixels is not None
    np.testing.assert_array_equal(pixels.image[0, 0, :6], np.array([-9999, 0, 0.05, -3.25, 1e-30, -9999], np.float32))
    assert pixels.quality[0, :6].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_without_any_no_data_zero_is_a_measurement(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    shift: Any,
) -> None:
    """Inside the raster every pixel counts, aligned or not; outside none does."""
    path = write(
        tmp_path / "a.tif", np.zeros((100, 80), np.uint8), transform=from_origin(300 + shift, -200 - shift, 10, 10)
    )
    pixels = read_tile(make_scene(path), make_sensor(dtype="uint8", nodata=None), GRID[0, 0])
    assert pixels is not None
    inside = np.zeros(GRID[0, 0].shape, bool)
    inside[20:120, 30:110] = True
    np.testing.assert_array_equal(pixels.quality == 0, inside)


def test_zero_is_no_data_of_an_unsigned_file_for_a_sensor_with_a_negative_one(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    path = write(tmp_path / "a.tif", np.array([[0, 7]], np.uint16), transform=from_origin(0, 0, 10, 10))
    pixels = read_tile(make_scene(path, shift=-1000), make_sensor(), GRID[0, 0])
    assert pixels is not None
    assert pixels.image[0, 0, :2].tolist() == [NODATA, -993]


def test_a_scene_of_nothing_but_no_data_has_nothing(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    path = write(tmp_path / "a.tif", np.full((300, 300), 7, np.uint16), transform=from_origin(0, 0, 10, 10))
    assert read_tile(make_scene(path, source_nodata=7), make_sensor(), GRID[0, 0]) is None
