from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pystac
import pytest
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from geossl.bands import Sensor
from geossl.errors import SettingsError
from geossl.imagery import stac
from geossl.imagery.scene import Rejected, Scene, in_order
from geossl.imagery.sources import open_source
from geossl.imagery.stac import StacSettings

from .stac_servers import answering, has_rustac, landing, rustac


def square(west: float) -> dict[str, object]:
    ring = [[west, 0.0], [west + 1, 0.0], [west + 1, 1.0], [west, 1.0], [west, 0.0]]
    return {"type": "Polygon", "coordinates": [ring]}


@pytest.fixture
def items(make_scene: Callable[..., Scene]) -> list[pystac.Item]:
    """Four items of two collections, one a month and a degree further east; the last lacks a band."""
    made = []
    for month in (4, 2, 3, 1):
        scene = make_scene(f"b1-{month}.tif", id=f"s{month}", time=datetime(2020, month, 1, tzinfo=UTC),
                           footprint=square(month), properties={"eo:cloud_cover": 10.0 * month})  # fmt: skip
        item = scene.to_item()
        item.collection_id = "even" if month % 2 == 0 else "odd"
        if month == 4:
            item.assets = {"x": pystac.Asset("x.tif")}
        made.append(item)
    return made


@pytest.fixture
def catalog(tmp_path: Path, items: list[pystac.Item]) -> Path:
    """A static catalog: collections with their items below them."""
    root = pystac.Catalog("c", "all")
    extent = pystac.Extent(pystac.SpatialExtent([0, 0, 9, 1]), pystac.TemporalExtent([None, None]))
    for name in ("odd", "even"):
        collection = pystac.Collection(name, name, extent)
        collection.add_items(item for item in items if item.collection_id == name)
        root.add_child(collection)
    root.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    return tmp_path / "catalog.json"


def ids(sensor: Any, base: Path, **settings: Any) -> list[str]:
    found = in_order(open_source(StacSettings(**settings), base).scenes(sensor))
    return [entry.id if isinstance(entry, Scene) else f"not {entry.source.rpartition('/')[2]}" for entry in found]


def test_a_static_catalog(catalog: Path, make_sensor: Callable[..., Sensor]) -> None:
    sensor, base = make_sensor(), catalog.parent
    assert ids(sensor, base, href="catalog.json") == ["s1", "s2", "s3", "not s4.json"]
    assert ids(sensor, base, href="catalog.json", collections=["odd"]) == ["s1", "s3"]
    assert ids(sensor, base, href="catalog.json", bbox=(2.5, 0, 3.5, 1)) == ["s2", "s3"]
    assert ids(sensor, base, href="catalog.json", max_cloud=20) == ["s1", "s2"]
    assert ids(sensor, base, href="catalog.json", start="2020-02-01", end="2020-03-01T00:00:00Z") == ["s2", "s3"]
    assert ids(sensor, base, href="even/collection.json", end="2020-02-02") == ["s2"]
    first, *_, last = in_order(open_source(StacSettings(href="catalog.json"), base).scenes(sensor))
    assert isinstance(first, Scene)
    assert Path(first.bands["B1"].href).is_absolute()
    assert isinstance(last, Rejected)
    assert last.reason == "s4: no asset holds band B1; there are x"


def test_a_catalog_may_nest_circle_and_use_file_addresses(
    catalog: Path, tmp_path: Path, make_sensor: Callable[..., Sensor]
) -> None:
    """Catalog → odd → even → catalog again, with the way to one item as a file:// address."""
    odd, even = (tmp_path / name / "collection.json" for name in ("odd", "even"))
    for path, target in ((odd, "../even/collection.json"), (even, (tmp_path / "catalog.json").as_uri())):
        said = json.loads(path.read_text())
        said["links"].append({"rel": "child", "href": target})
        path.write_text(json.dumps(said))
    spaced = tmp_path / "a place"
    shutil.move(tmp_path / "even/s2", spaced)
    said = json.loads(even.read_text())
    for link in said["links"]:
        if "s2" in link["href"]:
            link["href"] = (spaced / "s2.json").as_uri()
    even.write_text(json.dumps(said))
    for href in ("catalog.json", (tmp_path / "catalog.json").as_uri()):
        assert ids(make_sensor(), catalog.parent, href=href) == ["s1", "s2", "s3", "not s4.json"]


