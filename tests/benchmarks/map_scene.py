"""The scene and the models of the map benchmarks: one real scene repeated over as many tiles as are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn

from geossl.bands import Statistics
from geossl.cube import layout
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.task import TaskCard, TrainedTask
from geossl.legend import LandClass, Legend
from geossl.maps.settings import MapSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

from .scenes import BANDS, GRID, SENSOR, TILES, pixels

WINDOW, MARGIN, OVERLAP = 256, 16, 32
"""Windows begin 192 px apart: they overlap by a quarter."""

BATCH = 8
SETTINGS = MapSettings(window=WINDOW, overlap=OVERLAP, batch=BATCH)
LEGEND = Legend(tuple(LandClass(n + 1, f"class {n + 1}", f"#{40 * n:02x}8040") for n in range(6)))
_SIZE = GRID.tile_size


def scene(tiles: int) -> NDArray[np.uint16]:
    """(12, side, side) of ``tiles`` tiles each way."""
    return np.stack([pixels(band, 0, tiles * _SIZE) for band in range(BANDS)])


def write_cube(folder: Path, tiles: int) -> Collection:
    """A cube with one clear scene of ``tiles`` × ``tiles`` tiles, repeated every :data:`~.scenes.TILES`."""
    image = scene(min(tiles, TILES))
    cube = Cube.create(str(folder))
    quality = np.zeros((_SIZE, _SIZE), np.uint8)
    step = layout.Step("scene", np.datetime64("2024-06-01"), "0", layout.chunk_fractions(quality == 0))

    def fill(session: Any) -> str:
        collection = layout.create_collection(zarr.open_group(session.store, mode="r+"), SENSOR.name, SENSOR, GRID)
        for y, x in np.ndindex(tiles, tiles):
            top, left = y % TILES * _SIZE, x % TILES * _SIZE
            window = image[:, top : top + _SIZE, left : left + _SIZE]
            layout.append_step(layout.create_tile(collection, GRID[x, y], SENSOR), step, window, quality)
        return "benchmark"

    cube.transact(fill)
    return cube.view().collection(SENSOR.name)


def write_scene(path: Path, tiles: int) -> Path:
    """The same pixels as one tiled, deflated GeoTIFF of all bands."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": BANDS,
        "height": tiles * _SIZE,
        "width": tiles * _SIZE,
        "crs": GRID.crs,
        "transform": GRID[0, 0].transform,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(scene(tiles))
    return path


class Pixelwise(nn.Module):
    """(B, 1, C, H, W) → logits (B, K, H, W), linear in the pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(BANDS, len(LEGEND), 1)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        return self.classify(image[:, 0])


def pixelwise() -> TrainedTask:
    """A model that takes next to no time."""
    torch.manual_seed(0)
    return _task(Pixelwise(), EncoderSettings())


def dense(encoder: str) -> TrainedTask:
    """A light decoder on an encoder of random weights, which are as fast as any."""
    torch.manual_seed(0)
    settings = EncoderSettings(name=encoder, patch=16)  # type: ignore[arg-type]  # one of its names
    return _task(LandcoverNetwork(build_encoder(settings, SENSOR.bands), len(LEGEND)), settings)


def _task(network: nn.Module, settings: EncoderSettings) -> TrainedTask:
    mean, std = (9000.0,) * BANDS, (3000.0,) * BANDS
    statistics = Statistics((1,) * BANDS, mean, std, mean, mean, mean, mean)
    card = TaskCard("landcover", LEGEND, SENSOR, statistics, settings, "dense", "encoder", "", {}, "", {}, None)
    task = TrainedTask.create(card, network)
    task.margin, task.window = MARGIN, WINDOW
    return task
