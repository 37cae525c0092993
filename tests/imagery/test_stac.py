from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest

from geossl.bands import Sensor
from geossl.errors import SettingsError
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.stac import StacSettings


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
    found = open_source(StacSettings(**settings), base).scenes(sensor)
    return [entry.id if isinstance(entry, Scene) else f"not {entry.source.rpartition('/')[2]}" for entry in found]


def test_a_static_catalog(catalog: Path, make_sensor: Callable[..., Sensor]) -> None:
    sensor, base = make_sensor(), catalog.parent
    assert ids(sensor, base, href="catalog.json") == ["s1", "s2", "s3", "not s4.json"]
    assert ids(sensor, base, href="catalog.json", collections=["odd"]) == ["s1", "s3"]
    assert ids(sensor, base, href="catalog.json", bbox=(2.5, 0, 3.5, 1)) == ["s2", "s3"]
    assert ids(sensor, base, href="catalog.json", max_cloud=20) == ["s1", "s2"]
    assert ids(sensor, base, href="catalog.json", start="2020-02-01", end="2020-03-01T00:00:00Z") == ["s2", "s3"]
    assert ids(sensor, base, href="even/collection.json", end="2020-02-02") == ["s2"]
    first, *_, last = open_source(StacSettings(href="catalog.json"), base).scenes(sensor)
    assert isinstance(first, Scene)
    assert Path(first.bands["B1"].href).is_absolute()
    assert isinstance(last, Rejected)
    assert last.reason == "s4: no asset holds band B1; there are x"


def test_one_item_and_an_item_collection(
    tmp_path: Path, items: list[pystac.Item], make_sensor: Callable[..., Sensor]
) -> None:
    (tmp_path / "one.json").write_text(json.dumps(items[1].to_dict()))
    assert ids(make_sensor(), tmp_path, href="one.json") == ["s2"]
    items[1].assets["B1"].href = (tmp_path / "with space.tif").as_uri()
    pystac.ItemCollection(items).save_object(str(tmp_path / "all.json"))
    found = list(open_source(StacSettings(href=str(tmp_path / "all.json")), tmp_path).scenes(make_sensor()))
    assert isinstance(found[1], Scene)
    assert found[1].bands["B1"].href == str(tmp_path / "with space.tif")


@pytest.fixture
def api(items: list[pystac.Item]) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Address of a STAC API that answers searches by collection only, and the searches it was asked for."""
    searches: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, said: object) -> None:
            content = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/geo+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            links = [
                {"rel": rel, "href": f"{address}{path}"}
                for rel, path in (("root", ""), ("self", ""), ("search", "/search"))
            ]
            for link in links[2:]:
                link |= {"method": "POST", "type": "application/geo+json"}
            classes = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")]
            self.answer({"type": "Catalog", "id": "api", "description": "a", "stac_version": "1.0.0",
                         "conformsTo": classes, "links": links})  # fmt: skip

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            searches.append(asked)
            found = [item.to_dict() for item in items if item.collection_id in asked["collections"]]
            self.answer({"type": "FeatureCollection", "features": found, "links": []})

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield address, searches
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_api_is_searched(
    api: tuple[str, list[dict[str, object]]], tmp_path: Path, make_sensor: Callable[..., Sensor]
) -> None:
    address, searches = api
    settings = {"href": address, "collections": ["odd"], "bbox": (0, 0, 2, 1), "start": "2020-01-01"}
    assert ids(make_sensor(), tmp_path, **settings) == ["s1"]
    assert searches[0]["collections"] == ["odd"]
    assert searches[0]["bbox"] == [0, 0, 2, 1]
    assert searches[0]["datetime"] == "2020-01-01T00:00:00Z/.."
    with pytest.raises(SettingsError, match="name the `collections` to search"):
        ids(make_sensor(), tmp_path, href=address)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"id": "x", "type": "Nothing"}'])
def test_what_is_no_stac_is_explained(tmp_path: Path, make_sensor: Callable[..., Sensor], content: Any) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(SettingsError, match=r"a\.json cannot be read as STAC"):
        ids(make_sensor(), tmp_path, href="a.json")
