"""An in-memory collection and models whose right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from geossl.bands import Band, Radiometry, Sensor, Statistics
from geossl.grid import Grid, Tile
from geossl.legend import LandClass, Legend
from geossl.maps.blend import Lattice

SENSOR = Sensor("toy", (Band("red", 0.66, 10), Band("nir", 0.84, 10)), Radiometry("int16", nodata=-32768))
STATISTICS = Statistics(*[(1, 1)] * 7)
LEGEND = Legend(
    (LandClass(1, "water", "#2b83ba"), LandClass(2, "pasture", "#ffffbf"), LandClass(7, "forest", "#1a9641"))
)


@dataclass
class FakeCollection:
    """Tiles of one or more steps in memory."""

    grid: Grid
    images: dict[str, NDArray[np.int16]]
    """(T, C, H, W) by tile id."""
    flags: dict[str, NDArray[np.uint8]]
    sensor: Sensor = SENSOR
    name: str = "toy"
    kind: str = "scenes"
    snapshot: str = "SNAPSHOT1"
    revised: dict[str, int] = field(default_factory=dict)

    @property
    def tile_ids(self) -> list[str]:
        return list(self.images)

    def tile(self, tile_id: str) -> Tile:
        return self.grid.tile(tile_id)

    def times(self, tile_id: str) -> NDArray[np.datetime64]:
        return np.array([f"202{step}-03-01T10:00" for step in range(len(self.images[tile_id]))], "M8[ns]")

    def scene_ids(self, tile_id: str) -> Sequence[str]:
        return [f"scene-{step}" for step in range(len(self.images[tile_id]))]

    def revisions(self, tile_id: str) -> NDArray[np.int32]:
        return np.full(len(self.images[tile_id]), self.revised.get(tile_id, 0), np.int32)

    def checksums(self, tile_id: str) -> Sequence[str]:
        return [f"sum-{step}" for step in range(len(self.images[tile_id]))]

    def image(self, tile_id: str) -> NDArray[np.int16]:
        return self.images[tile_id]

    def quality(self, tile_id: str) -> NDArray[np.uint8]:
        return self.flags[tile_id]


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    """Windows as they may be."""
    window = draw(st.integers(20, 130))
    margin = draw(st.integers(0, (window - 12) // 2))
    return Lattice(window, margin, draw(st.integers(0, (window - 2 * margin) // 2)))


def one_step(collection: FakeCollection) -> dict[str, tuple[int, ...]]:
    """The first step of every tile."""
    return dict.fromkeys(collection.tile_ids, (0,))


@dataclass
class PointwiseTask:
    """Class probabilities from the pixel alone (and, with a radius, from the mean around it)."""

    radius: int = 0
    window: int = 64
    margin: int = 0
    dates: int = 1
    id: str = "pointwise-1"
    legend: Legend = LEGEND
    sensor: Sensor = SENSOR
    statistics: Statistics = STATISTICS
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        self.seen.append(image.shape)
        assert image.shape[1:-2] == ((2,) if self.dates == 1 else (2, 2))
        assert valid.shape == (image.shape[0], *image.shape[1:-3], *image.shape[-2:])
        values = image.astype(np.float32) / 1000
        red, nir = (values[:, 0], values[:, 1]) if self.dates == 1 else (values[:, 1, 0], values[:, 0, 0])
        if self.radius:
            size = (1, 2 * self.radius + 1, 2 * self.radius + 1)
            red, nir = (uniform_filter(np.where(valid, band, 0), size, mode="constant") for band in (red, nir))
        logits = np.stack([red - nir, nir - red, red * 0.5][: len(self.legend)], axis=1)
        exponent = np.exp(np.clip(logits, -50, 50))
        return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)


def make_collection(columns: int = 2, rows: int = 2, steps: int = 1, seed: int = 0) -> FakeCollection:
    """Tiles of 256 px around the grid's origin, so that indices of both signs occur; noise on smooth fields."""
    grid = Grid("EPSG:32722", 10, 256, (500_000, 9_500_000))
    rng = np.random.default_rng(seed)
    images, flags = {}, {}
    for iy in range(-1, rows - 1):
        for ix in range(-1, columns - 1):
            tile_id = grid[ix, iy].id
            noise = rng.normal(0, 1000, (steps, 2, 256, 256))
            images[tile_id] = (uniform_filter(noise, (0, 0, 25, 25)) * 20 + noise / 100).astype(np.int16)
            flags[tile_id] = np.zeros((steps, 256, 256), np.uint8)
    return FakeCollection(grid, images, flags)


@pytest.fixture
def collection() -> FakeCollection:
    """2 × 2 tiles, one step."""
    return make_collection()


@pytest.fixture(scope="session")
def new_collection() -> Callable[..., FakeCollection]:
    return make_collection


@pytest.fixture(scope="session")
def new_task() -> type[PointwiseTask]:
    return PointwiseTask