def test_an_item_that_cannot_be_read_is_set_aside_and_a_catalog_is_an_error(
    catalog: Path, tmp_path: Path, make_sensor: Callable[..., Sensor]
) -> None:
    (tmp_path / "odd/s1/s1.json").unlink()
    (tmp_path / "odd/s3/s3.json").write_text("{")
    assert ids(make_sensor(), tmp_path, href="catalog.json") == ["s2", "not s4.json", "not s1.json", "not s3.json"]
    (tmp_path / "even/collection.json").unlink()
    with pytest.raises(SettingsError, match=r"catalog\.json cannot be read as STAC: .*even/collection\.json"):
        ids(make_sensor(), tmp_path, href="catalog.json")


def test_one_item_and_an_item_collection(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    (tmp_path / "one.json").write_text(json.dumps(items[1].to_dict()))
    assert ids(make_sensor(), tmp_path, href="one.json") == ["s2"]
    items[1].assets["B1"].href = (tmp_path / "with space.tif").as_uri()
    pystac.ItemCollection(items).save_object(str(tmp_path / "all.json"))
    found = in_order(open_source(StacSettings(href=str(tmp_path / "all.json")), tmp_path).scenes(make_sensor()))
    assert isinstance(found[1], Scene)
    assert found[1].bands["B1"].href == str(tmp_path / "with space.tif")


def test_a_stac_geoparquet_file(tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]) -> None:
    """The same scenes as from the item collection, though each row has another set of assets."""
    for item in items:
        item.assets[f"only-{item.id}"] = pystac.Asset("./more.tif", extra_fields={"gsd": 10})
    items[2].assets["B1"].href = "./beside.tif"
    pystac.ItemCollection(items).save_object(str(tmp_path / "all.json"))
    batches = parse_stac_items_to_arrow([item.to_dict(transform_hrefs=False) for item in items])
    to_parquet(pyarrow.RecordBatchReader.from_batches(batches.schema, list(batches)), tmp_path / "all.parquet")
    as_json, as_table = (
        in_order(open_source(StacSettings(href=name), tmp_path).scenes(make_sensor()))
        for name in ("all.json", "all.parquet")
    )
    assert as_table[:3] == as_json[:3]
    assert [entry.id for entry in as_table[:3] if isinstance(entry, Scene)] == ["s1", "s2", "s3"]
    assert isinstance(as_table[2], Scene)
    assert as_table[2].bands["B1"].href == str(tmp_path / "beside.tif")
    assert isinstance(as_table[3], Rejected)
    assert as_table[3].reason.startswith("s4: no asset holds band B1; there are")
    content = (tmp_path / "all.parquet").read_bytes()
    with answering(lambda *_: (200, "application/x-parquet", content)) as address:
        assert ids(make_sensor(), tmp_path, href=f"{address}/all.parquet", max_cloud=20) == ["s1", "s2"]
    (tmp_path / "all.parquet").write_bytes(content[:-10])
    with pytest.raises(SettingsError, match=r"all\.parquet cannot be read as STAC"):
        ids(make_sensor(), tmp_path, href="all.parquet")


