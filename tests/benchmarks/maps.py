"""How fast a map is predicted beside nothing but the forward passes, and beside what others do; and in how much memory.

All sides: windows of 256 px that overlap by a quarter, batches of 8, 32-bit floats, the same network and threads,
12 bands, files in the page cache. Ours blends windows, and writes class and confidence of every tile with a record
of its sources; the seam error, which a model is asked for once, is not counted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import batched
from pathlib import Path

import torch

from geossl.cube.collection import Collection
from geossl.downstream.task import TrainedTask
from geossl.maps.blend import Lattice
from geossl.maps.predict import predict_map
from geossl.train.launch import memory_kept

from .harness import Sides, bench, rate
from .map_peers import by_terratorch, by_torchgeo
from .map_scene import BATCH, MARGIN, OVERLAP, SETTINGS, WINDOW, dense, pixelwise, write_cube, write_scene
from .scenes import BANDS, GRID

SIDE, LARGE = 4, 10
"""Tiles each way."""

UNIT = "million map pixels/s"
FORWARD = "the network alone on as many windows, in memory"
TORCHGEO = "torchgeo GridGeoSampler, crops written to a GeoTIFF, 2 worker processes"


@bench("map-vs-forward", unit=UNIT, reference=FORWARD, better="higher", goal=0.85, rounds=3)
def map_vs_forward(folder: Path) -> Iterator[Sides]:
    """ResNet-18 and a light decoder."""
    with memory_kept():  # as `geossl map` does
        yield beside_forward(folder, dense("resnet18"))


@bench("map-vs-forward-vit", unit=UNIT, reference=FORWARD, better="higher", rounds=3)
def map_vs_forward_vit(folder: Path) -> Iterator[Sides]:
    """ViT-S with patches of 16 px and the same decoder."""
    with memory_kept():  # as `geossl map` does
        yield beside_forward(folder, dense("vit-small"))


@bench("map-vs-torchgeo", unit=UNIT, reference=TORCHGEO, better="higher", goal=1.0, rounds=1)
def map_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """A hundred million pixels and a ResNet-18: the network is most of the work."""
    with memory_kept():
        yield beside_torchgeo(folder, dense("resnet18"), LARGE)


@bench("map-vs-torchgeo-small", unit=UNIT, reference=TORCHGEO, better="higher", goal=1.0, rounds=3)
def map_vs_torchgeo_small(folder: Path) -> Iterator[Sides]:
    """Seventeen million pixels, where our one window more along each axis counts most."""
    with memory_kept():
        yield beside_torchgeo(folder, dense("resnet18"), SIDE)


@bench("map-vs-torchgeo-loading", unit=UNIT, reference=TORCHGEO, better="higher", goal=1.3, rounds=3)
def map_vs_torchgeo_loading(folder: Path) -> Iterator[Sides]:
    """A hundred million pixels and a linear model of the pixel: loading is most of the peer's work."""
    with memory_kept():
        yield beside_torchgeo(folder, pixelwise(), LARGE)


@bench(
    "map-vs-terratorch",
    unit=UNIT,
    reference="terratorch tiled_inference of the scene in memory, read and written by rasterio",
    better="higher",
    goal=1.0,
    rounds=3,
)
def map_vs_terratorch(folder: Path) -> Iterator[Sides]:
    """ResNet-18, blended on either side."""
    task = dense("resnet18")
    scene = write_scene(folder / "scene.tif", SIDE)
    theirs = by_terratorch(scene, task, folder / "theirs.tif")
    with memory_kept():
        yield Sides(ours(folder, write_cube(folder / "cube", SIDE), task), lambda: rate(megapixels(SIDE), theirs))


@bench(
    "map-memory-growth",
    unit="MB at the peak",
    reference="the map of a quarter of the area",
    better="alike",
    goal=(0.9, 1.1),
    rounds=3,
)
def map_memory_growth(folder: Path) -> Iterator[Sides]:
    """A hundred million pixels, and a linear model of the pixel, whose own memory hides least; each map in a process of
    its own."""
    write_cube(folder / "cube", LARGE)
    yield Sides(lambda: peak(folder, LARGE), lambda: peak(folder, LARGE // 2))


@bench(
    "map-memory-growth-net",
    unit="MB at the peak, imports taken off",
    reference="the map of a quarter of the area",
    better="alike",
    rounds=3,
)
def map_memory_growth_net(folder: Path) -> Iterator[Sides]:
    """The same without what a process holds once everything is imported, which is more than half of it."""
    write_cube(folder / "cube", LARGE)
    yield Sides(lambda: peak(folder, LARGE, net=True), lambda: peak(folder, LARGE // 2, net=True))


def beside_forward(folder: Path, task: TrainedTask, tiles: int = 1) -> Sides:
    """Both sides run the network on the same number of windows."""
    windows = len(Lattice(WINDOW, MARGIN, OVERLAP).cells(range(tiles * GRID.tile_size))) ** 2
    task.network.to(memory_format=torch.channels_last)
    image = torch.randn(BATCH, 1, BANDS, WINDOW, WINDOW)
    valid = torch.ones(BATCH, 1, WINDOW, WINDOW, dtype=torch.bool)

    def forward() -> None:
        with torch.inference_mode():
            for part in batched(range(windows), BATCH):
                task.network(image[: len(part)], valid[: len(part)])

    collection = write_cube(folder / "cube", 2)
    return Sides(ours(folder, collection, task, tiles), lambda: rate(megapixels(tiles), forward))


def beside_torchgeo(folder: Path, task: TrainedTask, tiles: int) -> Sides:
    scene = write_scene(folder / "scene.tif", tiles)
    theirs = by_torchgeo(scene, task, folder / "theirs.tif")
    collection = write_cube(folder / "cube", tiles)
    return Sides(ours(folder, collection, task, tiles), lambda: rate(megapixels(tiles), theirs))


def megapixels(tiles: int) -> float:
    return (tiles * GRID.tile_size) ** 2 / 1e6


def ours(folder: Path, collection: Collection, task: TrainedTask, tiles: int = SIDE) -> Callable[[], float]:
    """A round of ours, from nothing but the note of the seam error."""
    steps = dict.fromkeys(collection.tile_ids, (0,))
    wanted = [GRID[x, y].id for y in range(tiles) for x in range(tiles)]
    out = folder / "tiles"

    def predict() -> None:
        report = predict_map(task, collection, {name: steps[name] for name in wanted}, out, settings=SETTINGS)
        assert len(report.computed) == tiles**2

    def measure() -> float:
        for path in out.glob("x*"):
            path.unlink()
        return rate(megapixels(tiles), predict)

    return measure


def peak(folder: Path, tiles: int, *, net: bool = False) -> float:
    """MB that a process holds at most, or how much more that is than when everything was imported."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.map_process", "pixelwise", str(tiles)]
    said = subprocess.run([*command, str(folder / "cube"), str(folder / "out")], check=True, stdout=subprocess.PIPE)
    return float(said.stdout.split()[-2 if net else -1])
