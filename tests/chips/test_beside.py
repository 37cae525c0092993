"""Pairs of two collections: one window, two sensors, at most some days apart."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geossl.chips.beside import Beside, days_beside, pairs_beside
from geossl.chips.cache import ChunkCache
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import SettingsError
from geossl.imagery.clouds import is_clear

DAY = 86_400
Pair = tuple[tuple[int, ...], int]  # our chip (east, north, seconds), and the seconds of the other


@pytest.fixture(scope="module")
def readers(
    collection: Collection, radar: Collection, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ChipReader, ChipReader]:
    cache = ChunkCache(tmp_path_factory.mktemp("chunks"))
    return ChipReader(collection, cache, 2), ChipReader(radar, cache, 2)


def loader(readers: tuple[ChipReader, ChipReader], days: float, batch_size: int = 8, **settings: Any) -> ChipLoader:
    ours, theirs = (build_index(reader.collection, 64, min_clear=0.0) for reader in readers)
    return ChipLoader(readers[0], ours, batch_size, beside=Beside(readers[1], theirs, days), **settings)


def pairs_of(batch: Any) -> list[Pair]:
    times = batch["time"].tolist(), batch["beside"]["time"].tolist()
    return [((*map(int, xy), ours), theirs) for xy, ours, theirs in zip(batch["xy"].tolist(), *times, strict=True)]


def expected(collection: Collection, xy: NDArray[Any], seconds: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Image and clear pixels of the chip of 64 px around a place, as the cube has them, for each step of that time."""
    found = []
    for tile_id in collection.tile_ids:
        x, y = ~collection.tile(tile_id).transform @ tuple(xy)
        if 0 <= x < 512 and 0 <= y < 512:
            window = (slice(round(y) - 32, round(y) + 32), slice(round(x) - 32, round(x) + 32))
            for step in np.flatnonzero(collection.times(tile_id).astype("datetime64[s]").astype(int) == seconds):
                quality = np.asarray(collection.quality(tile_id)[step, *window])
                found.append((np.asarray(collection.image(tile_id)[step, :, *window]), is_clear(quality)))
    return found


def test_a_batch_says_what_both_cubes_say(
    readers: tuple[ChipReader, ChipReader], collection: Collection, radar: Collection
) -> None:
    batches = list(loader(readers, 4.0))
    seen = [pair for batch in batches for pair in pairs_of(batch)]
    # one shared tile of 64 windows; its second step has radar within four days, and its first has two
    assert len(seen) == 128
    assert len({theirs for _, theirs in seen}) == 3
    assert all(abs(ours[2] - theirs) <= 4 * DAY for ours, theirs in seen)
    for batch in batches[::5]:
        beside = batch["beside"]
        assert batch["image"].shape == (8, 4, 64, 64)
        assert beside["image"].shape == (8, 2, 64, 64)
        assert batch["wavelengths"].tolist() == pytest.approx(collection.sensor.wavelengths)
        assert beside["wavelengths"].isnan().tolist() == [True, True]
        for place in range(8):
            for of, part in ((collection, batch), (radar, beside)):
                ((image, clear),) = expected(of, batch["xy"][place].numpy(), int(part["time"][place]))
                np.testing.assert_array_equal(part["image"][place], image)
                np.testing.assert_array_equal(part["valid"][place], clear)
    # cloud in one, the end of a pass in the other
    assert not all(batch["valid"].all() for batch in batches)
    assert not all(batch["beside"]["valid"].all() for batch in batches)


@st.composite
def indices(draw: st.DrawFn) -> tuple[ChipIndex, ChipIndex]:
    """Two indices of few windows and days, of tiles that only partly are the same."""

    def one(tiles: tuple[str, ...]) -> ChipIndex:
        place = st.tuples(st.integers(0, len(tiles) - 1), st.sampled_from([0, 64]), st.sampled_from([0, 64]))
        hours = st.integers(0, 200)
        chips = draw(st.lists(st.tuples(place, hours), max_size=25))
        tile, row, col = np.array([where for where, _ in chips], np.int32).reshape(-1, 3).T
        time = np.datetime64("2024-01-01", "ns") + np.array([hour for _, hour in chips], "timedelta64[h]")
        step = np.zeros(len(chips), np.int32)
        return ChipIndex(tiles, 64, tile, step, row, col, np.ones(len(chips), np.float32), time)

    return one(("x1y1", "x2y1")), one(("x2y1", "x3y1", "x1y1"))