def test_items_that_cannot_be_scenes_are_set_aside_with_their_reason(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    good = items[1].to_dict()
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()

    def changed(name: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        said = json.loads(json.dumps(good)) | {"id": name} | more
        said["properties"] |= properties or {}
        return said

    elsewhere = changed("s2", {"eo:cloud_cover": 1.0})
    features: list[Any] = [
        good,
        changed("ranged", {"datetime": None, "start_datetime": "2019-01-01T00:00:00Z",
                           "end_datetime": "2019-01-02T00:00:00Z"}),
        changed("bandless", assets={}),
        changed("timeless", {"datetime": None}),
        changed("garbled", {"datetime": "last Tuesday"}),
        changed("unset-clock", {"datetime": "1970-01-01T00:00:00Z"}),
        changed("fast-clock", {"datetime": tomorrow}),
        changed("nowhere", geometry=None),
        changed("bent", geometry={"type": "Polygon", "coordinates": [1, 2]}),
        changed("", properties={}),
        None,
        good,
        elsewhere,
    ]  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    source = open_source(StacSettings(href="all.json", bbox=(0, 0, 9, 1)), tmp_path)
    found = in_order(source.scenes(make_sensor()))
    assert [entry.id for entry in found if isinstance(entry, Scene)] == ["ranged", "s2"]
    reasons = sorted(entry.reason for entry in found if isinstance(entry, Rejected))
    expected = [
        "bandless: no asset holds band B1; there are none",
        "fast-clock: it says it was acquired at 20.*, which cannot be right",
        "all.json.* is no valid STAC Item: .*'int' object",
        "all.json.* is no valid STAC Item: .*it has no id",
        "all.json.* is no valid STAC Item: .*last",
        "all.json.* is no valid STAC Item: .*NoneType",
        "all.json.* is no valid STAC Item: .* a start_datetime and end_datetime must be supplied",
        "nowhere: the item has no geometry",
        "there is already a scene s2, of 2020-02-01",
        "unset-clock: it says it was acquired at 1970-01-01 00:00:00",
    ]
    for pattern in expected:
        assert len([reason for reason in reasons if re.match(pattern, reason)]) == 1, (pattern, reasons)
    assert len(reasons) == len(expected)
    sources = [entry.source for entry in found if isinstance(entry, Rejected)]
    assert f"{tmp_path / 'all.json'}: timeless" in sources


def test_an_area_may_cross_the_antimeridian(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    for item, west in zip(items, (178.5, -179.5, 0, -120), strict=True):
        item.geometry, item.assets = square(west), items[1].assets
    pystac.ItemCollection(items).save_object(str(tmp_path / "all.json"))
    assert ids(make_sensor(), tmp_path, href="all.json", bbox=(178, 0, -179, 1)) == ["s2", "s4"]


def test_an_api_is_searched(tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]) -> None:
    """By a server that answers by collection only; the other conditions are applied here."""
    searches: list[dict[str, Any]] = []

    def answer(path: str, body: Any) -> Any:
        if body is None:
            return landing(address)
        searches.append(body)
        found = [item.to_dict() for item in items if item.collection_id in body["collections"]]
        return {"type": "FeatureCollection", "features": found, "links": []}

    with answering(answer) as address:
        settings = {"href": address, "collections": ["odd"], "bbox": (0, 0, 2, 1), "start": "2020-01-01"}
        assert ids(make_sensor(), tmp_path, **settings) == ["s1"]
        assert searches[0]["collections"] == ["odd"]
        assert searches[0]["bbox"] == [0, 0, 2, 1]
        assert searches[0]["datetime"] == "2020-01-01T00:00:00Z/.."
        with pytest.raises(SettingsError, match="name the `collections` to search"):
            ids(make_sensor(), tmp_path, href=address)


def paged(address: str, items: list[pystac.Item], page: str, body: Any) -> Any:
    """One item a page, as OGC APIs do it: the way to the next page is a link."""
    if body is None:
        return landing(address)
    number = int(body.get("token", 0))
    link = {"rel": "next", "href": f"{address}/search", "method": "POST", "body": body | {"token": number + 1}}
    return {"type": "FeatureCollection", "features": [items[number].to_dict()],
            "links": [link] if number + 1 < len(items) else []}  # fmt: skip


def test_pages_are_read_as_their_scenes_are_taken(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    asked: list[Any] = []

    def answer(path: str, body: Any) -> Any:
        asked.append(body)
        return paged(address, items, path, body)

    with answering(answer) as address:
        source = open_source(StacSettings(href=address, collections=("odd", "even")), tmp_path)
        found = source.scenes(make_sensor())
        names = [getattr(next(found), "id", "none"), getattr(next(found), "id", "none")]
        assert names == ["none", "s2"]
        assert max(int(body.get("token", 0)) for body in asked if body) == 1
        assert len(list(found)) == 2


def broken(kind: str, address: str, items: list[pystac.Item], path: str, body: Any) -> Any:
    if kind == "slow":
        time.sleep(1)
    if kind == "500":
        return 500, "text/html", b"<h1>Internal Server Error</h1>" + b" padding" * 1000
    if kind == "silent":
        return 404, "text/plain", b""
    if kind == "not JSON":
        return 200, "text/html", b"<html>please log in</html>"
    if kind == "not STAC":
        return {"conformsTo": [], "stac_version": "1.0.0"}
    if body is None or kind == "slow":
        return landing(address)
    return paged(address, items, path, body) if "token" not in body else (502, "text/plain", b"bad gateway")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("500", "HTTP 500: .*Internal Server Error"),
        ("not JSON", ""),
        ("slow", "[Tt]imed? ?out"),
        ("not STAC", ""),
        ("later page", "HTTP 502: bad gateway"),
        ("silent", "HTTP 404: APIError"),
        ("gone", "refused"),
    ],
)
def test_an_api_that_fails_is_one_error(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor], monkeypatch: Any, kind: Any,
    reason: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(stac, "RETRY", stac.RETRY.new(total=1, backoff_factor=0))
    monkeypatch.setattr(stac, "TIMEOUT", 0.2)
    with answering(lambda path, body: broken(kind, address, items, path, body)) as address:
        href = "http://127.0.0.1:9" if kind == "gone" else address
        with pytest.raises(SettingsError, match=rf"^{href} cannot be read as STAC: [\s\S]*{reason}") as caught:
            ids(make_sensor(), tmp_path, href=href, collections=["odd", "even"])
    assert len(caught.value.what) < 400
    assert "whether the server answers" in caught.value.remedy


def test_a_passing_fault_is_asked_again(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor], monkeypatch: Any
) -> None:
    monkeypatch.setattr(stac, "RETRY", stac.RETRY.new(backoff_factor=0))
    asked: list[Any] = []

    def answer(path: str, body: Any) -> Any:
        asked.append(body)
        return (503, "text/plain", b"busy") if len(asked) % 2 else paged(address, items, path, body)

    with answering(answer) as address:
        assert ids(make_sensor(), tmp_path, href=address, collections=["odd", "even"])[:3] == ["s1", "s2", "s3"]


