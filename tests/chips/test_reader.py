"""Reading chips, with Zarr's own indexing as the oracle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geossl.chips.cache import ChunkCache
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.reader import ChipReader
from geossl.cube.chunks import StoredArray
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import StoreError
from geossl.imagery.clouds import is_clear


def at(collection: Collection, size: int, places: list[tuple[int, int, int, int]]) -> ChipIndex:
    """An index of windows at any (tile, step, row, col)."""
    tile, step, row, col = np.array(places, np.int32).T
    clear, time = np.ones(len(places), np.float32), np.zeros(len(places), "datetime64[ns]")
    return ChipIndex(tuple(collection.tile_ids), size, tile, step, row, col, clear, time)


def expected(collection: Collection, index: ChipIndex, row: int) -> tuple[np.ndarray, np.ndarray]:
    tile_id, step, size = index.tile_ids[index.tile[row]], int(index.step[row]), index.size
    y, x = int(index.row[row]), int(index.col[row])
    window = (slice(y, y + size), slice(x, x + size))
    return (
        np.asarray(collection.image(tile_id)[step, :, *window]),
        np.asarray(collection.quality(tile_id)[step, *window]),
    )


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int, int]]]:
    size = draw(st.sampled_from([1, 17, 64, 255, 256, 257, 400, 512]))
    offset = st.sampled_from([0, 512 - size]) | st.integers(0, 512 - size)
    place = st.tuples(st.integers(0, 1), st.integers(0, 2), offset, offset)
    return size, draw(st.lists(place, min_size=1, max_size=6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows=windows(), threads=st.sampled_from([1, 3]))
def test_any_window_reads_as_through_zarr(
    collection: Collection, tmp_path: Path, windows: tuple[int, list[tuple[int, int, int, int]]], threads: int
) -> None:
    index = at(collection, *windows)
    rows = np.arange(len(index))
    reader = ChipReader(collection, ChunkCache(tmp_path), threads)
    for _ in range(2):  # the second time out of the cache
        read = reader.read(index, rows)
        for row in range(len(index)):
            image, quality = expected(collection, index, row)
            np.testing.assert_array_equal(read.image[row], image)
            np.testing.assert_array_equal(read.quality[row], quality)


def test_rows_may_be_pairs_and_buffers_are_filled_in_place(collection: Collection) -> None:
    index = build_index(collection, 128, min_clear=0.0)
    reader = ChipReader(collection)
    rows = np.array([[3, 20], [5, 3], [40, 41]])
    out = reader.buffers(rows.shape, 128)
    assert reader.read(index, rows, out) is out
    assert out.image.shape == (3, 2, 4, 128, 128)
    np.testing.assert_array_equal(out.image[1, 1], out.image[0, 0])
    np.testing.assert_array_equal(out.image[2, 1], expected(collection, index, 41)[0])


@pytest.mark.parametrize("size", [64, 100, 512])
def test_the_clear_share_of_chips_is_exact(collection: Collection, size: int) -> None:
    index = build_index(collection, size, min_clear=0.0)
    share = ChipReader(collection).clear(index)
    expected_share = [is_clear(expected(collection, index, row)[1]).mean() for row in range(len(index))]
    np.testing.assert_allclose(share, expected_share, atol=1e-6)
    # what whole chunks cannot say: some chips of half-clear chunks show nothing at all
    assert (share[index.clear > 0.5] == 0).any() == (size < 200)


def test_each_chunk_is_fetched_once_a_batch(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    get = StoredArray.get

    async def counted(self: StoredArray, key: str) -> bytes | None:
        fetched.append(key)
        return await get(self, key)

    index = build_index(collection, 32, min_clear=0.0, steps=[0])
    monkeypatch.setattr(StoredArray, "get", counted)
    one_chunk = np.flatnonzero((index.tile == 0) & (index.row < 256) & (index.col >= 256))
    ChipReader(collection).read(index, one_chunk)
    assert len(one_chunk) == 64
    assert sorted(key.split("/c/")[1] for key in fetched) == ["0/0/0/1", "0/0/1"]


def test_an_epoch_from_the_cache_asks_the_store_for_nothing(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build_index(collection, 256, min_clear=0.0)
    first = ChipReader(collection, ChunkCache(tmp_path)).read(index, np.arange(len(index)))

    async def gone(self: StoredArray, key: str) -> bytes | None:
        raise AssertionError(key)

    monkeypatch.setattr(StoredArray, "get", gone)
    second = ChipReader(collection, ChunkCache(tmp_path)).read(index, np.arange(len(index)))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.quality, second.quality)


def test_a_damaged_copy_in_the_cache_is_fetched_again_and_mended(collection: Collection, tmp_path: Path) -> None:
    index = build_index(collection, 256, min_clear=0.0)
    rows = np.arange(4)
    reader = ChipReader(collection, ChunkCache(tmp_path))
    first = reader.read(index, rows).image.copy()
    sound = {file: file.read_bytes() for file in tmp_path.glob("??/*")}
    assert len(sound) == 8
    for file, data in sound.items():
        file.write_bytes(data[:-10])
    np.testing.assert_array_equal(reader.read(index, rows).image, first)
    assert {file: file.read_bytes() for file in tmp_path.glob("??/*")} == sound


def copy_of(tiny_cube: Cube, tmp_path: Path) -> Path:
    folder = tmp_path / "cube"
    shutil.copytree(tiny_cube.uri, folder)
    return folder


def damaged(tiny_cube: Cube, tmp_path: Path, chunks: int) -> Collection:
    """A copy of the cube with a flipped bit in each of its largest chunks: images."""
    folder = copy_of(tiny_cube, tmp_path)
    for path in sorted((folder / "chunks").rglob("*"), key=lambda path: path.stat().st_size)[-chunks:]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return Cube.open(str(folder)).view().collection("sentinel-2-l2a")


def test_a_damaged_chunk_is_an_error_that_names_it(tiny_cube: Cube, tmp_path: Path) -> None:
    collection = damaged(tiny_cube, tmp_path, 1)
    index = build_index(collection, 256, min_clear=0.0)
    with pytest.raises(StoreError, match=r"chunk sentinel-2-l2a/x9\dy-500/image/c/\d/0/\d/\d is damaged"):
        ChipReader(collection).read(index, np.arange(len(index)))


def test_a_missing_chunk_is_an_error_that_names_it(tiny_cube: Cube, tmp_path: Path) -> None:
    folder = copy_of(tiny_cube, tmp_path)
    max((folder / "chunks").rglob("*"), key=lambda path: path.stat().st_size).unlink()
    collection = Cube.open(str(folder)).view().collection("sentinel-2-l2a")
    index = build_index(collection, 256, min_clear=0.0)
    with pytest.raises(StoreError, match=r"chunk sentinel-2-l2a/x9\dy-500/image/c/\d/0/\d/\d cannot be read"):
        ChipReader(collection).read(index, np.arange(len(index)))


@pytest.mark.parametrize("size", [256, 400])
def test_a_few_damaged_chunks_are_reported_once_and_show_nothing(
    tiny_cube: Cube, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    sound = tiny_cube.view().collection("sentinel-2-l2a")
    collection = damaged(tiny_cube, tmp_path, 2)
    index = build_index(collection, size, min_clear=0.0)
    reader = ChipReader(collection, ChunkCache(tmp_path / "cache"), bad_chunks=2)
    for _ in range(2):  # the cache keeps nothing of a damaged chunk
        read = reader.read(index, np.arange(len(index)))
    addresses = [
        re.search(r"chunk (sentinel-2-l2a/\S+/image/c/\d/0/\d/\d) is damaged", text) for text in caplog.messages
    ]
    assert len({match[1] for match in addresses if match}) == len(caplog.messages) == 2
    hidden = np.zeros(len(index))
    for row in range(len(index)):
        image, quality = expected(sound, index, row)
        same = (read.image[row] == image).all(axis=0) & (read.quality[row] == quality)
        hidden[row] = (~same).sum()
        assert (read.image[row][:, ~same] == -32768).all()
        assert (read.quality[row][~same] == 1).all()
    # a chip of 400 px at the tile's corner has 144 px of the next chunk
    assert set(hidden) <= ({0, 256**2} if size == 256 else {0, *(a * b for a in (256, 144) for b in (256, 144))})
    assert hidden.any()


def test_one_damaged_chunk_too_many_stops_reading(tiny_cube: Cube, tmp_path: Path) -> None:
    collection = damaged(tiny_cube, tmp_path, 3)
    index = build_index(collection, 256, min_clear=0.0)
    with pytest.raises(StoreError, match=r"is damaged.* \(the 2 before it were passed over\)"):
        ChipReader(collection, bad_chunks=2).read(index, np.arange(len(index)))


def test_other_codecs_are_refused() -> None:
    array = zarr.create_array({}, name="image", shape=(4, 4), chunks=(2, 2), dtype="i2")
    with pytest.raises(StoreError, match="stored with codecs BytesCodec, ZstdCodec"):
        StoredArray.of(array)