@given(both=indices(), days=st.sampled_from([0.0, 0.5, 1.0, 3.3, 1e9, float("inf")]))
def test_pairs_are_of_one_window_and_near_in_time(both: tuple[ChipIndex, ChipIndex], days: float) -> None:
    ours, theirs = both

    def window(index: ChipIndex, row: int) -> tuple[str, int, int]:
        return index.tile_ids[index.tile[row]], int(index.row[row]), int(index.col[row])

    apart = {
        (i, j): abs(ours.time[i] - theirs.time[j]) / np.timedelta64(1, "D")
        for i in range(len(ours))
        for j in range(len(theirs))
        if window(ours, i) == window(theirs, j)
    }
    nearest = [
        min((apart[i, j] for j in range(len(theirs)) if (i, j) in apart), default=np.inf) for i in range(len(ours))
    ]
    np.testing.assert_allclose(days_beside(ours, theirs), nearest)
    beside = Beside(None, theirs, days)  # type: ignore[arg-type]  # no pixel is read
    drawn = pairs_beside(ours, beside, seed=0, epoch=1)
    allowed = {pair for pair, gap in apart.items() if gap <= days}
    assert set(map(tuple, drawn.tolist())) <= allowed
    assert drawn[:, 0].tolist() == sorted({i for i, _ in allowed})
    np.testing.assert_array_equal(pairs_beside(ours, beside, seed=0, epoch=1), drawn)
    many = {tuple(pair) for epoch in range(200) for pair in pairs_beside(ours, beside, seed=0, epoch=epoch).tolist()}
    if max((sum(i == k for k, _ in allowed) for i in range(len(ours))), default=0) <= 4:
        assert many == allowed  # in time every one


def test_a_collection_beside_itself_gives_the_chips_that_it_gives_alone(readers: tuple[ChipReader, ChipReader]) -> None:
    reader = readers[0]
    index = build_index(reader.collection, 64, min_clear=0.0)
    alone = ChipLoader(reader, index, 16, seed=3)
    twice = ChipLoader(reader, index, 16, seed=3, beside=Beside(reader, index, 0.0))
    assert len(alone) == len(twice)
    for one, two in islice(zip(alone, twice, strict=True), 4):
        for name in ("image", "valid", "time", "wavelengths"):
            assert torch.equal(one[name], two[name])
            assert torch.equal(one[name], two["beside"][name])
        assert torch.equal(one["xy"], two["xy"])


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_resuming_goes_on_at_the_very_next_batch(readers: tuple[ChipReader, ChipReader], taken: int) -> None:
    def pool() -> PoolLoader:
        single = ChipLoader(readers[0], build_index(readers[0].collection, 64, min_clear=0.0), 32, seed=2)
        return PoolLoader([single, loader(readers, 4.0, 32, seed=2)], [1, 2], seed=2)

    def fingerprint(batch: Any) -> tuple[int, bytes, bytes]:
        beside = batch["beside"]["image"].numpy().tobytes() if "beside" in batch else b""
        return int(batch["member"]), batch["image"].numpy().tobytes(), beside

    whole = pool()
    expected = [fingerprint(batch) for _ in range(3) for batch in whole]
    assert {member: bool(beside) for member, _, beside in expected} == {0: False, 1: True}
    stopped = pool()
    list(stopped)
    list(islice(stopped, taken))
    resumed = pool()
    resumed.load_state_dict(stopped.state_dict())
    got = [fingerprint(batch) for _ in range(2) for batch in resumed]
    assert got == expected[len(whole) + taken :][: len(got)]
    assert got


