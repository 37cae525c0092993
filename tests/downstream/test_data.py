"""Which pixels teach, which judge, and what is refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geossl.chips.split import TEST, TRAIN, VAL, Split, SplitSettings
from geossl.cube.repository import Cube
from geossl.downstream.data import CONTEXT, CORE, TaskData, quotas, windows
from geossl.errors import LabelError
from geossl.legend import NO_LABEL

from .landscape import LEGEND, SPLIT, landcover, make_data


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 300))
def test_quotas_are_as_even_as_they_can_be(counts: list[int], n: int) -> None:
    have = np.array(counts)
    share = quotas(have, n)
    assert share.sum() == min(n, have.sum())
    assert (share <= have).all()
    # whoever got less than another by more than rounding had no more to give
    assert (have[share < share.max() - 1] == share[share < share.max() - 1]).all()


@pytest.mark.parametrize("subset", [TRAIN, VAL, TEST])
def test_samples_are_balanced_distinct_and_inside_the_subset(landcover_data: TaskData, subset: int) -> None:
    pixels = landcover_data.sample(90, seed=5, subset=subset)
    assert np.bincount(pixels.label).tolist() == [30, 30, 30]
    assert len(np.unique(np.stack([pixels.tile, pixels.row, pixels.col]), axis=1).T) == 90
    for position, ground in landcover_data.grounds():
        here = pixels.tile == position
        at = pixels.row[here], pixels.col[here]
        assert (ground.subset[at] == subset).all()
        assert (ground.label[at] == pixels.label[here]).all()
        assert (ground.block[at] == pixels.block[here]).all()
    assert set(pixels.tile) == {0, 1}


def test_samples_depend_on_the_seed_alone(landcover_data: TaskData) -> None:
    first, again, other = (landcover_data.sample(60, seed=s) for s in (1, 1, 2))
    assert (first.row == again.row).all()
    assert (first.row != other.row).any()


def test_unseen_pixels_are_not_labelled(landcover_data: TaskData) -> None:
    ground = landcover_data.ground("x1y0")
    assert ground is not None
    assert (ground.label[:, 200:] == NO_LABEL).all()
    assert (ground.label[:, :200] != NO_LABEL).all()


def test_gathered_features_are_those_of_the_pixel(landcover_data: TaskData) -> None:
    """Whatever window a pixel is seen through, its own value is found, and its neighbour's to the right."""
    pixels = landcover_data.sample(50, seed=0)

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.concatenate([image[0], np.roll(image[0], -1, axis=-1)]).astype(np.float32)

    features = landcover_data.gather(pixels, describe)
    for tile, row, col, found in zip(pixels.tile, pixels.row, pixels.col, features, strict=True):
        image = landcover_data.images(landcover_data.tile_ids[tile])[0][0]
        assert (found[:2] == image[:, row, col]).all()
        assert (found[2:] == (image[:, row, col + 1] if col < 255 else 0)).all()


def test_windows_cover_each_wanted_pixel_once() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 100, (1, 1, 256, 256)).astype(np.int16)
    wanted = np.zeros((256, 256), bool)
    wanted[130:250, 10:20] = True
    found = list(windows(image, np.ones((1, 256, 256), bool), wanted))
    assert [(w.row, w.col) for w in found] == [(128, 0)]
    inside = slice(CONTEXT, CONTEXT + CORE)
    assert (found[0].image[0, 0, inside, inside] == image[0, 0, 128:, :128]).all()
    assert not found[0].valid[0, :, :CONTEXT].any()  # west of the tile
    assert found[0].valid[0, :CONTEXT, CONTEXT:].all()  # north of the window, but inside the tile


def test_chips_show_labels_of_their_subset_alone(landcover_data: TaskData) -> None:
    chips = landcover_data.chips(VAL, 64, limit=1000, seed=0)
    assert (chips.label != NO_LABEL).sum() == landcover_data.counts(VAL).sum()
    few = landcover_data.sample(30, seed=0, subset=VAL)
    chips = landcover_data.chips(VAL, 64, limit=1000, seed=0, only=few)
    assert np.bincount(chips.label[chips.label != NO_LABEL]).tolist() == [10, 10, 10]


def test_limited_chips_keep_rare_classes(tmp_path: Path) -> None:
    def mostly_water(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        (image,), codes = landcover(ix, seed)
        codes[:] = 10
        codes[64:96, 64:96] = 30
        return [image], codes

    everywhere = Split(SplitSettings(block=32, buffer=0, fractions=(1, 0, 0)))
    data = make_data(tmp_path, mostly_water, split=everywhere, tiles=1)
    chips = data.chips(TRAIN, 64, limit=1, seed=0)
    assert len(chips) == 1
    drawn = [(data.chips(TRAIN, 64, limit=1, seed=s).label == 2).any() for s in range(40)]
    assert np.mean(drawn) > 0.3  # one window in sixteen has the rare class


def test_steps_are_the_nearest_that_are_clear_enough(tiny_cube: Cube) -> None:
    view = tiny_cube.view()
    collection, labels = view.collection("sentinel-2-l2a"), view.labels("landcover")
    for date, step in ((None, 2), (dt.date(2024, 3, 1), 0), (dt.date(2024, 4, 12), 1), (dt.date(2030, 1, 1), 2)):
        assert TaskData(collection, labels, SPLIT, [date]).steps(collection.tile_ids[0]) == (step,)
    same = TaskData(collection, labels, SPLIT, [dt.date(2024, 3, 1), dt.date(2024, 3, 12)])
    assert same.steps(collection.tile_ids[0]) is None
    with pytest.raises(LabelError, match="choose another date"):
        same.require_labels(TRAIN)


def test_labels_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    def unlabelled(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        return landcover(ix, seed)[0], np.full((256, 256), NO_LABEL, np.uint8)

    def all_forest(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        return landcover(ix, seed)[0], np.full((256, 256), LEGEND.codes[2], np.uint8)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(LabelError, match="no clear pixel in the training blocks is labelled in 'truth'"):
        make_data(tmp_path / "a", unlabelled).require_labels(TRAIN)
    with pytest.raises(LabelError, match="all labelled pixels in the validation blocks of 'truth' are 'forest'"):
        make_data(tmp_path / "b", all_forest).require_labels(VAL)
