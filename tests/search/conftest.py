"""Embeddings whose right answers are known, and those of a small cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.grid import Grid
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.search.places import Lattice
from geossl.search.table import About, Embeddings, Rows

DIM = 24
LATTICE = Lattice(Grid("EPSG:32622", 10, 512), 64)
SCENES = {f"scene-{month}": np.datetime64(f"2024-{month:02}-10T13:40:00") for month in (1, 4, 7, 10)}
TILES = ("x97y-500", "x98y-500")


def rows(scene: str, seed: int = 0) -> Rows:
    """All chips of both tiles: directions that change slowly over the ground, and a little from date to date."""
    row, col = (axis.ravel() for axis in np.meshgrid(np.arange(0, 512, 64), np.arange(0, 512, 64), indexing="ij"))
    ground = np.random.default_rng(7)
    wave = ground.normal(size=(2, DIM))
    rng = np.random.default_rng([seed, int(scene.split("-")[1])])
    tile = np.repeat(TILES, row.size)
    row, col = np.tile(row, 2), np.tile(col, 2)
    x = (col + 512.0 * (tile == TILES[1])) / 300
    vectors = 5 + np.sin(np.stack([x, row / 300], axis=1) @ wave) + 0.15 * rng.normal(size=(row.size, DIM))
    clear = rng.uniform(0.8, 1, row.size).astype(np.float32)
    time = np.full(row.size, SCENES[scene], "datetime64[ns]")
    return Rows(tile.tolist(), row, col, clear, time, vectors.astype(np.float32))


def write(folder: Path) -> Embeddings:
    into = Embeddings.create(folder, About("simclr-toy-00000000", "sentinel-2-l2a", LATTICE, DIM))
    for scene in SCENES:
        into.write(scene, "first", "SNAPSHOT1", {"method": "simclr"}, [rows(scene)])
    into.settle()
    return into


@pytest.fixture
def made(tmp_path: Path) -> Embeddings:
    """512 chips of 64 pixels: two tiles, four scenes."""
    return write(tmp_path / "embeddings" / "toy")


@pytest.fixture(scope="session")
def scenes(tiny_cube: Cube) -> Collection:
    return tiny_cube.view().collection("sentinel-2-l2a")


@pytest.fixture(scope="session")
def encoder(scenes: Collection) -> tuple[Encoder, Card]:
    """An untrained encoder for the small cube."""
    torch.manual_seed(0)
    architecture = EncoderSettings(name="unet-tiny")
    assert scenes.statistics is not None
    card = Card(architecture, scenes.sensor, scenes.statistics, "simclr", {"chip": 64}, id="simclr-unet-tiny-0")
    return build_encoder(architecture, scenes.sensor.bands).eval(), card
