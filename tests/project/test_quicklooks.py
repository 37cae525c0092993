"""A small picture of each scene, written when it comes in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
from PIL import Image

from geossl import bands
from geossl.cube.overview import Overview, Thin, assemble, thinning
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.scene import Scene
from geossl.project.quicklooks import quicklook_file, write_quicklook
from geossl.report.pictures import NOTHING, OVERLAYS

GRID = Grid("EPSG:32622", 10, 256)


def scene(scene_id: str) -> Scene:
    return Scene(scene_id, "s", dt.datetime(2024, 1, 1, tzinfo=dt.UTC), {}, None, {})


def test_ids_become_safe_and_different_names(tmp_path: Path) -> None:
    ids = ["S2A_T32", "../../etc/passwd", "a/b", "a_b", "..", "x" * 400, "x" * 401, "é\0"]
    files = [quicklook_file(tmp_path, one) for one in ids]
    assert files[0].name == "S2A_T32.png"
    assert len(set(files)) == len(ids)
    assert all(file.parent == tmp_path and len(file.name.encode()) < 256 for file in files)
    for one, file in zip(ids, files, strict=True):
        quality = np.zeros((4, 4), np.uint8)
        write_quicklook(tmp_path, scene(one), Overview(np.ones((3, 4, 4), np.int16), quality, (0, 0), 1))
        assert file.is_file()


def test_the_picture_stretches_clear_ground_and_outlines_clouds(tmp_path: Path) -> None:
    image = np.tile(np.linspace(500, 1500, 40).astype(np.int16), (3, 40, 1))
    quality = np.zeros((40, 40), np.uint8)
    image[:, 10:20, 10:20], quality[10:20, 10:20] = 9000, Quality.CLOUD
    quality[:, :3] = Quality.NODATA
    write_quicklook(tmp_path, scene("one"), Overview(image, quality, (0, 0), 1))
    with Image.open(tmp_path / "one.png") as file:
        picture = np.asarray(file)
    assert (picture[:, :3] == NOTHING).all()
    assert (picture[10, 10:20] == OVERLAYS[0]).all()
    assert (picture[12, 12] == 255).all()
    ground = picture[30, 3:, 0].astype(int)
    assert (np.diff(ground) >= 0).all()
    assert ground[0] < 60
    assert ground[-1] > 240


def test_a_scene_without_a_clear_pixel_has_a_picture(tmp_path: Path) -> None:
    for flag in (Quality.CLOUD, Quality.NODATA):
        quality = np.full((4, 4), flag, np.uint8)
        write_quicklook(tmp_path, scene("dark"), Overview(np.ones((3, 4, 4), np.int16), quality, (0, 0), 1))
        with Image.open(tmp_path / "dark.png") as picture:
            assert picture.size == (4, 4)


def test_tiles_are_put_side_by_side_and_cropped_to_what_was_seen() -> None:
    sensor = bands.sensor("sentinel-2-l2a")
    tiles = [GRID[5, 7], GRID[6, 7], GRID[5, 8]]
    every = thinning(tiles, 128)
    assert every == 4
    whole = np.arange(512 * 512, dtype=np.int32).reshape(512, 512).astype(np.int16)
    parts = {}
    for tile in tiles:
        rows, columns = (slice(256 * i, 256 * i + 256, every) for i in (tile.iy - 7, tile.ix - 5))
        quality = np.zeros((64, 64), np.uint8)
        if tile.ix == 5:
            quality[:, :10] = Quality.NODATA
        parts[tile] = Thin(np.stack([whole[rows, columns]] * 3), quality)
    view = assemble(parts, sensor, every)
    assert view.origin == (7 * 256, 5 * 256 + 10 * every)
    assert view.image.shape == (3, 128, 118)
    np.testing.assert_array_equal(view.image[0, :64], whole[:256:every, 40::every])
    assert (view.quality[64:, 54:] == Quality.NODATA).all()
    assert (view.image[:, 64:, 54:] == sensor.radiometry.nodata).all()
