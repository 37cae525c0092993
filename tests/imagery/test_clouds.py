from __future__ import annotations

import numpy as np
import pytest

from geossl.imagery.clouds import (
    FILL,
    FLAGS,
    Quality,
    from_fmask,
    from_hls_fmask,
    from_qa_pixel,
    from_qa_radsat,
    from_scl,
    is_clear,
)

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


@pytest.mark.parametrize(
    ("bits", "flags"),
    [  # HLS Product User Guide 2.0, description of the bits in the one-byte quality assessment layer
        (0b0000_0000, Q(0)),
        (0b1100_0000, Q(0)),  # high aerosol over clear land
        (0b0000_0001, Q.CIRRUS),  # reserved
        (0b0000_0010, Q.CLOUD),
        (0b0100_0100, Q.CLOUD),  # adjacent to cloud or shadow, low aerosol
        (0b1000_1000, Q.SHADOW),
        (0b0001_0000, Q.SNOW),
        (0b1010_0000, Q.WATER),
        (0b0010_1010, Q.CLOUD | Q.SHADOW | Q.WATER),
        (255, Q.NODATA),
        (-9999, Q.NODATA),
    ],
)
def test_fmask_bits_of_the_hls_user_guide(bits: int, flags: Quality) -> None:
    assert from_hls_fmask(np.array([[bits]], np.int16))[0, 0] == flags


def test_fmask_bits_are_not_fmask_classes() -> None:
    """The same numbers, another meaning: a cloud of one is snow, shadow or water of the other."""
    codes = np.arange(5, dtype=np.uint8)
    assert from_fmask(codes).tolist() == [0, Q.WATER, Q.SHADOW, Q.SNOW, Q.CLOUD]
    assert from_hls_fmask(codes).tolist() == [0, Q.CIRRUS, Q.CLOUD, Q.CLOUD | Q.CIRRUS, Q.CLOUD]


@pytest.mark.parametrize(
    ("bit", "flags"),
    [  # the tables of QA_RADSAT in LSDS-1618 (Landsat 4-7) and LSDS-1619 (Landsat 8-9)
        *((bit, Q.SATURATED) for bit in range(7)),  # bands 1 … 7
        (7, Q(0)),  # unused
        (8, Q.SATURATED),  # band 9, or band 6 in high gain
        (9, Q.NODATA),  # dropped pixel
        (10, Q(0)),
        (11, Q.NODATA),  # terrain occlusion
        *((bit, Q(0)) for bit in range(12, 16)),
    ],
)
def test_qa_radsat_bits_of_the_product_guides(bit: int, flags: Quality) -> None:
    assert from_qa_radsat(np.array([1 << bit], np.uint16))[0] == flags
    assert from_qa_radsat(np.array([1 << bit | 1], np.uint16))[0] == flags | Q.SATURATED


def test_every_mask_says_nothing_by_its_own_code() -> None:
    assert FLAGS.keys() == FILL.keys()
    for kind, flags in FLAGS.items():
        assert flags(np.array([FILL[kind]], np.int32))[0] == Q.NODATA, kind
