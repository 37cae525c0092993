"""The catalogue against the schemas of STAC and of every extension that it declares, kept in this folder."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import pyproj
import pystac
import pytest
import torch
from pystac.errors import STACValidationError
from pystac.extensions.mlm import MLMExtension
from pystac.validation.stac_validator import GetSchemaError, JsonSchemaSTACValidator

from geossl.downstream.networks import ChangeNetwork, LandcoverNetwork
from geossl.downstream.task import TaskCard, TrainedTask, save_task
from geossl.grid import Grid
from geossl.legend import CHANGE
from geossl.maps.alerts.publish import publish_alerts
from geossl.maps.alerts.rule import DETECTED, NEVER, NONE
from geossl.maps.alerts.tiles import BANDS, AlertTiles
from geossl.maps.models import describe_model
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.qgis import PROJECT
from geossl.maps.settings import MapSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

SETTINGS = MapSettings(overlap=8, minimum_ha=0.2, keep=2)
SCHEMAS = Path(__file__).with_name("schemas")


class Local(JsonSchemaSTACValidator):
    """Knows the schemas of this folder, and fetches none."""

    def __init__(self) -> None:
        super().__init__()
        self.schema_cache = dict(self.schema_cache)
        for path in SCHEMAS.glob("*.json"):
            name, version = path.stem.rsplit("-", 1)
            address = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
            self.schema_cache[address] = json.loads(path.read_text(encoding="utf-8"))
        shipped = Path(pyproj.datadir.get_data_dir()) / "projjson.schema.json"
        content = json.loads(shipped.read_text(encoding="utf-8"))
        self.schema_cache[content["$id"]] = content

    def _get_schema(self, schema_uri: str):
        if schema_uri.rstrip("#") not in self.schema_cache:
            raise GetSchemaError(schema_uri, LookupError("no such schema in tests/maps/schemas"))
        return self.schema_cache[schema_uri.rstrip("#")]


@pytest.fixture(scope="module")
def validator() -> Local:
    return Local()


def validate(validator: Local, path: Path) -> list[str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return pystac.validation.validate_dict(content, validator=validator)


def a_task(toy, kind: str, seed: int = 0) -> TrainedTask:
    """An untrained network under a complete card."""
    torch.manual_seed(seed)
    architecture = EncoderSettings(name="unet-tiny")
    encoder = build_encoder(architecture, len(toy.sensor.bands))
    legend = CHANGE if kind == "change" else toy.legend
    network = ChangeNetwork(encoder, 2) if kind == "change" else LandcoverNetwork(encoder, len(legend))
    statistics = dataclasses.replace(toy.statistics, mean=(0.0, 100.0), std=(1000.0, 0.0))
    card = TaskCard(
        kind, legend, toy.sensor, statistics, architecture, "dense", "encoder", "simclr-unet-tiny-1",
        {"water": 10}, "SNAPSHOT0", {"epochs": 3}, 0.7, created="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    task = TrainedTask.create(card, network)
    task.window, task.margin = 64, 8
    return task


@pytest.fixture
def publish(new_collection, new_task, tmp_path):
    """Publishes a map and the network that is said to have made it, below ``tmp_path / maps``."""

    def run(kind: str, seed: int = 0, grid: Grid | None = None):
        collection = new_collection(1, 1, steps=2)
        if grid is not None:
            collection.grid = grid
        task = a_task(new_task(), kind, seed)
        maker = new_task(id=task.id, legend=task.legend, dates=task.dates)
        root = tmp_path / "maps"
        steps = dict.fromkeys(collection.tile_ids, (0, 1) if kind == "change" else (0,))
        save_task(tmp_path / "tasks" / kind / task.id, task)
        report = predict_map(maker, collection, steps, tiles_folder(root, kind), settings=SETTINGS)
        model = describe_model(task, f"../../../tasks/{kind}/{task.id}/model.safetensors")
        return publish_map(
            report, root, kind, legend=task.legend, grid=collection.grid, encoder=task.card.encoder, settings=SETTINGS,
            polygon_codes=[1] if kind == "change" else None, model=model,
        ), task  # fmt: skip

    return run


def test_everything_declared_is_valid(publish, validator, tmp_path):
    for kind in ("landcover", "change"):
        publish(kind)
    paths = [path for path in (tmp_path / "maps").rglob("*.json") if "tiles" not in path.parts]
    checked = {path: validate(validator, path) for path in paths if not path.name.endswith("-lineage.json")}
    assert len(checked) == 1 + 2 * (2 + 2)
    extensions = {uri.split("/")[3] for uris in checked.values() for uri in uris if "stac-extensions" in uri}
    assert extensions == {"classification", "file", "mlm", "processing", "projection", "raster"}


def test_a_grid_without_a_number_is_valid_too(publish, validator):
    wkt = pyproj.CRS("+proj=laea +lat_0=-5 +lon_0=-51 +datum=WGS84").to_wkt()
    release, _ = publish("landcover", grid=Grid(wkt, 10, 256, (0, 0)))
    assert "proj:projjson" in json.loads(release.item.read_text())["properties"]
    assert validate(validator, release.item)


def test_the_schemas_do_refuse(publish, validator):
    release, task = publish("landcover")
    item = json.loads(release.item.read_text())
    item["assets"]["map"]["classification:classes"][0]["value"] = "one"
    with pytest.raises(STACValidationError):
        pystac.validation.validate_dict(item, validator=validator)
    model = json.loads((release.folder.parents[1] / "models" / f"{task.id}.json").read_text())
    del model["properties"]["mlm:architecture"]
    with pytest.raises(STACValidationError):
        pystac.validation.validate_dict(model, validator=validator)


def test_a_map_leads_to_its_model_and_the_model_to_its_weights(publish, tmp_path):
    release, task = publish("change")
    (link,) = pystac.Item.from_file(release.item).get_links("derived_from")
    model = link.resolve_stac_object().target
    assert isinstance(model, pystac.Item)
    assert model.id == task.id
    weights = Path(model.assets["model"].get_absolute_href())
    assert weights.is_file()
    described = MLMExtension.ext(model)
    assert (described.mlm_name, described.architecture) == (task.id, "unet-tiny")
    (given,) = described.input
    assert given.input.shape == [-1, 2, 2, 64, 64]
    assert given.input.dim_order == ["batch", "time", "bands", "height", "width"]
    # a band without spread is divided by 1, as the network does
    scaling = model.properties["mlm:input"][0]["value_scaling"]
    assert [(each["mean"], each["stddev"]) for each in scaling] == [(0, 1000), (100, 1)]
    assert described.total_parameters == sum(weights.numel() for weights in task.network.state_dict().values())
    assert model.properties["geossl:snapshot"] == "SNAPSHOT0"
    catalog = pystac.Catalog.from_file(tmp_path / "maps" / "catalog.json")
    assert [item.id for item in catalog.get_items(recursive=True)] == [release.id, task.id]


def test_alerts_are_in_the_catalogue_and_the_project(publish, validator, tmp_path):
    publish("landcover")
    root, folder = tmp_path / "maps", tmp_path / "alerts" / "landcover"  # called as a map is
    grid, store = Grid("EPSG:32722", 10, 256, (500_000, 9_500_000)), AlertTiles(folder / "tiles")
    ids = []
    for until in (3010, 3020, 3030):
        bands = {name: np.full((256, 256), {"status": NONE, "percent": 0}.get(name, NEVER), np.int16) for name in BANDS}
        for name, value in {"status": DETECTED, "percent": 90, "first": 3000, "raised": 3000}.items():
            bands[name][20 : until - 2980, 20:40] = value
        store.write(grid.tile("x0y0"), bands, {"until": until})
        published = publish_alerts(
            store, grid, ["x0y0"], folder, "landcover", until=until, minimum_ha=0.1, keep=2, root=root, since=2990
        )
        ids.append(published.id)
    catalog = pystac.Catalog.from_file(root / "catalog.json")
    collection = catalog.get_child("alerts-landcover")
    assert collection is not None
    assert [item.id for item in collection.get_items()] == ids[1:], "the last two, the newest last"
    assert catalog.get_child("landcover") is not None
    for path in (collection.get_self_href(), *(item.get_self_href() for item in collection.get_items())):
        validate(validator, Path(path))
    newest = list(collection.get_items())[-1]
    assert newest.properties["geossl:alerts"] == 1
    assert newest.properties["geossl:hectares"] == pytest.approx(6, rel=0.01)  # 30 by 20 pixels of 10 m
    assert newest.properties["end_datetime"].startswith("2023-04-18")
    for asset in newest.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    assert "file:checksum" not in newest.assets["alerts"].extra_fields, "people write into it"
    with zipfile.ZipFile(root / PROJECT) as archive:
        layers = {each.findtext("id"): each for each in ET.fromstring(archive.read("maps.qgs")).iter("maplayer")}
    source = layers["alerts_landcover_alerts"].findtext("datasource")
    assert source == "../alerts/landcover/latest/landcover.gpkg|layername=alerts"
    assert "landcover_map" in layers


def test_models_go_with_the_last_release_they_made(publish, tmp_path):
    ids = [publish("landcover", seed)[1].id for seed in range(3)]
    models = tmp_path / "maps" / "landcover" / "models"
    assert {path.stem for path in models.glob("*.json")} == {"collection", *ids[1:]}
    assert {item.id for item in pystac.Collection.from_file(models / "collection.json").get_items()} == set(ids[1:])
