"""Providers that ask who is there: tokens are fetched, renewed and kept to their hosts, secrets kept secret."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.grid import Grid
from geossl.imagery import access, raster, retry, web
from geossl.imagery.access import Access, AccessSettings, Copernicus, Earthdata, PlanetaryComputer
from geossl.imagery.raster import open_raster
from geossl.imagery.scene import Scene
from geossl.imagery.warp import check_scene, read_tile

from .providers import SECRET, Tokens, bearers, blob_store, oauth, refuse
from .servers import Handler, Site

WRITTEN = np.random.default_rng(3).integers(1, 9_999, (256, 256)).astype(np.int16)
GRID = Grid("EPSG:32622", 10, 256)
TILE = GRID[0, 7]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses, no tokens of other tests, no credentials of the machine's own."""
    monkeypatch.setattr(retry, "PAUSE", 0.01)
    monkeypatch.setattr(web, "PAUSE", 0.01)
    monkeypatch.setitem(raster.GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    for name in [name for name in os.environ if name.startswith(("PC_SDK_", "CDSE_", "EARTHDATA_", "NETRC", "AWS_"))]:
        monkeypatch.delenv(name)
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        # curl knows that all of .localhost is this machine, glibc does not
        return real("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    access._TOKENS.clear()
    yield
    access._TOKENS.clear()


@pytest.fixture
def site(tmp_path: Path, write: Callable[..., str]) -> Iterator[Site]:
    """Serves ``scenes/a.tif`` and ``scenes/b.tif``, both of :data:`WRITTEN`."""
    for name in "ab":
        place = {"transform": TILE.transform, "tiled": True, "blockxsize": 128, "blockysize": 128}
        write(tmp_path / "www" / "scenes" / f"{name}.tif", WRITTEN, nodata=-32768, compress="deflate", **place)
    with Site(tmp_path / "www") as site:
        yield site


def pixels(scene: Scene, sensor: Sensor) -> Any:
    read = read_tile(scene, sensor, TILE)
    assert read is not None
    return read.image[0]


def planetary(site: Site) -> PlanetaryComputer:
    return PlanetaryComputer(kind="planetary-computer", endpoint=f"{site.url}/sas", storage=f"localhost:{site.port}")


def blob(site: Site, name: str = "a") -> str:
    return f"http://acc.localhost:{site.port}/scenes/{name}.tif"


def test_blobs_are_signed_for_and_one_signature_serves_a_container(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    tokens = Tokens()
    site.manner = blob_store(tokens)
    scene = make_scene(blob(site), blob(site, "b"), access=planetary(site))
    check_scene(scene, make_sensor("B1", "B2"))
    np.testing.assert_array_equal(pixels(scene, make_sensor("B1", "B2")), WRITTEN)
    assert tokens.given == 1
    with pytest.raises(SceneError, match=r"a\.tif is refused by its server \(HTTP 40.\)"):
        pixels(replace(scene, access=None), make_sensor("B1"))


def test_a_signature_that_ends_is_fetched_again_before_its_end(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    tokens = Tokens(life=1)
    site.manner = blob_store(tokens)
    scene, sensor = make_scene(blob(site), access=planetary(site)), make_sensor("B1")
    until = time.monotonic() + 1.6
    while time.monotonic() < until:
        np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
    assert 3 <= tokens.given <= 5  # each serves for half its life
    assert not [one for one in site.seen if "/sas/" not in one.path and not tokens.good]


def test_a_signature_that_is_refused_half_way_is_replaced(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    tokens = Tokens()
    polite = blob_store(tokens)

    def manner(request: Handler) -> bool:
        if request.later and tokens.given == 1:
            tokens.good.clear()
        return polite(request)

    site.manner = manner
    scene = make_scene(blob(site), access=planetary(site))
    np.testing.assert_array_equal(pixels(scene, make_sensor("B1")), WRITTEN)
    assert tokens.given == 2


def test_a_refused_subscription_key_names_its_variable(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.manner = blob_store(Tokens(), key="right")
    scene = make_scene(blob(site), access=planetary(site))
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", SECRET)
    with pytest.raises(SettingsError, match="refuses the credentials") as caught:
        check_scene(scene, make_sensor("B1"))
    assert "PC_SDK_SUBSCRIPTION_KEY" in caught.value.remedy
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "right")
    check_scene(scene, make_sensor("B1"))


CLIENT = {"grant_type": "client_credentials", "client_id": "me", "client_secret": SECRET}
REFRESH = {"grant_type": "refresh_token", "refresh_token": SECRET, "client_id": "cdse-public"}


def copernicus(site: Site) -> Copernicus:
    return Copernicus(kind="copernicus", s3=site.url, endpoint=f"{site.url}/token", hosts=("127.0.0.1",))


@pytest.mark.parametrize("granted", [CLIENT, REFRESH], ids=lambda form: form["grant_type"])
def test_copernicus_https_by_a_bearer_token(
    granted: dict[str, str],
    site: Site,
    make_scene: Callable[..., Scene],
    make_sensor: Callable[..., Sensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = Tokens(life=1)
    site.manner = oauth(tokens, granted)
    scene, sensor = make_scene(f"{site.url}/scenes/a.tif", access=copernicus(site)), make_sensor("B1")
    with pytest.raises(SettingsError, match="CDSE_CLIENT_ID is not set"):
        check_scene(scene, sensor)
    monkeypatch.setenv("CDSE_CLIENT_ID", "me")
    monkeypatch.setenv("CDSE_CLIENT_SECRET", "wrong")
    with pytest.raises(SettingsError, match=r"/token refuses the credentials \(HTTP 401\)") as caught:
        check_scene(scene, sensor)
    assert "CDSE_CLIENT_SECRET" in caught.value.remedy
    variable = "CDSE_REFRESH_TOKEN" if granted is REFRESH else "CDSE_CLIENT_SECRET"
    monkeypatch.setenv(variable, SECRET)
    for _ in range(2):
        np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
    time.sleep(0.6)
    np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
    assert tokens.given == 2


def test_copernicus_s3_by_keys_of_its_own(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def manner(request: Handler) -> bool:
        known = f"Credential={SECRET}-id/" in request.headers.get("Authorization", "")
        return (not known or "x-amz-security-token" in request.headers) and refuse(request)

    site.manner = manner
    scene, sensor = make_scene("s3://scenes/a.tif", access=copernicus(site)), make_sensor("B1")
    # an endpoint and keys for the project's own store are not Copernicus'
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    with pytest.raises(SettingsError, match="CDSE_S3_ACCESS_KEY is not set"):
        check_scene(scene, sensor)
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "wrong")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", SECRET)
    with pytest.raises(SceneError, match=r"s3://scenes/a\.tif is refused by its server") as caught:
        check_scene(scene, sensor)
    assert "CDSE_S3_ACCESS_KEY" in caught.value.remedy
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", f"{SECRET}-id")
    np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
    assert scene.checksum() == scene.checksum()


def earthdata(site: Site) -> Earthdata:
    return Earthdata(kind="earthdata", endpoint=site.url, hosts=("127.0.0.1",))


def test_earthdata_trades_the_token_for_an_address_that_never_sees_it(
    site: Site,
    make_scene: Callable[..., Scene],
    make_sensor: Callable[..., Sensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = Tokens()
    monkeypatch.setenv("EARTHDATA_TOKEN", tokens.give())
    with Site(site.folder) as cloud:

        def data_host(request: Handler) -> bool:
            if not tokens.knows(request.headers.get("Authorization", "").removeprefix("Bearer ")):
                return refuse(request, 401)
            request.say(303, headers={"Location": f"http://localhost:{cloud.port}{request.path}?X-Amz-Signature=1"})
            return True

        # as S3 does: a signed address with a header as well is refused
        cloud.manner = lambda request: (
            ("X-Amz-Signature" not in request.path or "Authorization" in request.headers) and refuse(request, 400)
        )
        site.manner = data_host
        scene, sensor = make_scene(f"{site.url}/scenes/a.tif", access=earthdata(site)), make_sensor("B1")
        np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
        scene.checksum()
        assert cloud.seen
        assert not [one for one in cloud.seen if one.headers.get("Authorization")]
        monkeypatch.setenv("EARTHDATA_TOKEN", "wrong")
        with pytest.raises(SceneError, match=r"refused by its server \(HTTP 401\)") as caught:
            check_scene(scene, sensor)
        assert "EARTHDATA_TOKEN" in caught.value.remedy


def test_earthdata_by_the_login_of_a_netrc_file(
    site: Site,
    make_scene: Callable[..., Scene],
    make_sensor: Callable[..., Sensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tokens = Tokens()

    def login(request: Handler) -> dict[str, Any] | None:
        right = base64.b64encode(f"me:{SECRET}".encode()).decode()
        if request.path != "/api/users/find_or_create_token" or request.headers["Authorization"] != f"Basic {right}":
            return None
        return {"access_token": tokens.give(), "expiration_date": "12/31/2099"}

    site.manner = bearers(tokens, login)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    scene, sensor = make_scene(f"{site.url}/scenes/a.tif", access=earthdata(site)), make_sensor("B1")
    with pytest.raises(SettingsError, match=r"EARTHDATA_TOKEN is not set, and .*netrc holds no login for 127"):
        check_scene(scene, sensor)
    netrc.write_text("machine 127.0.0.1 login me password wrong")
    with pytest.raises(SettingsError, match="refuses the credentials"):
        check_scene(scene, sensor)
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}")
    np.testing.assert_array_equal(pixels(scene, sensor), WRITTEN)
    assert tokens.given == 1


def test_requester_pays_is_said_with_every_request(
    site: Site, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.manner = lambda request: request.headers.get("x-amz-request-payer") != "requester" and refuse(request)
    monkeypatch.setenv("AWS_ENDPOINT_URL", site.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    scene, sensor = make_scene("s3://scenes/a.tif"), make_sensor("B1")
    with pytest.raises(SceneError, match="refused by its server"):
        check_scene(scene, sensor)
    paying = replace(scene, access=settings(kind="requester-pays"))
    np.testing.assert_array_equal(pixels(paying, sensor), WRITTEN)


def settings(**said: str) -> Access:
    return TypeAdapter(AccessSettings).validate_python(said)


@pytest.mark.parametrize(
    "href",
    [
        "http://data.nasa.gov/a.tif",  # in clear
        "https://evilnasa.gov/a.tif",
        "https://nasa.gov.example.org/a.tif",
        "https://example.org/nasa.gov/a.tif",
        "https://nasa.gov@example.org/a.tif",
        "s3://nasa.gov/a.tif",
    ],
)
def test_a_token_goes_to_its_own_hosts_only(href: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", SECRET)
    theirs = settings(kind="earthdata")
    assert SECRET in str(theirs.opening("https://data.nasa.gov/a.tif"))
    assert SECRET not in str(theirs.opening(href))
    if not href.startswith("s3"):
        assert theirs.request(href).get_header("Authorization") is None


def test_files_open_at_once_do_not_share_credentials(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", SECRET)
    with (
        open_raster(f"{site.url}/scenes/a.tif", "a", earthdata(site)) as first,
        open_raster(f"http://localhost:{site.port}/scenes/b.tif", "b", earthdata(site)) as second,
    ):
        for dataset in (second, first):
            np.testing.assert_array_equal(dataset.read(1), WRITTEN)
    told = {(one.path, "Authorization" in one.headers) for one in site.seen}
    assert told == {("/scenes/a.tif", True), ("/scenes/b.tif", False)}


def test_secrets_are_not_written_anywhere(
    site: Site,
    make_scene: Callable[..., Scene],
    make_sensor: Callable[..., Sensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = Tokens()
    site.manner = blob_store(tokens)
    monkeypatch.setenv("EARTHDATA_TOKEN", SECRET)
    written = []
    for scene in (
        make_scene(blob(site), blob(site, "gone"), access=planetary(site)),
        make_scene(f"{site.url}/scenes/a.tif", f"{site.url}/gone.tif", access=earthdata(site)),
    ):
        with pytest.raises(SceneError) as caught:
            check_scene(scene, make_sensor("B1", "B2"))
        written += [str(caught.value), json.dumps(scene.to_item().to_dict()), pickle.dumps(scene).decode("latin1")]
        assert pickle.loads(pickle.dumps(scene)) == scene
    assert tokens.given
    assert SECRET not in "\n".join(written) + caplog.text


def test_settings_hold_no_secret_and_say_what_is_wrong() -> None:
    with pytest.raises(ValidationError):
        settings(kind="earthdata", token=SECRET)
    with pytest.raises(ValidationError):
        settings(kind="nasa")
    assert settings(kind="public") == settings(kind="public")
