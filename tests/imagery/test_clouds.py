from __future__ import annotations

import numpy as np
import pytest

from geossl.imagery.clouds import Quality, from_fmask, from_qa_pixel, from_scl, is_clear

Q = Quality


@pytest.mark.parametrize(
    ("value", "flags"),
    [  # values and meanings of the Landsat 8-9 Collection 2 Level-2 product guide (LSDS-1619)
        (1, Q.NODATA),  # fill
        (21824, Q(0)),  # clear
        (21826, Q.CLOUD),  # dilated cloud over land
        (21888, Q.WATER),  # water
        (21890, Q.CLOUD | Q.WATER),  # dilated cloud over water
        (22080, Q(0)),  # medium-confidence cloud
        (22280, Q.CLOUD),  # high-confidence cloud
        (23888, Q.SHADOW),  # high-confidence cloud shadow
        (23952, Q.SHADOW | Q.WATER),  # water with cloud shadow
        (30048, Q.SNOW),  # high-confidence snow or ice
        (54596, Q.CIRRUS),  # high-confidence cirrus
        (55052, Q.CIRRUS | Q.CLOUD),  # high-confidence cirrus and cloud
    ],
)
def test_qa_pixel_values_of_the_product_guide(value: int, flags: Quality) -> None:
    assert from_qa_pixel(np.array([value], np.uint16))[0] == flags


def test_scene_classification() -> None:
    codes = np.arange(13, dtype=np.uint8).reshape(1, 13)
    expected = [Q.NODATA, Q.SATURATED, 0, Q.SHADOW, 0, 0, Q.WATER, 0, Q.CLOUD, Q.CLOUD, Q.CIRRUS, Q.SNOW, 0]
    assert from_scl(codes).tolist() == [expected]
    assert from_scl(codes).dtype == np.uint8


def test_masks_of_signed_files_take_odd_codes_for_fill() -> None:
    codes = np.array([0, 1, 2, 3, 4, 255, -9999, 300], np.int16)
    nothing = Q.NODATA
    assert from_fmask(codes).tolist() == [0, Q.WATER, Q.SHADOW, Q.SNOW, Q.CLOUD, nothing, nothing, nothing]
    assert from_scl(codes[-2:]).tolist() == [nothing, nothing]


def test_clear_means_that_the_ground_was_seen() -> None:
    clear = {Q(0), Q.SATURATED, Q.WATER, Q.SATURATED | Q.WATER}
    every = np.arange(128, dtype=np.uint8)
    assert {Quality(int(flags)) for flags in every[is_clear(every)]} == clear
