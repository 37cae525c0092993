"""A pixel's lineage against what was put in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from geossl.errors import GeosslError, StoreError
from geossl.maps.lineage import lineage_lines, pixel_lineage
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.settings import MapSettings

SETTINGS = MapSettings(overlap=8)


@pytest.fixture
def latest(collection, new_task, tmp_path):
    """A map of 2 × 2 tiles with windows of 64 px and margins of 8; cloudy in a corner."""
    task = new_task(window=64, margin=8)
    collection.flags["x0y0"][:, -20:, -20:] = 2
    steps = dict.fromkeys(collection.tile_ids, (0,))
    report = predict_map(task, collection, steps, tiles_folder(tmp_path, "landcover"), settings=SETTINGS)
    publish_map(
        report, tmp_path, "landcover", legend=task.legend, grid=collection.grid, encoder="encoder-1", settings=SETTINGS
    )
    return tmp_path / "landcover" / "latest"


def at(row, col):
    """Longitude and latitude of the middle of a global pixel."""
    to_degrees = Transformer.from_crs("EPSG:32722", "EPSG:4326", always_xy=True)
    return to_degrees.transform(500_000 + (col + 0.5) * 10, 9_500_000 - (row + 0.5) * 10)


def test_a_pixel_is_what_the_rasters_say_and_names_its_inputs(latest, collection):
    with rasterio.open(latest / "landcover.tif") as raster, rasterio.open(latest / "landcover-confidence.tif") as other:
        codes, percent = raster.read(1), other.read(1)
    names = {1: "water", 2: "pasture", 7: "forest"}
    for row, col in np.random.default_rng(0).integers(-256, 236, (20, 2)).tolist():
        found = pixel_lineage(latest, "landcover", *at(row, col))
        assert (found.row, found.col, found.tile) == (row, col, collection.grid[col // 256, row // 256].id)
        assert found.code == codes[row + 256, col + 256]
        assert found.name == names[found.code]
        assert found.confidence == pytest.approx(percent[row + 256, col + 256] / 100)
        assert (found.model, found.encoder, found.snapshot, found.collection) == (
            "pointwise-1",
            "encoder-1",
            "SNAPSHOT1",
            "toy",
        )
        assert [(source.tile, source.scene) for source in found.sources] == [(found.tile, "scene-0")]
        # the windows saw the pixel, and nothing farther than a window away
        top, bottom, left, right = found.reach
        assert row - 64 < top <= row < bottom <= row + 64
        assert col - 64 < left <= col < right <= col + 64


def test_neighbouring_tiles_count_only_within_the_reach_of_the_windows(latest, collection, new_task, tmp_path):
    inside = pixel_lineage(latest, "landcover", *at(128, 128))
    assert inside.neighbours == ()
    corner = pixel_lineage(latest, "landcover", *at(0, 0))
    assert {source.tile for source in corner.neighbours} == {"x-1y-1", "x0y-1", "x-1y0"}
    edge = pixel_lineage(latest, "landcover", *at(0, 128))
    assert {source.tile for source in edge.neighbours} == {"x0y-1"}
    assert {1, 2, 4} >= {inside.windows, corner.windows, edge.windows}


def test_a_pixel_without_data_says_so_and_a_point_elsewhere_is_refused(latest):
    blank = pixel_lineage(latest, "landcover", *at(250, 250))
    assert (blank.code, blank.name, blank.confidence) == (None, None, None)
    assert "no data" in lineage_lines(blank)[1]
    with pytest.raises(GeosslError, match=r"not on the map landcover: it would be on tile x1y0.*x-1y-1"):
        pixel_lineage(latest, "landcover", *at(10, 300))
    with pytest.raises(GeosslError, match=r"not on the map|outside"):
        pixel_lineage(latest, "landcover", 120.0, 50.0)
    with pytest.raises(StoreError, match="geossl map"):
        pixel_lineage(latest, "forest", *at(0, 0))


def test_lines_and_json_say_the_same(latest):
    found = pixel_lineage(latest, "landcover", *at(0, 0))
    text = "\n".join(lineage_lines(found, [["S2A_1", "S2A_2"]]))
    for part in ("pointwise-1", "encoder-1", "SNAPSHOT1", "scene-0, 2020-03-01", "made from S2A_2", "(tile x-1y-1)"):
        assert part in text
    content = json.loads(json.dumps(found.to_dict()))
    assert content["sources"][0]["scene"] == "scene-0"
    assert len(content["neighbours"]) == 3
