"""Buckets: what is read is right, or it is not read."""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geossl import bands as shipped
from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.imagery.folder import FolderSettings
from geossl.imagery.raster import open_raster
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.seen import Seen
from geossl.imagery.sources import open_source
from geossl.imagery.warp import check_scene

from .remote import NUMBERS, local_pixels, pixels
from .test_landsat import L2, as_text, metadata

pytestmark = pytest.mark.usefixtures("quick")


class Bucket:
    """A bucket of a moto server."""

    def __init__(self, name: str) -> None:
        from obstore.store import S3Store

        self.name = name
        self.store = S3Store(name, virtual_hosted_style_request=False, client_options={"allow_http": True})

    def put(self, path: str, content: bytes | Path, *, public: bool = False) -> None:
        self.store.put(path, content if isinstance(content, bytes) else content.read_bytes())
        if public:
            import boto3

            acl = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
            acl.put_object_acl(Bucket=self.name, Key=path, ACL="public-read")


def request(method: str, url: str, headers: dict[str, str] | None = None) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers or {})).close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, and an environment that names its server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"b{uuid.uuid4().hex}"
    request("PUT", f"{endpoint}/{name}")
    return Bucket(name)


def test_s3_addresses_read_as_local_files_do(
    bucket: Bucket, files: Path, make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    for path in files.iterdir():
        bucket.put(f"deep/{path.name}", path)
    scene = make_scene(*(f"s3://{bucket.name}/deep/x_B{index}.tif" for index in (1, 2)))
    check_scene(scene, make_sensor("B1", "B2"))
    read = pixels(scene, make_sensor("B1", "B2"))
    for index in (0, 1):
        np.testing.assert_array_equal(read[index], local_pixels(files / f"x_B{index + 1}.tif"))
    with pytest.raises(SceneError, match=r"s3://\w+/none\.tif is not there \(HTTP 404\)"):
        check_scene(make_scene(f"s3://{bucket.name}/none.tif"), make_sensor())


def test_the_s3_address_may_be_named_for_s3_alone(
    bucket: Bucket, files: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.tif", files / "plain.tif")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with open_raster(f"s3://{bucket.name}/a.tif", "a") as dataset:
        np.testing.assert_array_equal(dataset.read(1), NUMBERS[0])


def test_public_buckets_need_no_keys(bucket: Bucket, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a_20200506.tif", files / "plain.tif", public=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    said = {"path": f"s3://{bucket.name}", "access": {"kind": "public"}}
    sensor = shipped.sensor("sentinel-2-l2a").subset(("red",))
    (scene,) = open_source(FolderSettings.model_validate(said), Path()).scenes(sensor)
    assert isinstance(scene, Scene)
    np.testing.assert_array_equal(pixels(scene, sensor)[0], NUMBERS[0, :256, :256])


def found(bucket: Bucket, sensor: Sensor, path: str = "in", **settings: Any) -> list[Scene | Rejected]:
    source = open_source(FolderSettings(path=f"s3://{bucket.name}/{path}", **settings), Path("/nowhere"))
    return list(source.scenes(sensor))


def test_of_a_bucket_only_what_is_new_is_looked_at(
    bucket: Bucket, files: Path, make_sensor: Callable[..., Sensor]
) -> None:
    def put(day: str) -> None:
        for index in (1, 2):
            bucket.put(f"in/{day}/x_B{index}.tif", files / f"x_B{index}.tif")

    def look(seen: Seen) -> list[str]:
        settings = FolderSettings(path=f"s3://{bucket.name}/in", pattern="{date}/{scene}_{band}.tif")
        found = open_source(settings, Path("/nowhere")).scenes(make_sensor("B1", "B2"), seen)
        return [entry.id for entry in found if isinstance(entry, Scene)]

    put("20200506")
    first = Seen()
    assert look(first) == ["x-20200506"]
    again = Seen(first.found)
    assert look(again) == []
    assert not again.changed
    put("20200507")
    later = Seen(first.found)
    assert look(later) == ["x-20200507"]
    bucket.put("in/20200506/x_B2.tif", files / "x_B1.tif")
    assert look(Seen(later.found)) == ["x-20200506"]


def test_a_bucket_is_a_folder_with_patterns(bucket: Bucket, files: Path, make_sensor: Callable[..., Sensor]) -> None:
    for day in ("20200506", "20200507"):
        for index in (1, 2):
            bucket.put(f"in/{day}/x_B{index}.tif", files / f"x_B{index}.tif")
    bucket.put("in/20200507/x_B2.tif", b"<html>")
    bucket.put("in-another/20200508/x_B1.tif", b"")
    sensor = make_sensor("B1", "B2")
    first, second = found(bucket, sensor, pattern="{date}/{scene}_{band}.tif")
    assert isinstance(first, Scene)
    assert (first.id, first.time) == ("x-20200506", datetime(2020, 5, 6, tzinfo=UTC))
    assert first.bands["B2"].href == f"s3://{bucket.name}/in/20200506/x_B2.tif"
    np.testing.assert_array_equal(pixels(first, sensor)[1], NUMBERS[1, :256, :256])
    assert isinstance(second, Scene)  # whose first band is sound
    with pytest.raises(SceneError, match=r"band B2: s3://.*x_B2\.tif is a web page or XML, not a raster"):
        check_scene(second, sensor)


def test_one_raster_a_scene_in_a_bucket(bucket: Bucket, files: Path, make_sensor: Callable[..., Sensor]) -> None:
    bucket.put("in/a_20200506.tif", files / "plain.tif")
    bucket.put("in/sub/b.tif", files / "plain.tif")
    bucket.put("in/c_20200507.tif", b"<html>")
    scene, *others = found(bucket, make_sensor())
    assert isinstance(scene, Scene)
    assert scene.bands["B1"].href == f"s3://{bucket.name}/in/a_20200506.tif"
    assert [entry.source for entry in others if isinstance(entry, Rejected)] == [
        f"s3://{bucket.name}/in/c_20200507.tif",
        f"s3://{bucket.name}/in/sub/b.tif",
    ]
    for entry in others:
        assert isinstance(entry, Rejected)
        assert "geossl-" not in entry.reason + entry.remedy  # the scratch folder


def test_a_changed_object_changes_the_checksum(
    bucket: Bucket, files: Path, make_sensor: Callable[..., Sensor], make_scene: Callable[..., Scene]
) -> None:
    def checksums() -> tuple[str, str]:
        """As listed, and as asked for one by one."""
        (listed,) = found(bucket, make_sensor())
        assert isinstance(listed, Scene)
        return listed.checksum(), make_scene(f"s3://{bucket.name}/in/a_20200506.tif").checksum()

    bucket.put("in/a_20200506.tif", files / "x_B1.tif")
    before = checksums()
    assert checksums() == before
    bucket.put("in/a_20200506.tif", files / "x_B2.tif")
    assert not set(checksums()) & set(before)


def test_stac_items_in_a_bucket(
    bucket: Bucket, files: Path, make_sensor: Callable[..., Sensor], make_scene: Callable[..., Scene]
) -> None:
    item = make_scene(str(files / "x_B1.tif"), str(files / "x_B2.tif")).to_item()
    for asset in item.assets.values():
        asset.href = f"./{Path(asset.href).name}"
    bucket.put("in/s/s.json", json.dumps(item.to_dict()).encode())
    for index in (1, 2):
        bucket.put(f"in/s/x_B{index}.tif", files / f"x_B{index}.tif")
    (scene,) = found(bucket, make_sensor("B1", "B2"))
    assert isinstance(scene, Scene)
    assert scene.bands["B1"].href == f"s3://{bucket.name}/in/s/x_B1.tif"
    source = open_source(FolderSettings(path=f"s3://{bucket.name}/in"), Path("/nowhere"))
    first = Seen()
    assert list(source.scenes(make_sensor("B1", "B2"), first)) == [scene]
    assert list(source.scenes(make_sensor("B1", "B2"), Seen(first.found))) == []
    bucket.put("in/s/x_B2.tif", files / "x_B1.tif")
    (changed,) = source.scenes(make_sensor("B1", "B2"), Seen(first.found))
    assert changed != scene, "its item is the same, one of its files is not"
    bucket.put("in/s/x_B2.tif", files / "x_B2.tif")
    np.testing.assert_array_equal(pixels(scene, make_sensor("B1", "B2")), NUMBERS[:, :256, :256])


def test_hls_granules_in_a_bucket(bucket: Bucket, files: Path) -> None:
    granule = "HLS.S30.T22NBB.2020127T135109.v2.0"
    for band in ("B04", "B8A", "Fmask"):
        bucket.put(f"in/{granule}/{granule}.{band}.tif", files / "plain.tif")
    (scene,) = found(bucket, shipped.sensor("hls-s30").subset(("B04", "B8A")))
    assert isinstance(scene, Scene), scene
    assert scene.id == granule
    assert scene.bands["B8A"].href == f"s3://{bucket.name}/in/{granule}/{granule}.B8A.tif"


def test_a_landsat_product_in_a_bucket(bucket: Bucket, files: Path) -> None:
    groups = metadata(**L2)
    product = groups["PRODUCT_CONTENTS"]["LANDSAT_PRODUCT_ID"]
    bucket.put(f"in/{product}/{product}_MTL.txt", as_text(groups).encode())
    for name in ("SR_B4", "QA_PIXEL", "QA_RADSAT"):
        bucket.put(f"in/{product}/{product}_{name}.TIF", files / "plain.tif")
    (scene,) = found(bucket, shipped.sensor("landsat-8-l2").subset(("red",)))
    assert isinstance(scene, Scene), scene
    assert scene.id == product
    assert {asset.href for asset in (*scene.bands.values(), *scene.masks.values())} == {
        f"s3://{bucket.name}/in/{product}/{product}_{name}.TIF" for name in ("SR_B4", "QA_PIXEL", "QA_RADSAT")
    }
    assert all(asset.version for asset in scene.bands.values())


def test_a_safe_product_in_a_bucket(bucket: Bucket, shared_data: Path) -> None:
    (product,) = (shared_data / "s2-safe-t29unu").glob("**/*.SAFE")
    for path in product.rglob("*"):
        if path.is_file():
            bucket.put(f"in/{product.name}/{path.relative_to(product).as_posix()}", path)
    sensor = shipped.sensor("sentinel-2-l2a").subset(("B02", "B8A"))
    (there,) = found(bucket, sensor)
    (here,) = open_source(FolderSettings(path=str(product.parent)), Path()).scenes(sensor)
    assert isinstance(there, Scene)
    assert isinstance(here, Scene)
    assert (there.id, there.shift, there.footprint) == (here.id, here.shift, here.footprint)
    assert there.bands["B02"].href.startswith(f"s3://{bucket.name}/in/{product.name}/GRANULE/")
    check_scene(there, sensor)
    with (
        open_raster(there.bands["B02"].href, "there") as remote,
        open_raster(here.bands["B02"].href, "here") as local,
    ):
        np.testing.assert_array_equal(remote.read(1), local.read(1))


def test_what_cannot_be_listed_is_said(bucket: Bucket, make_sensor: Callable[..., Sensor]) -> None:
    with pytest.raises(SettingsError, match=r"nothing in s3://.*/in is imagery"):
        found(bucket, make_sensor())
    with pytest.raises(SettingsError, match=r"https://example.org/x cannot be listed: https has no folders"):
        open_source(FolderSettings(path="https://example.org/x"), Path())
    bucket.name = "nosuchbucket"
    with pytest.raises(SettingsError, match="s3://nosuchbucket/in cannot be listed"):
        found(bucket, make_sensor())
