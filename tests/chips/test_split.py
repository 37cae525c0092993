"""The spatial split, held against a brute-force reading of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from geossl.chips.split import GATE, TEST, TRAIN, UNUSED, VAL, Split, SplitSettings
from geossl.grid import Grid

GRID = Grid("EPSG:32612", 30.0, tile_size=256)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    block = draw(st.integers(20, 150))
    buffer = draw(st.integers(0, (block - 1) // 2))
    return Split(SplitSettings(block=block, buffer=buffer, seed=draw(st.integers(0, 2**40))))


def mosaic(split: Split, ix: int, iy: int) -> np.ndarray:
    """The masks of 2 × 2 neighbouring tiles, side by side."""
    return np.block([[split.subset_mask(GRID[ix + dx, iy + dy]) for dx in (0, 1)] for dy in (0, 1)])


@settings(max_examples=25, deadline=None)
@given(split=splits(), ix=st.integers(-3, 3), iy=st.integers(-3, 3))
def test_subsets_keep_the_buffer_between_them_across_tile_borders(split: Split, ix: int, iy: int) -> None:
    mask = mosaic(split, ix, iy)
    reach = 2 * split.settings.buffer + 1
    for subset in (TRAIN, VAL, TEST):
        near = maximum_filter(mask == subset, size=reach, mode="constant")
        assert not (near & (mask != subset) & (mask != UNUSED)).any()


@settings(max_examples=25, deadline=None)
@given(split=splits(), ix=st.integers(-40, 40), iy=st.integers(-40, 40))
def test_a_pixel_is_of_its_block_unless_another_subset_is_within_the_buffer(split: Split, ix: int, iy: int) -> None:
    tile = GRID[ix, iy]
    mask, ids = split.subset_mask(tile), split.block_id(tile)
    block, buffer = split.settings.block, split.settings.buffer
    rng = np.random.default_rng(0)
    for row, col in rng.integers(0, GRID.tile_size, (12, 2)):
        y, x = tile.pixel_origin[0] + row, tile.pixel_origin[1] + col
        around = [
            int(split.block_subset((y + dy) // block, (x + dx) // block)[0])
            for dy in (-buffer, 0, buffer)
            for dx in (-buffer, 0, buffer)
        ]
        own = int(split.block_subset(y // block, x // block)[0])
        assert mask[row, col] == (own if set(around) == {own} else UNUSED)
        same = ids == ids[row, col]
        assert same.sum() <= block**2
        assert set(np.unique(mask[same])) <= {UNUSED, own}


@given(st.integers(0, 2**30), st.integers(-500, 500), st.integers(-500, 500))
def test_every_group_of_twenty_blocks_has_the_wanted_shares(seed: int, group_row: int, group_col: int) -> None:
    rows, cols = np.arange(4) + 4 * group_row, np.arange(5) + 5 * group_col
    subsets = Split(SplitSettings(seed=seed)).block_subset(rows[:, None], cols[None, :])
    assert np.bincount(subsets.ravel(), minlength=4).tolist() == [0, 12, 3, 5]


def test_fractions_that_twenty_blocks_cannot_hold_are_right_on_average() -> None:
    split = Split(SplitSettings(fractions=(0.71, 0.0, 0.29)))
    subsets = split.block_subset(np.arange(400)[:, None], np.arange(400)[None, :])
    assert (subsets == TRAIN).mean() == pytest.approx(0.71, abs=0.003)
    assert not (subsets == VAL).any()


def test_the_draw_never_changes() -> None:
    # frozen: a store's held-out ground must stay held out in later versions
    subsets = Split(SplitSettings(seed=7)).block_subset(np.arange(-2, 3)[:, None], np.arange(-3, 5)[None, :])
    assert "".join(map(str, subsets.ravel())) == "1111113111333123121311122213111131333111"


def test_another_seed_is_another_draw() -> None:
    rows, cols = np.arange(40)[:, None], np.arange(40)[None, :]
    a, b = (Split(SplitSettings(seed=seed)).block_subset(rows, cols) for seed in (1, 2))
    # two independent draws agree on 0.6² + 0.15² + 0.25² = 0.445 of the blocks
    assert (a == b).mean() == pytest.approx(0.445, abs=0.05)


@given(split=splits(), size=st.integers(1, 256), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_windows_know_which_blocks_they_lie_in(split: Split, size: int, seed: int) -> None:
    tile = GRID[-1, 2]
    row, col = np.random.default_rng(seed).integers(0, GRID.tile_size - size + 1, (2, 20))
    wholly, partly = split.window_subsets(tile, row, col, size, (TRAIN, TEST))
    blocks = split.settings.block
    y, x = (start + np.arange(GRID.tile_size) for start in tile.pixel_origin)
    wanted = np.isin(split.block_subset((y // blocks)[:, None], (x // blocks)[None, :]), (TRAIN, TEST))
    for i, (r, c) in enumerate(zip(row, col, strict=True)):
        window = wanted[r : r + size, c : c + size]
        assert (wholly[i], partly[i]) == (window.all(), window.any())


@settings(max_examples=15, deadline=None)
@given(split=splits(), size=st.integers(1, 64))
def test_a_training_window_stays_clear_of_test_pixels(split: Split, size: int) -> None:
    tile = GRID[0, 0]
    row, col = (o.ravel() for o in np.meshgrid(*[np.arange(0, 256 - size + 1, 16)] * 2, indexing="ij"))
    wholly, _ = split.window_subsets(tile, row, col, size, (TRAIN,))
    mask, buffer = split.subset_mask(tile), split.settings.buffer
    for r, c in zip(row[wholly], col[wholly], strict=True):
        around = mask[max(0, r - buffer) : r + size + buffer, max(0, c - buffer) : c + size + buffer]
        assert not np.isin(around, (VAL, TEST)).any()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="buffer of 16 px leaves nothing of a block of 32 px"):
        SplitSettings(block=32)
    with pytest.raises(ValueError, match="add up to 1"):
        SplitSettings(fractions=(0.5, 0.2, 0.2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), gate=st.sampled_from([0.05, 0.1, 0.2]))
def test_the_gate_takes_its_share_from_the_test_blocks_alone(seed: int, gate: float) -> None:
    row, col = np.mgrid[:80, :100]
    without = Split(SplitSettings(seed=seed)).block_subset(row, col)
    found = Split(SplitSettings(seed=seed, gate=gate)).block_subset(row, col)
    assert (without[found == GATE] == TEST).all()
    assert (found == without)[found != GATE].all()
    assert abs((found == GATE).mean() - gate) < 0.01


def test_a_gate_that_leaves_no_test_block_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left to report"):
        SplitSettings(gate=0.25)
