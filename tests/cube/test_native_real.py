"""Bands of real products at their native resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geossl import bands
from geossl.cube.check import check
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.grid import Grid
from geossl.imagery.folder import FolderSettings
from geossl.imagery.resample import TOLERANCE
from geossl.imagery.scene import Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import scene_geobox


@pytest.mark.parametrize(("city", "crs", "resolution"), [("norcia", "EPSG:32633", 7), ("hongkong", "EPSG:32650", 10)])
def test_real_bands_of_three_resolutions(
    shared_data: Path, tmp_path: Path, city: str, crs: str, resolution: float
) -> None:
    """Sentinel-2 L1C in degrees: each group warped once onto its own pixels, as GDAL alone does it."""
    sensor = bands.sensor("sentinel-2-l1c")
    settings = FolderSettings(path=f"oscd/images/{city}", pattern="imgs_2/{scene}_{date:%Y%m%dT%H%M%S}_{band}.tif")  # type: ignore[call-arg]
    (scene,) = open_source(settings, shared_data).scenes(sensor)
    assert isinstance(scene, Scene)
    grid = Grid(crs, resolution, 256, bands="native")
    tile = next(grid.tiles(scene_geobox(scene).extent.centroid))
    cube = Cube.create(str(tmp_path / "cube"))
    ingest(cube, [scene], sensor, grid, "s2", IngestSettings(), area=tile.extent.buffer(-100))
    collection = cube.view().collection("s2")
    assert [group.name("image") for group in collection.groups] == ["image", f"image_{2 * resolution}m"]
    for group, array in collection.image(tile.id).parts:
        place = tile.coarser(group.factor)
        for position, band in enumerate(group.of(sensor).bands):
            with rasterio.open(scene.bands[band.name].href) as file:
                values = np.zeros(place.shape, file.dtypes[0])
                reproject(file.read(1), values, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
                          dst_transform=place.transform, dst_crs=grid.crs, dst_nodata=0,
                          resampling=Resampling.bilinear, tolerance=TOLERANCE, XSCALE=1, YSCALE=1)  # fmt: skip
            ours = np.asarray(array[0, position])
            seen = values > 0
            np.testing.assert_array_equal(ours != -32768, seen)
            assert seen.mean() > 0.3
            apart = np.abs(ours[seen].astype(int) - values[seen])
            # what lies just between two integers is decided by the last bit of a coordinate
            assert apart.max() <= 1
            assert (apart > 0).mean() < 0.01
    assert check(cube).damage == []


def test_a_product_at_60_m_has_one_group(shared_data: Path, tmp_path: Path) -> None:
    sensor = bands.sensor("sentinel-2-l2a").subset(["B02", "B05", "B09"])
    (scene,) = open_source(FolderSettings(path="s2-safe-t29unu"), shared_data).scenes(sensor)  # type: ignore[call-arg]
    assert isinstance(scene, Scene)
    box = scene_geobox(scene)
    grid = Grid(str(box.crs), 60, 256, (box.affine.c, box.affine.f), bands="native")
    cube = Cube.create(str(tmp_path / "cube"))
    ingest(cube, [scene], sensor, grid, "s2", IngestSettings(), area=grid[1, 1].extent.buffer(-100))
    (group, array), *others = cube.view().collection("s2").image("x1y1").parts
    assert (group.bands, others) == ((0, 1, 2), [])
    with rasterio.open(scene.bands["B05"].href) as file:
        raw = file.read(1)[256:512, 256:512].astype(int)
    np.testing.assert_array_equal(np.asarray(array[0, 1])[raw > 0], raw[raw > 0] - 1000)
