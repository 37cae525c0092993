"""Catalogs on other machines: in buckets, behind a token, and what they may not name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from geossl.bands import Sensor
from geossl.errors import SettingsError
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.stac import StacSettings

from .remote import NUMBERS, pixels
from .servers import Handler, Site
from .test_buckets import Bucket, bucket, endpoint  # noqa: F401  # fixtures

pytestmark = pytest.mark.usefixtures("quick")


def found(sensor: Sensor, **settings: Any) -> list[Scene | Rejected]:
    return list(open_source(StacSettings.model_validate(settings), Path("/nowhere")).scenes(sensor))


@pytest.fixture
def item(make_scene: Callable[..., Scene]) -> pystac.Item:
    """Two bands beside the item."""
    made = make_scene("x_B1.tif", "x_B2.tif").to_item()
    for asset in made.assets.values():
        asset.href = f"./{asset.href}"
    return made


def catalog_of(*links: tuple[str, str]) -> bytes:
    said = {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "c",
        "description": "all",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }
    return json.dumps(said).encode()


@pytest.mark.parametrize("kind", ["catalog.json", "items.json", "item.json", "items.parquet"])
def test_a_catalog_in_a_bucket(
    kind: str,
    bucket: Bucket,  # noqa: F811
    item: pystac.Item,
    files: Path,
    tmp_path: Path,
    make_sensor: Callable[..., Sensor],
) -> None:
    for index in (1, 2):
        bucket.put(f"deep/x_B{index}.tif", files / f"x_B{index}.tif")
    bucket.put("deep/item.json", json.dumps(item.to_dict()).encode())
    bucket.put("deep/catalog.json", catalog_of(("item", "./item.json")))
    bucket.put("deep/items.json", json.dumps({"type": "FeatureCollection", "features": [item.to_dict()]}).encode())
    if kind.endswith("parquet"):
        stac_geoparquet = pytest.importorskip("stac_geoparquet.arrow")
        table = stac_geoparquet.parse_stac_items_to_arrow([item.to_dict()])
        stac_geoparquet.to_parquet(table, tmp_path / "items.parquet")
        bucket.put("deep/items.parquet", tmp_path / "items.parquet")
    sensor = make_sensor("B1", "B2")
    (scene,) = found(sensor, href=f"s3://{bucket.name}/deep/{kind}")
    assert isinstance(scene, Scene)
    assert scene.bands["B1"].href == f"s3://{bucket.name}/deep/x_B1.tif"
    np.testing.assert_array_equal(pixels(scene, sensor), NUMBERS[:, :256, :256])


def test_a_catalog_in_a_bucket_that_is_not_there(bucket: Bucket, make_sensor: Callable[..., Sensor]) -> None:  # noqa: F811
    with pytest.raises(SettingsError, match=r"s3://.*/none\.json cannot be read as STAC"):
        found(make_sensor(), href=f"s3://{bucket.name}/none.json")


def test_nothing_from_elsewhere_names_a_file_of_this_machine(
    item: pystac.Item, files: Path, tmp_path: Path, make_sensor: Callable[..., Sensor]
) -> None:
    """By an address of its own, by where it says that it lies, or by a link."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for index in (1, 2):
        (secret / f"x_B{index}.tif").write_bytes((files / f"x_B{index}.tif").read_bytes())
    (secret / "item.json").write_text(json.dumps(item.to_dict()), encoding="utf-8")
    direct, lying = item.clone(), item.clone()
    direct.assets["B1"].href = f"file://{secret}/x_B1.tif"
    lying.set_self_href(f"file://{secret}/item.json")
    (files / "direct.json").write_text(json.dumps(direct.to_dict()), encoding="utf-8")
    (files / "lying.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [lying.to_dict(transform_hrefs=False)]}), encoding="utf-8"
    )
    (files / "linking.json").write_bytes(
        catalog_of(("item", f"file://{secret}/item.json"), ("child", f"file://{secret}/catalog.json"))
    )
    sensor = make_sensor("B1", "B2")
    with Site(files) as site:
        (one,) = found(sensor, href=f"{site.url}/direct.json")
        assert isinstance(one, Rejected)
        assert f"names {secret}/x_B1.tif, a file of this machine" in one.reason
        (one,) = found(sensor, href=f"{site.url}/direct.json", files=tmp_path / "another")
        assert isinstance(one, Rejected)
        (way,) = found(sensor, href=f"{site.url}/direct.json", files=secret)
        assert isinstance(way, Scene)
        (one,) = found(sensor, href=f"{site.url}/lying.json")
        assert isinstance(one, Scene)
        assert one.bands["B2"].href == f"{site.url}/x_B2.tif"
        linked = found(sensor, href=f"{site.url}/linking.json")
        assert all(isinstance(one, Rejected) and "a file of this machine" in one.reason for one in linked)
        assert len(linked) == 2
    # what lies here may name what lies here
    (one,) = found(sensor, href=str(secret / "item.json"))
    assert isinstance(one, Scene)


def test_a_catalog_that_wants_a_token(
    item: pystac.Item, files: Path, make_sensor: Callable[..., Sensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the one that its provider's files get; no other server ever sees it."""
    (files / "item.json").write_text(json.dumps(item.to_dict()), encoding="utf-8")

    def signed_only(request: Handler) -> bool:
        if request.headers.get("Authorization") != "Bearer secret":
            request.say(401)
            return True
        if request.path == "/moved.json":
            request.say(302, headers={"Location": f"{elsewhere.url}/item.json"})
            return True
        return False

    sensor = make_sensor("B1", "B2")
    access = {"kind": "earthdata", "hosts": ["127.0.0.1"]}
    monkeypatch.setenv("EARTHDATA_TOKEN", "secret")
    with Site(files, signed_only) as site, Site(files) as elsewhere:
        (scene,) = found(sensor, href=f"{site.url}/item.json", access=access)
        assert isinstance(scene, Scene)
        np.testing.assert_array_equal(pixels(scene, sensor), NUMBERS[:, :256, :256])
        with pytest.raises(SettingsError, match="401"):
            found(sensor, href=f"{site.url}/item.json")
        found(sensor, href=f"{site.url}/moved.json", access=access)
        assert elsewhere.seen
        assert not [one for one in elsewhere.seen if "Authorization" in one.headers]
