"""Batches: what is in them, and which chips come when."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geossl.chips.buffers import BufferPool
from geossl.chips.cache import ChunkCache
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.labels import LabelLayer
from geossl.chips.loader import NEIGHBOURS, ChipLoader
from geossl.chips.reader import ChipReader
from geossl.chips.split import TRAIN, VAL, Split, SplitSettings
from geossl.cube.collection import Collection, Labels
from geossl.errors import SettingsError
from geossl.imagery.clouds import is_clear


@pytest.fixture(scope="module")
def reader(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> ChipReader:
    return ChipReader(collection, ChunkCache(tmp_path_factory.mktemp("chunks")))


@pytest.fixture(scope="module")
def index(collection: Collection) -> ChipIndex:
    return build_index(collection, 64, min_clear=0.0)


def seen(batches: Any) -> list[bytes]:
    """One fingerprint a chip, in the order of the batches."""
    return [chip.numpy().tobytes() for batch in batches for chip in batch["image"]]


def test_a_batch_says_what_the_cube_says(reader: ChipReader, index: ChipIndex) -> None:
    loader = ChipLoader(reader, index, 10)
    collection = reader.collection
    rows = loader.order(0)
    for number, batch in enumerate(islice(loader, 3)):
        for place, row in enumerate(rows[number * 10 : number * 10 + 10]):
            tile_id, step = index.tile_ids[index.tile[row]], index.step[row]
            y, x = int(index.row[row]), int(index.col[row])
            window = (slice(y, y + 64), slice(x, x + 64))
            quality = np.asarray(collection.quality(tile_id)[step, *window])
            np.testing.assert_array_equal(batch["image"][place], collection.image(tile_id)[step, :, *window])
            np.testing.assert_array_equal(batch["valid"][place], is_clear(quality))
            assert np.datetime64(int(batch["time"][place]), "s") == collection.times(tile_id)[step]
            east, north = collection.tile(tile_id).transform @ (x + 32, y + 32)
            assert batch["xy"][place].tolist() == pytest.approx([east, north])
        assert batch["image"].dtype == torch.int16
        assert batch["gsd"].tolist() == [10.0] * 10
        assert batch["wavelengths"].tolist() == pytest.approx(collection.sensor.wavelengths)
        assert "mask" not in batch


@settings(max_examples=20, deadline=None, report_multiple_bugs=False)
@given(world=st.integers(1, 4), batch_size=st.integers(1, 32), epoch=st.integers(0, 3), paired=st.booleans())
def test_ranks_share_an_epoch_without_overlap(
    reader: ChipReader, index: ChipIndex, world: int, batch_size: int, epoch: int, paired: bool
) -> None:
    loaders = [ChipLoader(reader, index, batch_size, paired=paired, rank=r, world=world) for r in range(world)]
    rows = [loader.order(epoch) for loader in loaders]
    assert {len(r) for r in rows} == {len(loaders[0]) * batch_size}
    together = np.concatenate(rows).ravel()
    assert len(np.unique(together)) == len(together)
    # three steps make one pair
    available = len(index) * 2 // 3 if paired else len(index)
    assert 0 <= available - len(together) < batch_size * world * (2 if paired else 1)


@pytest.mark.parametrize("world", [1, 3])
def test_without_shuffling_every_chip_comes_once_down_to_the_last(
    reader: ChipReader, index: ChipIndex, world: int
) -> None:
    some = index.select(np.arange(25))
    loaders = [ChipLoader(reader, some, 4, shuffle=False, rank=r, world=world) for r in range(world)]
    batches = [list(loader) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(b) for b in batches]
    everything = [chip for b in batches for chip in seen(b)]
    assert sorted(everything) == sorted(seen([{"image": torch.from_numpy(reader.read(some, np.arange(25)).image)}]))


def test_epochs_differ_and_a_seed_repeats_them(reader: ChipReader, index: ChipIndex) -> None:
    loader, again = (ChipLoader(reader, index, 16, seed=5) for _ in range(2))
    first, second = seen(loader), seen(loader)
    assert first != second
    assert sorted(first) == sorted(second)
    again.set_epoch(1)
    assert seen(again) == second
    again.set_epoch(0)
    assert seen(again) == first


def test_neighbours_stay_together_and_are_otherwise_spread(reader: ChipReader, index: ChipIndex) -> None:
    loader = ChipLoader(reader, index, 16)
    chunk = index.chunk()[loader.order(0)]
    runs = np.diff(np.flatnonzero(np.r_[True, chunk[1:] != chunk[:-1], True]))
    assert set(np.unique(runs) % NEIGHBOURS) == {0}
    # two runs of one chunk seldom meet: 16 chips of a chunk, 24 chunks
    assert (runs == NEIGHBOURS).mean() > 0.7


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 4, 5])
def test_resuming_goes_on_at_the_very_next_batch(
    reader: ChipReader, index: ChipIndex, paired: bool, taken: int
) -> None:
    some = index.select((index.tile == 0) & (index.row < 128))

    def loader() -> ChipLoader:
        return ChipLoader(reader, some, 3 if paired else 9, paired=paired, seed=2)

    whole = loader()
    expected = [seen([batch]) for _ in range(4) for batch in whole]
    assert len(whole) == 5
    stopped = loader()
    list(stopped)  # the whole of epoch 0
    list(islice(stopped, taken))
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    iter(resumed)  # Lightning may ask twice; nothing is skipped by that
    got = [seen([batch]) for _ in range(2) for batch in resumed]
    assert got == expected[len(whole) + taken :][: len(got)]
    assert len(got) > len(whole)


@settings(max_examples=15, deadline=None, report_multiple_bugs=False)
@given(before=st.sampled_from([1, 2, 3, 4]), after=st.sampled_from([1, 2, 3, 4]), paired=st.booleans())
def test_another_number_of_ranks_keeps_the_batches_and_their_order(
    reader: ChipReader, index: ChipIndex, before: int, after: int, paired: bool
) -> None:
    def ranks(world: int) -> list[ChipLoader]:
        size = 12 // world if world == before else 5
        return [ChipLoader(reader, index, size, paired=paired, rank=rank, world=world) for rank in range(world)]

    def batches(loaders: list[ChipLoader], epoch: int) -> list[np.ndarray]:
        """The rows of each batch, on all ranks together."""
        rows = [loader.order(epoch).reshape(len(loader), -1) for loader in loaders]
        return [np.sort(np.concatenate(batch)) for batch in zip(*rows, strict=True)]

    first = ranks(before)
    list(islice(first[0], 3))
    second = ranks(after)
    for loader in second:
        loader.load_state_dict(first[0].state_dict())
        assert loader.batch_size == 12 // after
    for epoch in range(2):
        np.testing.assert_array_equal(batches(second, epoch), batches(first, epoch))
    np.testing.assert_array_equal(
        next(iter(second[0]))["image"], reader.read(index, second[0].order(0)[3 * 12 // after :][: 12 // after]).image
    )


def test_a_batch_that_cannot_be_shared_out_is_an_error(reader: ChipReader, index: ChipIndex) -> None:
    state = ChipLoader(reader, index, 10).state_dict()
    with pytest.raises(SettingsError, match="batches of 10 chips on all processes together cannot be shared out to 3"):
        ChipLoader(reader, index, 10, world=3).load_state_dict(state)


def test_pairs_show_one_place_at_two_times(reader: ChipReader, index: ChipIndex) -> None:
    loader = ChipLoader(reader, index, 8, paired=True)
    batch = next(iter(loader))
    assert batch["image"].shape == (8, 2, 4, 64, 64)
    assert batch["valid"].shape == (8, 2, 64, 64)
    assert (batch["time"][:, 0] != batch["time"][:, 1]).all()
    rows = loader.order(0)[:8]
    for t in (0, 1):
        np.testing.assert_array_equal(batch["image"][:, t], reader.read(index, rows[:, t]).image)


def test_masks_are_class_positions_where_the_split_shows_them(
    reader: ChipReader, index: ChipIndex, labels: Labels
) -> None:
    split = Split(SplitSettings(block=96, buffer=8))
    layer = LabelLayer(labels, split, (TRAIN,))
    loader = ChipLoader(reader, index, 8, labels=layer, shuffle=False)
    for number, batch in enumerate(islice(loader, 6)):
        for place in range(8):
            row = number * 8 + place
            tile_id = index.tile_ids[index.tile[row]]
            window = (
                slice(index.row[row], index.row[row] + 64),
                slice(index.col[row], index.col[row] + 64),
            )
            codes = labels.read(tile_id)[window]
            shown = (split.subset_mask(labels.tile(tile_id))[window] == TRAIN) & batch["valid"][place].numpy()
            shown &= codes != 255
            # codes 1, 2, 3 are positions 0, 1, 2
            np.testing.assert_array_equal(batch["mask"][place], np.where(shown, codes - 1, 255))


def test_labelled_finds_the_chips_with_something_to_learn(labels: Labels, index: ChipIndex) -> None:
    for layer in (LabelLayer(labels), LabelLayer(labels, Split(SplitSettings(block=150, buffer=10)), (VAL,))):
        has = layer.labelled(index)
        np.testing.assert_array_equal(has, (layer.read(index, np.arange(len(index))) != 255).any(axis=(1, 2)))
        assert 0 < has.sum() < len(has)


def test_a_batch_that_is_kept_is_not_overwritten(reader: ChipReader, index: ChipIndex) -> None:
    loader = ChipLoader(reader, index, 16)
    batches = list(loader)
    rows = loader.order(0)
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(batch["image"], reader.read(index, rows[number * 16 : number * 16 + 16]).image)


def test_a_buffer_comes_back_when_the_last_look_at_it_is_gone() -> None:
    pool = BufferPool((4, 8), torch.int16)
    tensor = pool.take()
    address = tensor.data_ptr()
    look: Tensor | None = tensor[2:].view(-1)
    del tensor
    other = pool.take()
    assert other.data_ptr() != address
    del look
    assert pool.take().data_ptr() == address


def test_what_the_reader_raises_reaches_the_caller(
    reader: ChipReader, index: ChipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the disk is gone")

    loader = ChipLoader(reader, index, 16)
    monkeypatch.setattr(reader, "read", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(loader))


def test_too_few_chips_for_a_batch_are_an_error(reader: ChipReader, index: ChipIndex) -> None:
    with pytest.raises(SettingsError, match=r"384 chips do not fill one batch of 400 on 1 process"):
        ChipLoader(reader, index, 400)
    with pytest.raises(SettingsError, match="0 chips"):
        ChipLoader(reader, index.select(np.arange(0)), 1)
    assert list(ChipLoader(reader, index.select(np.arange(0)), 1, shuffle=False)) == []


def test_an_epoch_can_be_left_early(reader: ChipReader, index: ChipIndex, tmp_path: Path) -> None:
    loader = ChipLoader(reader, index, 16)
    first = seen(islice(loader, 2))
    second = seen(islice(loader, 2))
    assert first != second
    assert loader.state_dict() == {"epoch": 1, "batch": 2, "together": 16}
