"""Decoded blocks that neighbouring tiles share: kept where that is worth their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery import blocks
from geossl.imagery.blocks import cache_size
from geossl.imagery.scene import Asset, Scene
from geossl.imagery.warp import Files, read_tile

from .conftest import MakeScene, MakeSensor, Write

GRID = Grid("EPSG:32622", 10, 512)
COUNT, BLOCK = 6, 256
BYTES = 2 * BLOCK**2
MB = 2**20


@pytest.fixture(scope="module")
def numbers() -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 99, (COUNT, 1024, 1536)).astype(np.int16)


@pytest.fixture(scope="module")
def sensor(make_sensor: MakeSensor) -> Sensor:
    return make_sensor(*(f"B{number}" for number in range(1, COUNT + 1)))


@pytest.fixture
def scene_at(tmp_path: Path, write: Write, make_scene: MakeScene, numbers: NDArray[np.int16]) -> Any:
    """A scene whose north-western corner lies so many pixels to the north-west of tile (0, 0)'s."""

    def make(shift: float, *, stacked: bool = False) -> Scene:
        profile = {
            "transform": from_origin(-10 * shift, 10 * shift, 10, 10),
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "compress": "deflate",
        }
        if stacked:
            path = write(tmp_path / "stack.tif", numbers, interleave="pixel", **profile)
            return make_scene(*(Asset(path, index) for index in range(1, COUNT + 1)))
        return make_scene(*(write(tmp_path / f"{at}.tif", band, **profile) for at, band in enumerate(numbers)))

    return make


@pytest.mark.parametrize(
    ("shift", "stacked", "kept"),
    [
        pytest.param(BLOCK, False, 0, id="tiles end where blocks end"),
        pytest.param(100, False, COUNT * 3 * 3, id="blocks reach from tile to tile"),
        pytest.param(BLOCK + 0.5, False, COUNT * 4 * 4, id="a kernel reaches from tile to tile"),
        pytest.param(BLOCK, True, COUNT * 2 * 2, id="a block holds all bands"),
        pytest.param(-5000, False, 0, id="elsewhere"),
    ],
)
def test_there_is_room_for_a_tiles_blocks_where_some_are_needed_again(
    scene_at: Any, sensor: Sensor, monkeypatch: pytest.MonkeyPatch, shift: float, stacked: bool, kept: int
) -> None:
    monkeypatch.setattr(blocks, "LEAST", BYTES)

    def size() -> int:
        with Files() as files:
            read_tile(scene_at(shift, stacked=stacked), sensor, GRID[0, 0], files=files)
            return cache_size(list(files.bands.values()), GRID[0, 0], Resampling.bilinear)

    assert size() == (round(1.02 * kept * BYTES) or BYTES)
    monkeypatch.setattr(blocks, "MOST", kept * BYTES)  # a little too small, which is as good as nothing
    assert size() == (2 * COUNT * BYTES if stacked else BYTES)


def test_the_blocks_that_two_tiles_share_are_decoded_once(
    scene_at: Any, sensor: Sensor, numbers: NDArray[np.int16], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ruin them in the files between the two tiles: who decodes them again cannot go on."""
    monkeypatch.setitem(blocks.GDAL_OPTIONS, "GDAL_CACHEMAX", MB)
    monkeypatch.setattr(blocks, "LEAST", MB)

    def second_tile() -> NDArray[Any]:
        scene = scene_at(100)
        with Files() as files:
            assert read_tile(scene, sensor, GRID[0, 0], files=files)
            for band in scene.bands.values():
                ruin(band.href, column=(100 + 512) // BLOCK)
            pixels = read_tile(scene, sensor, GRID[1, 0], files=files)
            assert pixels
            return pixels.image

    np.testing.assert_array_equal(second_tile(), numbers[:, 100 : 100 + 512, 100 + 512 : 100 + 1024])
    monkeypatch.setattr(blocks, "MOST", MB)
    with pytest.raises(SceneError, match="cannot be read to its end"):
        second_tile()


def ruin(path: str, column: int) -> None:
    """Overwrite a column of a TIFF's blocks with what cannot be inflated."""
    with rasterio.open(path) as file:
        tags = [
            [int(file.get_tag_item(f"BLOCK_{key}_{column}_{row}", "TIFF", bidx=1)) for key in ("OFFSET", "SIZE")]
            for row in range(file.height // BLOCK)
        ]
    with Path(path).open("r+b") as bytes_:
        for offset, size in tags:
            bytes_.seek(offset)
            bytes_.write(b"\xff" * size)
