"""The index of usable windows, held against the pixels that it never reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geossl.chips.index import ChipIndex, build_index, pairs
from geossl.chips.reader import ChipReader
from geossl.chips.split import TRAIN, VAL, Split, SplitSettings
from geossl.cube.collection import Collection
from geossl.errors import SettingsError
from geossl.grid import CHUNK
from geossl.imagery.clouds import is_clear


def test_clear_shares_are_those_of_the_pixels(collection: Collection) -> None:
    index = build_index(collection, 512, min_clear=0.0)
    for i in range(len(index)):
        quality = np.asarray(collection.quality(index.tile_ids[index.tile[i]])[index.step[i]])
        assert index.clear[i] == pytest.approx(is_clear(quality).mean(), abs=1e-6)
    assert len(index) == 6
    assert sorted(set(index.clear.tolist())) != [1.0]  # the cube has clouds


@given(min_clear=st.floats(0.0, 1.0), size=st.sampled_from([32, 100, 256, 300, 512]))
def test_every_window_that_is_clear_enough_is_listed(collection: Collection, min_clear: float, size: int) -> None:
    """By its pixels; and none whose chunks have too few clear ones for it."""
    everything = build_index(collection, size, min_clear=0.0)
    index = build_index(collection, size, min_clear=min_clear)

    def named(chosen: ChipIndex) -> set[tuple[int, ...]]:
        return {*zip(*(getattr(chosen, name).tolist() for name in ("tile", "step", "row", "col")), strict=True)}

    enough = everything.select(ChipReader(collection).clear(everything) >= min_clear)
    assert named(enough) <= named(index) <= named(everything)
    if size == CHUNK:
        assert named(enough) == named(index)


def test_a_cloudy_chunk_has_clear_windows(collection: Collection) -> None:
    everything = build_index(collection, 32, min_clear=0.0)
    clear = ChipReader(collection).clear(everything)
    clearest = np.argmax(clear - everything.clear)
    assert everything.clear[clearest] < clear[clearest] - 0.05  # it was passed over when chunks were judged
    listed = build_index(collection, 32, min_clear=float(clear[clearest]))
    where = (listed.tile, listed.step, listed.row, listed.col)
    there = (everything.tile, everything.step, everything.row, everything.col)
    assert np.all([a == b[clearest] for a, b in zip(where, there, strict=True)], axis=0).any()


@given(size=st.integers(1, 512))
def test_windows_cover_every_pixel_and_small_ones_stay_in_their_chunk(collection: Collection, size: int) -> None:
    index = build_index(collection, max(size, 20), min_clear=0.0, steps=[0])
    size = index.size
    first = index.select(index.tile == 0)
    seen = np.zeros(512, bool)
    for row in np.unique(first.row):
        seen[row : row + size] = True
    assert seen.all()
    assert first.row.max() + size <= 512
    assert len(first) == len(np.unique(first.row)) * len(np.unique(first.col))
    if size <= CHUNK:
        assert (first.row // CHUNK == (first.row + size - 1) // CHUNK).all()
        assert (first.col // CHUNK == (first.col + size - 1) // CHUNK).all()


def test_a_stride_places_windows_at_its_multiples(collection: Collection) -> None:
    index = build_index(collection, 100, stride=70, min_clear=0.0, steps=[1])
    assert set(index.row.tolist()) == {0, 70, 140, 256, 326, 396}
    assert set(index.step.tolist()) == {1}


def test_a_split_keeps_windows_on_its_own_ground(collection: Collection) -> None:
    split = Split(SplitSettings(block=96, buffer=8, seed=3))
    whole = build_index(collection, 48, stride=16, split=split, subsets=(VAL,), min_clear=0.0, steps=[0])
    part = build_index(collection, 48, stride=16, split=split, subsets=(VAL,), min_clear=0.0, steps=[0], partly=True)
    assert 0 < len(whole) < len(part)
    for i in range(len(whole)):
        mask = split.subset_mask(collection.tile(whole.tile_ids[whole.tile[i]]))
        window = mask[whole.row[i] : whole.row[i] + 48, whole.col[i] : whole.col[i] + 48]
        assert TRAIN not in window


def test_times_are_those_of_the_steps(collection: Collection) -> None:
    index = build_index(collection, 256, min_clear=0.0)
    for i in range(len(index)):
        assert index.time[i] == collection.times(index.tile_ids[index.tile[i]])[index.step[i]]


def test_chips_that_fit_nowhere_are_refused(collection: Collection) -> None:
    with pytest.raises(SettingsError, match="513 px do not fit into tiles of 512 px"):
        build_index(collection, 513)


def windows_with(counts: list[int]) -> ChipIndex:
    """An index whose n-th window has counts[n] steps."""
    n = len(counts)
    col = np.repeat(np.arange(n), counts).astype(np.int32)
    step = np.array([step for k in counts for step in range(k)], np.int32)
    zeros = np.zeros(len(col), np.int32)
    return ChipIndex(("x0y0",), 1, zeros, step, zeros, col, zeros.astype(np.float32), step.astype("datetime64[ns]"))


@given(counts=st.lists(st.integers(0, 5), max_size=12), epoch=st.integers(0, 5))
def test_pairs_are_two_steps_of_one_window_and_use_each_chip_once(counts: list[int], epoch: int) -> None:
    index = windows_with(counts)
    rows = pairs(index, seed=1, epoch=epoch)
    assert rows.shape == (sum(k // 2 for k in counts), 2)
    assert (index.col[rows[:, 0]] == index.col[rows[:, 1]]).all()
    assert (index.step[rows[:, 0]] != index.step[rows[:, 1]]).all()
    assert len(np.unique(rows)) == rows.size


def test_pairs_differ_by_epoch_and_repeat_by_seed() -> None:
    index = windows_with([6] * 30)
    a, b, again = (pairs(index, seed=1, epoch=e) for e in (0, 1, 0))
    np.testing.assert_array_equal(a, again)
    assert {frozenset(p) for p in a.tolist()} != {frozenset(p) for p in b.tolist()}
    # both orders of dates occur
    assert len(set((index.step[a[:, 0]] < index.step[a[:, 1]]).tolist())) == 2
