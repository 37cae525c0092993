"""The chunk cache: bounded, shared, atomic."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geossl.chips.cache import ChunkCache, default_folder


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_what_is_put_is_got_by_any_process(tmp_path: Path) -> None:
    ChunkCache(tmp_path).put("a/b@1", b"pixels")
    assert ChunkCache(tmp_path).get("a/b@1") == b"pixels"
    assert ChunkCache(tmp_path).get("a/b@2") is None


def test_the_oldest_go_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, max_bytes=64_000)
    for n in range(200):
        cache.put(str(n), bytes(1000))
        os.utime(cache._path(str(n)), ns=(n, n))  # the clock of some file systems is coarse
        assert size(tmp_path) <= 64_000 + 64_000 // 32
    kept = [n for n in range(200) if cache.get(str(n)) is not None]
    assert kept == list(range(kept[0], 200))
    assert len(kept) >= 50


def test_several_writers_of_one_folder_keep_the_limit_together(tmp_path: Path) -> None:
    caches = [ChunkCache(tmp_path, max_bytes=100_000) for _ in range(4)]

    def write(writer: int) -> None:
        for n in range(150):
            caches[writer].put(f"{n % 100}", bytes([n % 100]) * 2000)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert size(tmp_path) <= 100_000 * (1 + 5 / 32)
    for n in range(100):
        assert caches[0].get(str(n)) in (None, bytes([n]) * 2000)


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ChunkCache(tmp_path / "file" / "cache")
    cache.put("key", b"pixels")
    assert cache.get("key") is None


def test_the_default_follows_the_xdg_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "geossl" / "chunks"
