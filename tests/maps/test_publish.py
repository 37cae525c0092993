"""A published map is whole, says where it comes from, and is replaced in one move."""

from __future__ import annotations

import hashlib
import json
import shutil

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation import validate_dict
from rio_cogeo import cog_validate
from shapely.geometry import box, shape

from geossl.errors import GeosslError, StoreError
from geossl.maps import publish
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.settings import MapSettings

SETTINGS = MapSettings(overlap=8, minimum_ha=0.2, keep=2)


@pytest.fixture
def make(collection, new_task, tmp_path):
    """Predicts and publishes ``landcover`` below ``tmp_path / maps``."""
    task = new_task()

    def run(name="landcover", **options):
        root = tmp_path / "maps"
        steps = dict.fromkeys(collection.tile_ids, (0,))
        report = predict_map(task, collection, steps, tiles_folder(root, name), settings=SETTINGS)
        options = {"encoder": "encoder-1", "settings": SETTINGS} | options
        return publish_map(report, root, name, legend=task.legend, grid=collection.grid, **options)

    return run


def change(collection, number):
    """New pixels on one tile."""
    collection.images["x0y0"] = np.roll(collection.images["x0y0"], 40 * number, axis=2)
    collection.revised["x0y0"] = number


def test_release_holds_every_file_and_the_catalogue_leads_to_it(make, tmp_path):
    release = make()
    assert release.fresh
    catalog = pystac.Catalog.from_file(tmp_path / "maps" / "catalog.json")
    (collection,) = catalog.get_children()
    (item,) = collection.get_items()
    assert (catalog.id, collection.id, item.id) == ("maps", "landcover", release.id)
    assert item.get_root().id == "maps"
    assert item.get_collection().id == "landcover"
    published = {path.name for path in release.folder.iterdir()} - {f"{release.id}.json"}
    assert {asset.href.removeprefix("./") for asset in item.assets.values()} == published
    for asset in item.assets.values():
        content = (release.folder / asset.href).read_bytes()
        assert asset.extra_fields["file:size"] == len(content)
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert cog_validate(release.classes, strict=True)[0]
    assert cog_validate(release.confidence, strict=True)[0]
    assert len(gpd.read_file(release.polygons)) == item.properties["geossl:polygons"] > 0
    assert (tmp_path / "maps" / "landcover" / "latest").resolve() == release.folder
    for path in (tmp_path / "maps").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), "the store can be moved"


def test_core_schemas_hold(make, tmp_path):
    release = make()
    for path in (tmp_path / "maps" / "catalog.json", tmp_path / "maps" / "landcover" / "collection.json", release.item):
        content = json.loads(path.read_text())
        # the schemas of STAC itself come with pystac; those of extensions would need the network
        validate_dict(content | {"stac_extensions": []})
        assert content["stac_version"] == "1.1.0"


def test_item_describes_the_raster(make, new_task):
    release = make()
    item = pystac.Item.from_file(release.item)
    with rasterio.open(release.classes) as raster:
        projection = ProjectionExtension.ext(item)
        assert projection.code == "EPSG:32722"
        assert projection.shape == list(raster.shape)
        assert projection.transform == list(raster.transform)[:6]
        assert projection.bbox == pytest.approx(list(raster.bounds))
        counts = np.bincount(raster.read(1).ravel(), minlength=256)
    assert shape(item.geometry).buffer(1e-9).within(box(*item.bbox).buffer(1e-6))
    assert item.bbox == pytest.approx([-51.0231, -4.5467, -50.9769, -4.5004], abs=1e-4)
    classes = ClassificationExtension.ext(item.assets["map"]).classes
    assert [(c.value, c.title, c.color_hint, c.count) for c in classes] == [
        (land.code, land.name, land.color[1:].upper(), counts[land.code]) for land in new_task().legend
    ]
    assert sum(c.percentage for c in classes) == pytest.approx(100, abs=0.01)


