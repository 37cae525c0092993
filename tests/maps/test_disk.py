"""A disk that fills while a map is published: the last good one stays, and clear words are said."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from geossl.errors import StoreError
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.settings import MapSettings

SETTINGS = MapSettings(overlap=8, minimum_ha=0.05)


@pytest.mark.slow
def test_a_full_disk_at_any_point_leaves_the_last_good_map(collection, new_task, small_disk, fill):
    task = new_task()
    for image in collection.images.values():  # every pixel its own patch: files of a few hundred kB
        image[:] = np.random.default_rng(0).integers(-4000, 4000, image.shape)
    steps = dict.fromkeys(collection.tile_ids, (0,))

    def publish():
        report = predict_map(task, collection, steps, tiles_folder(small_disk, "landcover"), settings=SETTINGS)
        return publish_map(
            report, small_disk, "landcover", legend=task.legend, grid=collection.grid, encoder=None, settings=settings
        )

    settings = SETTINGS
    good = publish()
    home = small_disk / "landcover"
    before = {path: path.read_bytes() for path in good.folder.iterdir()}
    needed = sum(map(len, before.values()))
    settings = SETTINGS.model_copy(update={"simplify": 0.0})
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        filling = fill(leave=int(share * needed))
        with pytest.raises(StoreError, match=r"is full(.|\n)*run the same command again"):
            publish()
        filling.unlink()
        assert (home / "latest").resolve() == good.folder
        assert {path: path.read_bytes() for path in good.folder.iterdir()} == before
        assert [path.name for path in (home / "releases").iterdir()] == [good.id]
    newest = publish()
    assert newest.id != good.id
    assert (home / "latest").resolve() == newest.folder
    with rasterio.open(newest.classes) as now, rasterio.open(good.classes) as then:
        np.testing.assert_array_equal(now.read(1), then.read(1))
    item = json.loads(newest.item.read_text())
    assert len(gpd.read_file(newest.polygons)) == item["properties"]["geossl:polygons"]
