"""What reading across tiles asks of the store, and what it keeps."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geossl.grid import CHUNK, Grid
from geossl.maps import canvas
from geossl.maps.canvas import Canvas

from .conftest import FakeCollection

SIDE = 4 * CHUNK


class Stored:
    """An array that is read into new memory, as a store's is."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.asked = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        self.asked += 1
        return self.pixels[key].copy()


@pytest.fixture
def stored() -> FakeCollection:
    """One tile of 4 × 4 chunks."""
    grid = Grid("EPSG:32722", 10, SIDE, (500_000, 9_500_000))
    pixels = np.arange(2 * SIDE * SIDE).astype(np.int16).reshape(1, 2, SIDE, SIDE)
    flags = np.zeros((1, SIDE, SIDE), np.uint8)
    return FakeCollection(grid, {grid[0, 0].id: Stored(pixels)}, {grid[0, 0].id: Stored(flags)})


def test_a_row_of_chunks_is_one_request_and_comes_once(stored):
    reader = Canvas(stored, {"x0y0": (0,)}, 1)
    image, flags = stored.images["x0y0"], stored.flags["x0y0"]
    for top in (10, 100, 150):  # three strips over the same two rows of chunks
        got, valid = reader.read(range(top, top + 200), range(30, SIDE - 30))
        np.testing.assert_array_equal(got[0], image.pixels[0, :, top : top + 200, 30:-30])
        assert valid.all()
    assert (image.asked, flags.asked) == (2, 2)


def test_a_strip_asks_for_all_its_chunks_at_the_same_time(stored, monkeypatch):
    together = threading.Barrier(4)  # pixels and quality of two rows of chunks
    read = Stored.__getitem__

    def slow(self: Stored, key: Any) -> NDArray[Any]:
        together.wait(10)
        return read(self, key)

    monkeypatch.setattr(Stored, "__getitem__", slow)
    got, _ = Canvas(stored, {"x0y0": (0,)}, 1).read(range(200, 400), range(SIDE))
    np.testing.assert_array_equal(got[0], stored.images["x0y0"].pixels[0, :, 200:400])


def test_two_dates_may_be_one_step(stored):
    got, _ = Canvas(stored, {"x0y0": (0, 0)}, 2).read(range(10), range(SIDE))
    np.testing.assert_array_equal(got[0], got[1])
    assert stored.images["x0y0"].asked == 1


def test_a_chunk_that_is_kept_does_not_hold_the_row_it_came_with(stored, monkeypatch):
    """A tile's right neighbour uses its last column again and again, so that the rest of each row goes first."""
    each = 2 * CHUNK * CHUNK * 2 + CHUNK * CHUNK
    monkeypatch.setattr(canvas, "KEEP_BYTES", 6 * each)
    reader = Canvas(stored, {"x0y0": (0,)}, 1)
    tracemalloc.start()
    try:
        for y in range(0, SIDE, CHUNK):
            reader.read(range(y, y + 1), range(SIDE))
            for above in range(0, y + 1, CHUNK):
                reader.read(range(above, above + 1), range(SIDE - 1, SIDE))
        assert tracemalloc.get_traced_memory()[0] < 7 * each
    finally:
        tracemalloc.stop()