@settings(max_examples=8)
@given(world=st.sampled_from([2, 3, 4]), after=st.sampled_from([1, 2, 6]), epoch=st.integers(0, 2))
def test_ranks_see_disjoint_chips_and_another_number_goes_on(
    readers: tuple[ChipReader, ChipReader], world: int, after: int, epoch: int
) -> None:
    def ranks(world: int, size: int) -> list[ChipLoader]:
        return [loader(readers, 4.0, size, seed=1, rank=rank, world=world) for rank in range(world)]

    def together(loaders: list[ChipLoader], epoch: int) -> list[list[list[int]]]:
        """The rows of each batch on all ranks."""
        rows = [each.order(epoch).reshape(len(each), -1, 2) for each in loaders]
        return [sorted(np.concatenate(batch).tolist()) for batch in zip(*rows, strict=True)]

    before = ranks(world, 12 // world)
    batches = together(before, epoch)
    ours = [pair[0] for batch in batches for pair in batch]
    assert len(set(ours)) == len(ours) == 128 // 12 * 12
    list(islice(before[0], 3))
    others = ranks(after, 5)
    for each in others:
        each.load_state_dict(before[0].state_dict())
        assert each.batch_size == 12 // after
    assert together(others, epoch) == batches
    assert together(others, epoch + 1) != batches


def test_a_pair_weighs_the_mean_of_its_two(readers: tuple[ChipReader, ChipReader]) -> None:
    ours, theirs = (build_index(reader.collection, 64, min_clear=0.0) for reader in readers)
    march = theirs.time < np.datetime64("2024-04-01")

    def seen(weights: NDArray[np.float64], beside: NDArray[np.float64] | None) -> NDArray[np.int64]:
        other = Beside(readers[1], theirs, 4.0, beside)
        return ChipLoader(readers[0], ours, 8, beside=other, weights=weights).order(0)

    north = (ours.row < 256).astype(float)
    assert (ours.row[seen(north, None)[:, 0]] < 256).all()
    rows = seen(np.zeros(len(ours)), march.astype(float))
    assert march[rows[:, 1]].all()
    assert len(rows) == 128
    rows = seen(np.ones(len(ours)), 2.0 * march)  # 1.5 against 0.5
    assert march[rows[:, 1]].mean() == pytest.approx(0.75, abs=0.02)


def test_a_damaged_chunk_beside_is_reported_and_is_nobodys_view(
    readers: tuple[ChipReader, ChipReader], radar_cube: Cube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(radar_cube.uri, tmp_path / "cube")
    for path in sorted((tmp_path / "cube" / "chunks").rglob("*"), key=lambda path: path.stat().st_size)[-16:]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    broken = ChipReader(Cube.open(str(tmp_path / "cube")).view().collection("sentinel-1-rtc"), bad_chunks=16)
    sound, hurt = (list(loader((readers[0], reader), 4.0)) for reader in (readers[1], broken))
    assert len({text for text in caplog.messages if "sentinel-1-rtc" in text}) > 0
    hidden = 0
    for good, bad in zip(sound, hurt, strict=True):
        assert torch.equal(good["image"], bad["image"])
        same = (good["beside"]["image"] == bad["beside"]["image"]).all(dim=1)
        assert not bad["beside"]["valid"][~same].any()
        assert torch.equal(good["beside"]["valid"][same], bad["beside"]["valid"][same])
        hidden += int((~same).sum())
    assert hidden > 0


def test_too_few_pairs_are_an_error(readers: tuple[ChipReader, ChipReader]) -> None:
    assert len(loader(readers, 3.0)) == 8
    with pytest.raises(SettingsError, match="64 pairs do not fill one batch of 65 on 1 process"):
        loader(readers, 3.0, 65)
    ours, theirs = (build_index(reader.collection, 64, min_clear=0.0) for reader in readers)
    apart = days_beside(ours, theirs)
    shared = ours.tile == 1
    assert np.isinf(apart[~shared]).all()
    assert sorted(set(apart[shared].round(2).tolist())) == [1.36, 3.64, 17.64]
