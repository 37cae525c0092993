"""Small rasters and scenes, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geossl.bands import Band, Radiometry, Sensor
from geossl.imagery import raster, retry, web
from geossl.imagery.scene import Asset, Scene

from .remote import NUMBERS, TILE

CRS = "EPSG:32622"
SQUARE = {"type": "Polygon", "coordinates": [[[-51.0, 0.0], [-50.0, 0.0], [-50.0, 1.0], [-51.0, 0.0]]]}

Write = Callable[..., str]
MakeSensor = Callable[..., Sensor]
MakeScene = Callable[..., Scene]


@pytest.fixture(scope="session")
def write() -> Write:
    """Write a GeoTIFF (or what ``driver`` says) of (H, W) or (C, H, W) numbers; returns its path."""

    def write(path: Path, array: NDArray[Any], **profile: Any) -> str:
        bands = array.reshape(-1, *array.shape[-2:])
        profile = {"driver": "GTiff", "crs": CRS, "transform": from_origin(0, 20_000, 10, 10)} | profile
        count, height, width = bands.shape
        descriptions = profile.pop("descriptions", None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", count=count, height=height, width=width, dtype=array.dtype, **profile) as file:
            file.write(bands)
            if descriptions:
                file.descriptions = descriptions
        return str(path)

    return write


@pytest.fixture(scope="session")
def make_sensor() -> MakeSensor:
    """A sensor with bands of these names, int16 reflectance × 10,000 unless told otherwise."""

    def make(*names: str, **radiometry: Any) -> Sensor:
        numbers: dict[str, Any] = {
            "dtype": "int16",
            "scale": 1e-4,
            "nodata": -32768,
            "unit": "reflectance",
        } | radiometry
        return Sensor("toy", tuple(Band(name, None, 10.0) for name in names or ("B1",)), Radiometry(**numbers))

    return make


@pytest.fixture(scope="session")
def make_scene() -> MakeScene:
    """A scene of sensor ``toy`` whose bands B1, B2, … are these files."""

    def make(*files: str | Asset, **more: Any) -> Scene:
        assets = [file if isinstance(file, Asset) else Asset(file) for file in files]
        bands = {f"B{i}": asset for i, asset in enumerate(assets, start=1)}
        said: dict[str, Any] = {"time": datetime(2020, 5, 6, tzinfo=UTC), "footprint": SQUARE, "crs": CRS} | more
        return Scene(**({"id": "s", "sensor": "toy", "bands": bands} | said))

    return make


@pytest.fixture
def noise() -> NDArray[np.uint16]:
    """(2, 300, 280) numbers 1 … 9,999, smooth enough to resample."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(1, 9_999, (2, 30, 28)).astype(np.uint16)
    return coarse.repeat(10, axis=1).repeat(10, axis=2) + rng.integers(0, 500, (2, 300, 280)).astype(np.uint16)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a second instead of a minute."""
    monkeypatch.setattr(retry, "PAUSE", 0.01)
    monkeypatch.setattr(web, "PAUSE", 0.01)
    monkeypatch.setattr(web, "TIMEOUT", 1)
    for option, value in {
        "GDAL_HTTP_RETRY_DELAY": "0.01",
        "GDAL_HTTP_LOW_SPEED_TIME": "1",
        "GDAL_HTTP_CONNECTTIMEOUT": "1",
    }.items():
        monkeypatch.setitem(raster.GDAL_OPTIONS, option, value)


@pytest.fixture
def files(tmp_path: Path, write: Write) -> Path:
    """``x_B1.tif``, ``x_B2.tif`` (deflated, tiled) and ``plain.tif`` (not compressed), two tiles high."""
    folder = tmp_path / "files"
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128, "nodata": -32768, "transform": TILE.transform}
    for index in (0, 1):
        write(folder / f"x_B{index + 1}.tif", NUMBERS[index], compress="deflate", **tiled)
    write(folder / "plain.tif", NUMBERS[0], **tiled)
    return folder
