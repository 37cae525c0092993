"""Files that cannot be read correctly, and what is said of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from pyproj import Proj
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.grid import Grid
from geossl.imagery.scene import Asset, Scene
from geossl.imagery.warp import check_scene, read_tile

from .conftest import MakeScene, MakeSensor, Write

GRID = Grid("EPSG:32622", 10, 256)
NODATA = -32768


def test_only_the_needed_window_is_read(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    """Of a file whose end is missing, tiles that lie in the part that is there can be read."""
    big = np.tile(noise[0], (4, 1))
    for place in (from_origin(0, 0, 10, 10), from_origin(4, 0, 10, 10)):
        path = Path(write(tmp_path / "a.tif", big, nodata=0, transform=place, blockysize=1, compress="deflate"))
        whole = read_tile(make_scene(str(path)), make_sensor(), GRID[0, 0])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        half = read_tile(make_scene(str(path)), make_sensor(), GRID[0, 0])
        assert whole is not None
        assert half is not None
        np.testing.assert_array_equal(half.image, whole.image)
        with pytest.raises(SceneError, match=r"scene s, band B1: .*a\.tif cannot be read to its end"):
            read_tile(make_scene(str(path)), make_sensor(), GRID[0, 3])
        with pytest.raises(SceneError, match=r"scene s, band B1: the end of .*a\.tif is missing"):
            check_scene(make_scene(str(path)), make_sensor())


@pytest.mark.parametrize("keep", [0.98, 0.6])
@pytest.mark.parametrize("place", [from_origin(0, 0, 10, 10), from_origin(4, 0, 10, 10)])
def test_a_truncated_jpeg_2000_is_an_error_and_not_garbage(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
    place: Any,
    keep: Any,
) -> None:
    lossless = {"driver": "JP2OpenJPEG", "reversible": "YES", "quality": "100", "blockxsize": 64, "blockysize": 64}
    path = Path(write(tmp_path / "a.jp2", noise[0, :256, :256], transform=place, **lossless))
    pixels = read_tile(make_scene(str(path)), make_sensor(), GRID[0, 0])
    assert pixels is not None
    if pixels.aligned:
        np.testing.assert_array_equal(pixels.image[0], noise[0, :256, :256])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(SceneError, match=r"scene s, band B1: .*a\.jp2 cannot be read to its end"):
        read_tile(make_scene(str(path)), make_sensor(), GRID[0, 0])


def test_what_check_scene_refuses(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    good = write(tmp_path / "good.tif", noise[0], nodata=0)
    two, one = make_sensor("B1", "B2"), make_sensor()
    check_scene(make_scene(good, good), two)

    def reason(scene: Scene, sensor: Sensor = two) -> str:
        with pytest.raises(SceneError) as caught:
            check_scene(scene, sensor)
        return caught.value.what.replace(str(tmp_path), "…")

    assert reason(make_scene(good)) == "scene s, band B2: there is no such band"
    assert reason(make_scene(good, "…/gone.tif")) == "scene s, band B2: …/gone.tif does not exist"
    assert reason(make_scene(good, Asset(good, 2))) == "scene s, band B2: …/good.tif has 1 band(s), not 2"
    zone = write(tmp_path / "zone.tif", noise[0], crs="EPSG:32623")
    assert "zone.tif has another coordinate system than scene s, band B1" in reason(make_scene(good, zone))
    moved = write(tmp_path / "moved.tif", noise[0], transform=from_origin(0, 20_050, 10, 10))
    assert "moved.tif covers another extent than scene s, band B1 (by 5.0 of its pixels)" in reason(
        make_scene(good, moved)
    )
    waves = write(tmp_path / "waves.tif", noise[0].astype(np.complex64))
    assert "waves.tif: the file holds complex numbers (complex64)" in reason(make_scene(waves), one)
    assert "no-data is said to be -1, which uint16 cannot hold" in reason(make_scene(good, source_nodata=-1), one)
    floating = write(tmp_path / "floating.tif", noise[0].astype(np.float32))
    masked = make_scene(good, masks={"scl": Asset(floating)})
    assert "floating.tif holds float32, a quality mask holds integers" in reason(masked, one)


def test_an_alpha_band_is_refused_unless_no_data_is_said(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    path = write(tmp_path / "a.tif", noise, alpha="yes", photometric="minisblack")
    sensor = make_sensor()
    with pytest.raises(SceneError, match="marks no-data by a mask or alpha band, which is not read"):
        check_scene(make_scene(path), sensor)
    check_scene(make_scene(path, source_nodata=0), sensor)


def test_a_moved_file_is_named_when_pixels_are_read(
    tmp_path: Path,
    write: Write,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    scene = make_scene(write(tmp_path / "a" / "a.tif", noise[0]))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(SceneError, match=r"scene s, band B1: .*a\.tif does not exist"):
        read_tile(scene, make_sensor(), GRID[0, -8])


def test_resampling_must_be_known(
    write: Write,
    tmp_path: Path,
    make_sensor: MakeSensor,
    make_scene: MakeScene,
    noise: NDArray[np.uint16],
) -> None:
    scene = make_scene(write(tmp_path / "a.tif", noise[0]))
    with pytest.raises(SettingsError, match="choose one of nearest, bilinear, cubic, average"):
        read_tile(scene, make_sensor(), GRID[0, 0], resampling="fancy")


@pytest.mark.parametrize(
    ("crs", "origin", "better"),
    [("EPSG:32622", (2_000_000, 6_000_000), "EPSG:32626"), ("EPSG:3857", (-5_700_000, 4_200_000), "EPSG:32622")],
)
def test_a_scene_where_areas_would_be_wrong_is_refused(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene, crs: str, origin: Any, better: str
) -> None:
    """Far from a zone's meridian, and on Web Mercator far from the equator; PROJ says how wrong."""
    tile = Grid(crs, 10, 256, origin)[0, 0]
    longitude, latitude = Proj(crs)(origin[0] + 1280, origin[1] - 1280, inverse=True)
    assert tile.areal_scale == pytest.approx(Proj(crs).get_factors(longitude, latitude).areal_scale)
    assert abs(tile.areal_scale - 1) > 0.02
    path = write(tmp_path / "a.tif", np.ones((300, 300), np.uint16), crs=crs, transform=from_origin(*origin, 10, 10))
    with pytest.raises(SceneError, match="areas on it would be wrong by") as caught:
        read_tile(make_scene(path), make_sensor(), tile)
    assert f"{better}, the UTM zone there" in caught.value.remedy
    near = Grid("EPSG:32622", 10, 256, (900_000, 6_000_000))[0, 0]
    assert abs(near.areal_scale - 1) < 0.02


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while such files are written
def test_control_points_that_cannot_be_relied_on_are_refused(
    tmp_path: Path, write: Write, make_sensor: MakeSensor, make_scene: MakeScene
) -> None:
    good = [GroundControlPoint(r, c, 10.0 * c, -10.0 * r) for r in range(0, 101, 25) for c in range(0, 101, 25)]
    crooked = [*good[:12], GroundControlPoint(50, 50, 560, -500), *good[13:]]
    crowded = [GroundControlPoint(p.row / 4, p.col / 4, p.x / 4, p.y / 4) for p in good]
    path = write(tmp_path / "a.tif", np.ones((100, 100), np.uint16), transform=None, crs=None)
    for points, reason in (
        (good[:6], "has 6 of them: too few"),
        (crowded, "too close together"),
        (crooked, "its points lie up to 5.* pixels off a smooth surface"),
    ):
        with rasterio.open(path, "r+") as dataset:
            dataset.gcps = (points, rasterio.CRS.from_epsg(32622))
        with pytest.raises(SceneError, match=rf"a\.tif, which is located by ground control points only, .*{reason}"):
            check_scene(make_scene(path), make_sensor())