def test_what_is_only_a_part_of_an_api_is_refused(tmp_path: Path, make_sensor: Callable[..., Sensor]) -> None:
    collection = {"type": "Collection", "stac_version": "1.0.0", "id": "s2",
                  "links": [{"rel": "items", "href": "x"}]}  # fmt: skip
    page = {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": "x"}]}
    with answering(lambda path, _: collection if path == "/collections/s2" else page) as address:
        with pytest.raises(SettingsError, match=r"is a collection of a STAC API[\s\S]*`collections: \[s2\]`"):
            ids(make_sensor(), tmp_path, href=f"{address}/collections/s2")
        with pytest.raises(SettingsError, match="is one page of a search"):
            ids(make_sensor(), tmp_path, href=f"{address}/search?collections=s2")


@pytest.mark.skipif(not has_rustac(), reason="rustac is not installed")
def test_a_real_api_that_ignores_conditions(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    """``rustac serve`` in memory answers a search for one place and time with everything."""
    sensor = make_sensor()
    with rustac(items, tmp_path) as address:
        everything = {"href": address, "collections": ("odd", "even")}
        assert ids(sensor, tmp_path, **everything)[:3] == ["s1", "s2", "s3"]
        assert ids(sensor, tmp_path, href=address, collections=["odd"]) == ["s1", "s3"]
        assert ids(sensor, tmp_path, **everything, bbox=(2.5, 0, 3.5, 1)) == ["s2", "s3"]
        assert ids(sensor, tmp_path, **everything, start="2020-02-01", end="2020-03-01") == ["s2", "s3"]
        assert ids(sensor, tmp_path, **everything, max_cloud=15) == ["s1"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"id": "x", "type": "Nothing"}'])
def test_what_is_no_stac_is_explained(tmp_path: Path, make_sensor: Callable[..., Sensor], content: Any) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(SettingsError, match=r"a\.json cannot be read as STAC"):
        ids(make_sensor(), tmp_path, href="a.json")
