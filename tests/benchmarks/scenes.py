"""The scenes of the ingest benchmarks: 3.2 GB of pixels as providers publish them, made from a real scene.

Landsat 8's bands over Zion (where `../shared/data` has them; a generated landscape otherwise) are mirrored
to 4096 × 4096 pixels and twelve bands, each a COG of its own: tiled, deflated, with overviews. Scenes come
twice: on the grid, and in the neighbouring UTM zone, to be warped onto it.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from geossl.bands import Band, Radiometry, Sensor
from geossl.grid import Grid
from geossl.imagery.scene import Scene

from .pixels import landscape

BANDS = 12
TILES = 4
"""Tiles each way."""
SIDE = 1024 * TILES
SENSOR = Sensor(
    "benchmark", tuple(Band(f"B{n:02}", 0.4 + 0.1 * n, 30) for n in range(BANDS)), Radiometry("uint16", 1e-4, 0, 0)
)
GRID = Grid("EPSG:32612", 30, 1024, (300000.0, 4200000.0))
GROUND = GeoBox((SIDE, SIDE), GRID[0, 0].transform, GRID.crs)
"""What every scene covers, and what every side is asked for."""

_ZION = Path(__file__).parents[3] / "shared" / "data" / "zion-landsat8-nlcd"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


@dataclass(frozen=True)
class SceneSet:
    """Scenes as STAC Items, and what reading them yields."""

    items: list[pystac.Item]

    @property
    def megapixels(self) -> float:
        """Million pixels of one band, all bands and scenes added up."""
        return len(self.items) * BANDS * SIDE * SIDE / 1e6

    def scenes(self) -> list[Scene]:
        return [Scene.from_item(item, SENSOR) for item in self.items]


@functools.cache
def aligned(count: int = 8) -> SceneSet:
    """Scenes that lie on the grid."""
    return _write("aligned", GROUND, count)


@functools.cache
def to_be_warped(count: int = 2) -> SceneSet:
    """Scenes of the neighbouring UTM zone, a little larger than the ground."""
    x, y = Geometry(shapely.Point(*GROUND.extent.centroid.coords[0]), GRID.crs).to_crs("EPSG:32611").coords[0]
    half = 30 * (SIDE + 512) / 2
    corner = Affine(30, 0, round(x - half), 0, -30, round(y + half))
    return _write("warped", GeoBox((SIDE + 512, SIDE + 512), corner, "EPSG:32611"), count)


@functools.cache
def _folder() -> Path:
    Path("out/bench").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scenes-", dir="out/bench")).absolute()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _write(kind: str, box: GeoBox, count: int) -> SceneSet:
    """Two scenes of different pixels, and copies of them: different files, so that none is read for another."""
    folder = _folder()
    for number in range(min(count, 2)):
        for band in range(BANDS):
            _write_cog(folder / f"{kind}-{number}-{band:02}.tif", pixels(band, number, box.shape[0]), box)
    for number in range(2, count):
        for band in range(BANDS):
            shutil.copyfile(folder / f"{kind}-{number % 2}-{band:02}.tif", folder / f"{kind}-{number}-{band:02}.tif")
    return SceneSet([_item(folder, kind, number, box) for number in range(count)])


def pixels(band: int, number: int, side: int) -> NDArray[np.uint16]:
    """One band: a real one, moved by the scene's number, turned by the band's, mirrored until it is large enough."""
    bands = _real_bands()
    source = bands[band % len(bands)][:: (-1) ** (band // 4), :: (-1) ** (band // 8)]
    source = np.roll(source, (97 * number, 53 * number), (0, 1))
    room = [(0, max(0, side - length)) for length in source.shape]
    return np.pad(source, room, mode="symmetric")[:side, :side]


@functools.cache
def _real_bands() -> list[NDArray[np.uint16]]:
    if not _ZION.is_dir():
        return list(landscape(1024)[:4].astype(np.uint16))
    bands = []
    for number in (2, 3, 4, 5):
        with rasterio.open(_ZION / f"landsat_b{number}.tif") as file:
            bands.append(file.read(1))
    return bands


def _write_cog(path: Path, pixels: NDArray[np.uint16], box: GeoBox) -> None:
    profile: dict[str, Any] = {
        "driver": "COG",
        "dtype": pixels.dtype,
        "count": 1,
        "height": box.shape[0],
        "width": box.shape[1],
        "crs": str(box.crs),
        "transform": box.affine,
        "nodata": SENSOR.radiometry.nodata,
        "compress": "deflate",
        "predictor": "yes",
        "num_threads": "all_cpus",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels, 1)


def _item(folder: Path, kind: str, number: int, box: GeoBox) -> pystac.Item:
    outline = box.geographic_extent.geom
    projection = {"proj:code": str(box.crs), "proj:shape": list(box.shape), "proj:transform": list(box.affine)[:6]}
    item = pystac.Item(
        f"{kind}-{number}",
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        datetime(2024, 6, 1, tzinfo=UTC) + timedelta(days=number),
        projection,
        stac_extensions=[_PROJECTION],
    )
    for index, band in enumerate(SENSOR.bands):
        path = folder / f"{kind}-{number}-{index:02}.tif"
        asset = pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"])
        item.add_asset(band.name, asset)
    return item
