"""HTTP servers that misbehave. What is read is right, or it is not read."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.imagery import listing
from geossl.imagery.raster import RemoteError, open_raster, remote_error
from geossl.imagery.scene import Scene
from geossl.imagery.warp import check_scene

from . import servers
from .remote import NUMBERS, pixels
from .servers import Manner, Site

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def site(files: Path) -> Iterator[Site]:
    with Site(files) as site:
        listing._keep_to_ranges.add(site.url)  # what is tested is how its manners are met while pixels are read
        yield site


def test_http_addresses_read_as_local_files_do(
    site: Site, files: Path, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    shutil.copy(files / "plain.tif", files / "no-suffix")
    sensor = make_sensor("B1", "B2", "B3")
    scene = make_scene(*(f"{site.url}/{name}" for name in ("x_B1.tif", "x_B2.tif?key=a.b/c", "no-suffix")))
    check_scene(scene, sensor)
    np.testing.assert_array_equal(pixels(scene, sensor), NUMBERS[[0, 1, 0], :256, :256])
    assert not [one.path for one in site.seen if "/x_B" not in one.path and "no-suffix" not in one.path]


OUTAGES: dict[str, tuple[Manner, str]] = {
    "login page": (servers.login_page, "is a web page or XML, not a raster"),
    "login page half way": (servers.login_page_half_way, "cannot be read to its end"),
    "500": (servers.failing(500, half_way=False), "its server answers with HTTP 500"),
    "500 half way": (servers.failing(500), "cannot be read to its end"),
    "403": (servers.failing(403, half_way=False), r"is refused by its server \(HTTP 403\)"),
    "404 half way": (servers.vanishing, r"is not there \(HTTP 404\)"),
    "half ranges": (servers.half_ranges(honest=True), "cannot be read to its end"),
    "cut off": (servers.half_ranges(honest=False), "cannot be read to its end"),
    "stalls": (servers.stalling(), "cannot be read to its end"),
}


@pytest.mark.parametrize(
    ("outage", "name"),
    [*((outage, "plain.tif") for outage in OUTAGES), ("half ranges", "x_B1.tif"), ("cut off", "x_B1.tif")],
)
def test_a_server_that_misbehaves_is_no_source_of_pixels(
    outage: str,
    name: str,
    site: Site,
    make_scene: Callable[..., Scene],
    make_sensor: Callable[..., Sensor],
) -> None:
    site.manner, reason = OUTAGES[outage]
    scene, sensor = make_scene(f"{site.url}/{name}"), make_sensor()
    begin = time.monotonic()
    with pytest.raises(SceneError, match=f"^scene s, band B1: {site.url}/{name} .*{reason}") as caught:
        pixels(scene, sensor)
    assert time.monotonic() - begin < 30
    assert "\n" not in caught.value.what
    assert caught.value.remedy
    # and nothing of it is left for later
    site.manner = servers.polite
    np.testing.assert_array_equal(pixels(scene, sensor)[0], NUMBERS[0, :256, :256])


@pytest.mark.parametrize("name", ["x_B1.tif", "plain.tif"])
def test_a_server_that_sends_whole_files_only_is_read_rightly_or_refused(
    name: str, site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    """GDAL makes do with a whole file when it is small."""
    site.manner = servers.whole_only
    with contextlib.suppress(SceneError):
        read = pixels(make_scene(f"{site.url}/{name}"), make_sensor())
        np.testing.assert_array_equal(read[0], NUMBERS[0, :256, :256])
    with pytest.raises(SceneError, match="sends whole files only"):
        raise remote_error(f"{site.url}/{name}", "a", None, RemoteError("what GDAL met", ""))


RECOVERIES: dict[str, Manner] = {
    "500 twice": servers.failing(500, 2),
    "503 at first": servers.failing(503, 3, half_way=False),
    "cut off once": servers.half_ranges(honest=False, times=1),
    "half a range once": servers.half_ranges(honest=True, times=1),
    "stalls once": servers.stalling(times=1),
}


@pytest.mark.parametrize("stumble", RECOVERIES)
def test_a_server_that_stumbles_is_asked_again(
    stumble: str, site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    site.manner = RECOVERIES[stumble]
    read = pixels(make_scene(f"{site.url}/plain.tif"), make_sensor())
    np.testing.assert_array_equal(read[0], NUMBERS[0, :256, :256])


def test_a_replaced_file_is_read_anew(
    site: Site, files: Path, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    scene, sensor = make_scene(f"{site.url}/plain.tif"), make_sensor()
    np.testing.assert_array_equal(pixels(scene, sensor)[0], NUMBERS[0, :256, :256])
    with rasterio.open(files / "plain.tif", "r+") as dataset:
        dataset.write(NUMBERS[1], 1)
    np.testing.assert_array_equal(pixels(scene, sensor)[0], NUMBERS[1, :256, :256])


def test_no_server_and_no_answer_are_said_in_bounded_time(
    make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and never answers
        scene = make_scene(f"http://127.0.0.1:{deaf.getsockname()[1]}/a.tif")
        begin = time.monotonic()
        with pytest.raises(SceneError, match=r"/a\.tif cannot be opened: .*now its server does not answer"):
            pixels(scene, make_sensor())
        assert time.monotonic() - begin < 30
    with pytest.raises(SceneError, match=r"/a\.tif cannot be opened: .*now its server does not answer"):
        pixels(scene, make_sensor())


def test_a_vrt_is_not_followed_over_http(
    site: Site, files: Path, write: Callable[..., str], make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    secret = write(tmp_path / "secret.tif", NUMBERS[0])
    vrt = f"""<VRTDataset rasterXSize="280" rasterYSize="300"><SRS>EPSG:32622</SRS><GeoTransform>0,10,0,20000,0,-10
        </GeoTransform><VRTRasterBand dataType="Int16" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename>
        <SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    for name in ("a.vrt", "a.tif", "a.jp2", "bare"):
        (files / name).write_text(vrt)
    with rasterio.open(files / "a.vrt") as dataset:  # GDAL would follow it
        np.testing.assert_array_equal(dataset.read(1), NUMBERS[0])
    for name in ("a.vrt", "a.tif", "a.jp2", "bare"):
        reason = r"is not a kind of file that is read|XML, not a raster"
        with pytest.raises(SceneError, match=reason), open_raster(f"{site.url}/{name}", "a"):
            pass


def test_a_server_that_sends_another_part_than_was_asked_for_is_refused(
    files: Path, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    """Of a file without compression, GDAL would take it for the pixels."""
    with Site(files, servers.other_part) as site:
        scene = make_scene(f"{site.url}/plain.tif")
        with pytest.raises(SceneError, match=r"plain\.tif comes from a server that answers with another part"):
            pixels(scene, make_sensor())
    with Site(files) as site:
        scene = make_scene(f"{site.url}/plain.tif", f"{site.url}/x_B2.tif")
        read = pixels(scene, make_sensor("B1", "B2"))
        np.testing.assert_array_equal(read, NUMBERS[:, :256, :256])
        asked = [one for one in site.seen if (one.begin, one.end) in ((0, 63), (16, 31))]
        assert len(asked) == 2, "a server is looked at once"
