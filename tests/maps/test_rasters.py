"""Rasters, pictures and styles, read back with other people's code."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.windows import from_bounds
from rio_cogeo import cog_validate

from geossl.errors import GeosslError
from geossl.legend import CHANGE, LandClass, Legend
from geossl.maps.cog import Extent, write_classes, write_confidence
from geossl.maps.predict import predict_map
from geossl.maps.quicklook import render, write_quicklook
from geossl.maps.settings import MapSettings
from geossl.maps.style import polygon_style, raster_style
from geossl.maps.tiles import TileFolder


@pytest.fixture(scope="module")
def predicted(new_collection, new_task, tmp_path_factory):
    """3 × 3 tiles, of which the first is cloudy but for a corner, one is missing and one is empty."""
    collection = new_collection(3, 3)
    collection.flags["x-1y-1"][:, :200, :] = 2
    collection.flags["x1y1"][:] = 1
    folder = tmp_path_factory.mktemp("tiles")
    steps = {tile_id: (0,) for tile_id in collection.tile_ids if tile_id != "x1y0"}
    report = predict_map(new_task(), collection, steps, folder, settings=MapSettings(overlap=8))
    return collection.grid, new_task().legend, TileFolder(folder), report.records


def test_class_raster_is_a_valid_cog_that_holds_every_tile(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    extent = write_classes(tmp_path / "map.tif", tiles, records, grid, legend)
    valid, errors, warnings = cog_validate(tmp_path / "map.tif", strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert (raster.dtypes, raster.nodata, raster.count) == (("uint8",), 255, 1)
        assert raster.crs.to_epsg() == 32722
        assert raster.shape == extent.shape == (768, 768)
        assert raster.bounds == pytest.approx(extent.bounds)
        assert raster.overviews(1) == [2]
        structure = raster.tags(ns="IMAGE_STRUCTURE")
        assert (structure["LAYOUT"], structure["OVERVIEW_RESAMPLING"]) == ("COG", "MODE")
        palette = raster.colormap(1)
        for land in legend:
            assert palette[land.code] == (*land.rgb, 255)
        assert palette[255][3] == 0
        for record in records:
            tile = grid.tile(record.tile)
            here = raster.read(1, window=from_bounds(*tile.bounds, raster.transform).round_offsets().round_lengths())
            np.testing.assert_array_equal(here, tiles.read(record.tile)[0])
        np.testing.assert_array_equal(raster.read(1)[256:512, 512:], 255)
        overview = raster.read(1, out_shape=(384, 384))
        assert set(np.unique(overview)) <= {1, 2, 7, 255}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_statistics_and_overviews_are_those_of_the_pixels(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    write_classes(tmp_path / "map.tif", tiles, records, grid, legend)
    write_confidence(tmp_path / "confidence.tif", tiles, records, grid)
    for name in ("map", "confidence"):
        with rasterio.open(tmp_path / f"{name}.tif") as raster:
            pixels, known = raster.read(1), raster.read(1) != 255
            said = {key: float(value) for key, value in raster.tags(1).items() if key.startswith("STATISTICS")}
            values = pixels[known]
            assert said["STATISTICS_MINIMUM"] == values.min()
            assert said["STATISTICS_MAXIMUM"] == values.max()
            assert said["STATISTICS_MEAN"] == pytest.approx(values.mean())
            assert said["STATISTICS_STDDEV"] == pytest.approx(values.std())
            assert said["STATISTICS_VALID_PERCENT"] == pytest.approx(100 * known.mean(), abs=0.01)
            overview = raster.read(1, out_shape=(384, 384))
        blocks = pixels.reshape(384, 2, 384, 2).transpose(0, 2, 1, 3).reshape(384, 384, 4)
        whole = (blocks != 255).all(axis=2)
        assert whole.sum() > 10_000
        if name == "confidence":
            away = np.abs(overview[whole] - blocks[whole].mean(axis=1))
            assert away.max() <= 0.5
        else:
            ordered = np.sort(blocks, axis=2)
            most = whole & (ordered[..., 0] == ordered[..., 2]) | whole & (ordered[..., 1] == ordered[..., 3])
            np.testing.assert_array_equal(overview[most], ordered[..., 1][most])


def test_class_names_are_categories(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    write_classes(tmp_path / "map.tif", tiles, records, grid, legend)
    # a virtual raster repeats in XML what GDAL understood of its source
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "map.vrt", driver="VRT")
    categories = [entry.text or "" for entry in ET.parse(tmp_path / "map.vrt").iter("Category")]
    assert categories == ["", "water", "pasture", "", "", "", "", "forest"]


def test_extent_is_cropped_to_the_data(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    some = [record for record in records if record.tile in ("x-1y-1", "x1y1")]
    extent = write_classes(tmp_path / "map.tif", tiles, some, grid, legend)
    assert extent.shape == (56, 256)
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert raster.transform @ (0, 0) == (500_000 - 2560, 9_500_000 + 560)
        np.testing.assert_array_equal(raster.read(1), tiles.read("x-1y-1")[0][200:])
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    empty = [record for record in records if record.tile == "x1y1"]
    with pytest.raises(GeosslError, match="none of the 1 tiles has a clear pixel"):
        Extent.of(grid, empty)


def test_confidence_reads_as_zero_to_one(predicted, tmp_path):
    grid, _, tiles, records = predicted
    write_confidence(tmp_path / "confidence.tif", tiles, records, grid)
    assert cog_validate(tmp_path / "confidence.tif", strict=True)[0]
    with rasterio.open(tmp_path / "confidence.tif") as raster:
        assert (raster.dtypes, raster.nodata, raster.scales, raster.offsets) == (("uint8",), 255, (0.01,), (0.0,))
        percent = raster.read(1, masked=True)
        assert percent.max() <= 100
        assert percent.min() >= 33
        assert raster.tags(ns="IMAGE_STRUCTURE")["OVERVIEW_RESAMPLING"] == "AVERAGE"
        tile = tiles.read("x0y0")[1]
        np.testing.assert_array_equal(percent[256:512, 256:512], tile)


def test_a_failure_leaves_the_last_good_raster(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    path = tmp_path / "map.tif"
    write_classes(path, tiles, records, grid, legend)
    before = path.read_bytes()
    with pytest.raises(rasterio.errors.RasterioIOError):
        write_classes(path, TileFolder(tmp_path / "lost"), records, grid, legend)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_render_gives_every_class_its_colour():
    codes = np.array([[0, 1], [255, 9]], np.uint8)
    rgba = render(codes, CHANGE)
    assert rgba.shape == (2, 2, 4)
    assert rgba[0, 1].tolist() == [0xD7, 0x19, 0x1C, 255]
    assert rgba[1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_quicklook_is_small_and_in_the_legends_colours(predicted, tmp_path):
    grid, legend, tiles, records = predicted
    write_classes(tmp_path / "map.tif", tiles, records, grid, legend)
    write_quicklook(tmp_path / "map.png", tmp_path / "map.tif", legend, side=100)
    with Image.open(tmp_path / "map.png") as image:
        assert image.size == (100, 100)
        colours = {colour for _, colour in image.getcolors()}
    assert colours == {(0, 0, 0, 0), *((*land.rgb, 255) for land in legend)}


AWKWARD = Legend((LandClass(3, "Wald & Wiese <dicht>", "#010203"), LandClass(200, 'so "genannt"', "#ffeedd")))


def test_raster_style_names_and_colours_every_class():
    text = raster_style(AWKWARD)
    assert text.startswith("<!DOCTYPE qgis")
    renderer = ET.fromstring(text).find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.attrib["type"] == "paletted"
    entries = [entry.attrib for entry in renderer.iterfind("colorPalette/paletteEntry")]
    assert [(entry["value"], entry["label"], entry["color"]) for entry in entries] == [
        ("3", "Wald & Wiese <dicht>", "#010203"),
        ("200", 'so "genannt"', "#ffeedd"),
    ]


def test_polygon_style_has_a_symbol_for_every_category():
    renderer = ET.fromstring(polygon_style(AWKWARD)).find("renderer-v2")
    assert renderer is not None
    assert renderer.attrib["attr"] == "class_code"
    symbols = {symbol.attrib["name"]: symbol for symbol in renderer.iterfind("symbols/symbol")}
    found = {}
    for category in renderer.iterfind("categories/category"):
        option = symbols[category.attrib["symbol"]].find("layer/Option/Option[@name='color']")
        assert option is not None
        found[category.attrib["value"]] = (category.attrib["label"], option.attrib["value"])
    assert found == {"3": ("Wald & Wiese <dicht>", "1,2,3,255"), "200": ('so "genannt"', "255,238,221,255")}
    only = ET.fromstring(polygon_style(CHANGE, codes=[1]))
    assert [category.attrib["label"] for category in only.iter("category")] == ["clearing"]