def test_every_pixel_can_be_traced(make, collection, tmp_path):
    collection.snapshot = "SNAPSHOT2"
    release = make()
    properties = pystac.Item.from_file(release.item).properties
    assert properties["geossl:task"] == "pointwise-1"
    assert properties["geossl:encoder"] == "encoder-1"
    assert properties["geossl:snapshots"] == ["SNAPSHOT2"]
    assert properties["geossl:scenes"] == ["scene-0"]
    assert properties["geossl:seam"]["edge"] < 1e-6
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2020-03-01T00:00:00Z",
        "2020-03-01T23:59:59Z",
    )
    lineage = json.loads((release.folder / "landcover-lineage.json").read_text())
    by_tile = {tile["tile"]: tile for tile in lineage["tiles"]}
    assert by_tile.keys() == set(collection.tile_ids)
    assert by_tile["x0y0"]["sources"][0] == {
        "tile": "x0y0",
        "scene": "scene-0",
        "revision": 0,
        "checksum": "sum-0",
        "first": "2020-03-01",
        "last": "2020-03-01",
    }


def test_nothing_new_publishes_nothing(make, collection):
    first = make()
    stamp = first.classes.stat().st_mtime_ns
    second = make()
    assert (second.id, second.fresh) == (first.id, False)
    assert second.classes.stat().st_mtime_ns == stamp
    change(collection, 1)
    third = make()
    assert third.fresh
    assert third.id != first.id
    assert make(settings=SETTINGS.model_copy(update={"minimum_ha": 1.0})).fresh


def test_the_newest_releases_stay(make, collection, tmp_path):
    ids = [make().id]
    for number in (1, 2):
        change(collection, number)
        ids.append(make().id)
    folder = tmp_path / "maps" / "landcover"
    assert sorted(path.name for path in (folder / "releases").iterdir()) == sorted(ids[1:])
    assert [item.id for item in pystac.Collection.from_file(folder / "collection.json").get_items()] == ids[1:]
    assert (folder / "latest").resolve().name == ids[-1]
    # going back to what was mapped before brings back the release that is still there
    change(collection, -2)
    collection.revised["x0y0"] = 1
    again = make()
    assert (again.id, again.fresh) == (ids[1], False)
    assert (folder / "latest").resolve().name == ids[1]


def test_a_failure_leaves_the_last_good_map(make, collection, tmp_path, monkeypatch):
    good = make()
    before = {path: path.read_bytes() for path in (tmp_path / "maps" / "landcover").glob("releases/*/*")}
    change(collection, 1)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "write_quicklook", full)
    with pytest.raises(StoreError, match="is full: the new release needs"):
        make()
    folder = tmp_path / "maps" / "landcover"
    assert (folder / "latest").resolve() == good.folder
    assert {path: path.read_bytes() for path in folder.glob("releases/*/*")} == before
    assert [path.name for path in (folder / "releases").iterdir()] == [good.id]
    (folder / "releases" / ".partial-1-killed").mkdir()
    monkeypatch.undo()
    newest = make()
    assert sorted(path.name for path in (folder / "releases").iterdir()) == sorted([good.id, newest.id])


def test_a_release_that_a_kill_kept_from_the_catalogue_does_not_stay(make, collection, tmp_path, monkeypatch):
    good = make()
    folder = tmp_path / "maps" / "landcover"
    change(collection, 1)
    pinned = []

    def pin(release):
        assert not (folder / "releases" / release).exists(), "it is kept before anybody can see it"
        pinned.append(release)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_make_newest", killed)
        with pytest.raises(KeyboardInterrupt):
            make(pin=pin)
    assert sorted(path.name for path in (folder / "releases").iterdir()) == sorted([good.id, *pinned])
    change(collection, 2)
    newest = make()
    assert sorted(path.name for path in (folder / "releases").iterdir()) == sorted([good.id, newest.id])


def test_two_maps_share_one_catalogue(make, tmp_path):
    make()
    make("forest")
    shutil.move(tmp_path / "maps", tmp_path / "moved")
    catalog = pystac.Catalog.from_file(tmp_path / "moved" / "catalog.json")
    assert [child.id for child in catalog.get_children()] == ["forest", "landcover"]
    assert len(list(catalog.get_items(recursive=True))) == 2


def test_a_map_without_data_is_refused_in_words(make, collection, tmp_path):
    for flags in collection.flags.values():
        flags[:] = 2
    with pytest.raises(GeosslError, match="none of the 4 tiles has a clear pixel"):
        make()
    assert not (tmp_path / "maps" / "catalog.json").exists()
