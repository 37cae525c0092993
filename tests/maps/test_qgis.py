"""The QGIS project: by its XML, and (slow) by QGIS itself, GDAL's and QGIS's own command-line tools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from rio_cogeo import cog_validate

from geossl.legend import CHANGE
from geossl.maps.picture import BACKGROUND, caption, write_picture
from geossl.maps.predict import predict_map
from geossl.maps.publish import Release, publish_map, tiles_folder
from geossl.maps.qgis import PROJECT, write_project
from geossl.maps.settings import MapSettings

PYTHON = "/usr/bin/python3"
"""Debian's, which has PyQGIS."""

SETTINGS = MapSettings(overlap=8, minimum_ha=0.2)


@pytest.fixture(scope="module")
def maps(new_collection, new_task, tmp_path_factory) -> tuple[Path, dict[str, Release]]:
    """A land-cover map and one of change, over a background."""
    root = tmp_path_factory.mktemp("maps")
    collection = new_collection(3, 2, steps=2)
    collection.flags["x-1y-1"][:, :60] = 2
    picture = np.full((300, 300, 3), (40, 90, 140), np.uint8)
    seen = np.ones((300, 300), np.bool_)
    seen[:20] = False
    write_picture(root / BACKGROUND, picture, seen, collection.grid, (-300, -300), 2, "Imagery of 2021-03-01")
    releases = {}
    for name, task, steps, codes in (
        ("landcover", new_task(), (0,), None),
        ("clearings", new_task(dates=2, legend=CHANGE, id="change-1"), (0, 1), [1]),
    ):
        steps = dict.fromkeys(collection.tile_ids, steps)
        report = predict_map(task, collection, steps, tiles_folder(root, name), settings=SETTINGS)
        releases[name] = publish_map(
            report,
            root,
            name,
            legend=task.legend,
            grid=collection.grid,
            encoder="encoder-1",
            settings=SETTINGS,
            polygon_codes=codes,
        )
    return root, releases


def test_a_picture_is_colour_with_transparency_and_gdal_has_nothing_to_say(new_collection, tmp_path, caplog):
    picture = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    seen = np.ones((40, 30), np.bool_)
    seen[:5] = False
    write_picture(tmp_path / BACKGROUND, picture, seen, new_collection(1, 1).grid, (-300, -300), 2, "2021")
    assert not [record for record in caplog.records if record.name.startswith("rasterio")]
    with rasterio.open(tmp_path / BACKGROUND) as raster:
        assert [each.name for each in raster.colorinterp] == ["red", "green", "blue", "alpha"]
        np.testing.assert_array_equal(raster.read(), np.stack([*np.moveaxis(picture, -1, 0), 255 * seen]))


def document(root: Path) -> ET.Element:
    with zipfile.ZipFile(root / PROJECT) as archive:
        assert archive.namelist() == ["maps.qgs"]
        return ET.fromstring(archive.read("maps.qgs"))


def test_every_layer_is_a_file_by_a_relative_path(maps, tmp_path):
    root, _ = maps
    content = document(root)
    sources = {layer.findtext("id"): layer.findtext("datasource") for layer in content.iter("maplayer")}
    assert set(sources) == {
        "clearings_polygons", "clearings_change_date", "clearings_map", "clearings_confidence",
        "landcover_polygons", "landcover_map", "landcover_confidence", "imagery_background",
    }  # fmt: skip
    for source in sources.values():
        assert source is not None
        assert source.startswith("./")
        assert (root / source.partition("|")[0]).is_file()
    assert str(root) not in ET.tostring(content, encoding="unicode")
    assert content.findtext("properties/Paths/Absolute") == "false"
    nodes = {node.attrib["id"]: node.attrib["checked"] for node in content.iter("layer-tree-layer")}
    assert {key for key, checked in nodes.items() if checked == "Qt::Checked"} == {
        "clearings_polygons",
        "landcover_map",
        "imagery_background",
    }


def test_the_same_maps_make_the_same_project_and_none_an_empty_one(maps, tmp_path):
    root, _ = maps
    before = (root / PROJECT).read_bytes()
    write_project(root)
    assert (root / PROJECT).read_bytes() == before
    write_project(tmp_path)
    assert not list(document(tmp_path).iter("maplayer"))


def test_a_release_of_an_earlier_version_takes_part(maps, tmp_path):
    shutil.copytree(maps[0], tmp_path / "maps", symlinks=True)
    latest = (tmp_path / "maps" / "landcover" / "latest").resolve()
    item = json.loads((latest / f"{latest.name}.json").read_text())
    (latest / "landcover-confidence.qml").unlink()
    del item["assets"]["confidence-style"]
    (latest / f"{latest.name}.json").write_text(json.dumps(item))
    write_project(tmp_path / "maps")
    assert {layer.findtext("id") for layer in document(tmp_path / "maps").iter("maplayer")} >= {"landcover_confidence"}


def test_a_background_lies_where_its_grid_says(maps):
    root, _ = maps
    assert cog_validate(root / BACKGROUND)[0]
    assert caption(root / BACKGROUND) == "Imagery of 2021-03-01"
    with rasterio.open(root / BACKGROUND) as raster:
        assert raster.crs.to_epsg() == 32722
        assert raster.bounds == pytest.approx((497_000, 9_497_000, 503_000, 9_503_000))
        assert raster.read(4)[:20].max() == 0
        assert raster.read((1, 2, 3))[:, 50, 50].tolist() == [40, 90, 140]


def test_a_change_map_says_between_which_days(maps):
    _, releases = maps
    release = releases["clearings"]
    assert cog_validate(release.dates, strict=True)[0]
    with rasterio.open(release.dates) as raster, rasterio.open(release.classes) as classes:
        assert (raster.dtypes, raster.nodata, raster.descriptions) == (
            ("int32", "int32"),
            0,
            ("date_from", "date_to"),
        )
        changed = classes.read(1) == 1
        first, last = raster.read()
        assert 0 < changed.sum() < changed.size
        np.testing.assert_array_equal(first, np.where(changed, 20200301, 0))
        np.testing.assert_array_equal(last, np.where(changed, 20210301, 0))
        assert raster.tags(2)["STATISTICS_MAXIMUM"] == "20210301"
        assert raster.tags(ns="IMAGE_STRUCTURE")["OVERVIEW_RESAMPLING"] == "MODE"
    assert not releases["landcover"].dates.exists()


def tool(*command: str) -> str:
    """What a program prints, without a screen."""
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def has_qgis() -> bool:
    return (
        Path(PYTHON).exists()
        and not subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, check=False).returncode
    )


@pytest.fixture(scope="module")
def in_qgis(maps, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """What PyQGIS makes of the project after it was moved, and its picture."""
    if not has_qgis():
        pytest.skip("PyQGIS is not installed (Debian: qgis python3-qgis)")
    folder = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(maps[0], folder, symlinks=True)
    picture = folder.parent / "qgis.png"
    script = Path(__file__).with_name("qgis_reader.py")
    return json.loads(tool(PYTHON, str(script), str(folder / PROJECT), str(picture))), picture


@pytest.mark.slow
def test_qgis_reads_classes_colours_and_attributes_back(in_qgis, new_task):
    found, _ = in_qgis
    assert found["opened"]
    assert (found["title"], found["crs"]) == ("Maps made by geossl", "EPSG:32722")
    assert found["extent"] == [497_440, 9_497_440, 505_120, 9_502_560]
    layers = found["layers"]
    assert len(layers) == 8
    for layer in layers.values():
        assert layer["valid"], layer
        assert layer["crs"] == "EPSG:32722"
        assert "/elsewhere/" in layer["source"]
    legend = [[land.code, land.name, land.color] for land in new_task().legend]
    assert layers["landcover_map"]["classes"] == legend
    assert layers["landcover_polygons"]["classes"] == [[str(code), name, color] for code, name, color in legend]
    assert layers["clearings_map"]["classes"] == [[land.code, land.name, land.color] for land in CHANGE]
    assert layers["clearings_polygons"]["classes"] == [["1", "clearing", "#d7191c"]]
    assert layers["clearings_change_date"]["classes"] == [[20210301, "by 2021-03-01", "#440154"]]
    assert layers["clearings_change_date"]["band"] == 2
    confidence = layers["landcover_confidence"]
    assert [value for value, *_ in confidence["classes"]] == [0, 0.25, 0.5, 0.75, 1]
    assert 1 / 3 < confidence["centre"] <= 1
    polygons = layers["clearings_polygons"]
    assert [name for name, _ in polygons["fields"]] == [
        "fid", "class_code", "class_name", "area_ha", "confidence", "date_from", "date_to",
    ]  # fmt: skip
    assert polygons["feature"][1:3] == [1, "clearing"]
    assert polygons["feature"][5:] == ["2020-03-01", "2021-03-01"]
    groups = [(group["name"], [layer["name"] for layer in group["children"]]) for group in found["tree"]]
    assert groups == [
        ("Clearing, 2020-03-01 to 2021-03-01", ["Polygons", "Date of change", "Class", "Confidence"]),
        ("landcover, 2020-03-01 to 2020-03-01", ["Polygons", "Class", "Confidence"]),
        ("Imagery of 2021-03-01", []),
    ]


@pytest.mark.slow
def test_qgis_draws_map_and_legend_in_the_legends_colours(in_qgis, new_task):
    found, path = in_qgis
    assert found["drawn"]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    shown, legend = pixels[:900, :900], pixels[:, 920:]
    for land in new_task().legend:
        assert (shown == land.rgb).all(axis=2).sum() > 100, f"{land.name} on the map"
        assert (legend == land.rgb).all(axis=2).sum() > 50, f"{land.name} in the legend"
    assert (shown == (40, 90, 140)).all(axis=2).sum() > 1000, "the background where clouds were"


@pytest.mark.slow
def test_gdal_and_qgis_tools_read_every_file(maps):
    if not (shutil.which("gdalinfo") and shutil.which("ogrinfo")):
        pytest.skip("GDAL's tools are not installed (Debian: gdal-bin)")
    _, releases = maps
    for release in releases.values():
        info = json.loads(tool("gdalinfo", "-json", str(release.classes)))
        (band,) = info["bands"]
        assert band["overviews"]
        assert band["colorInterpretation"] == "Palette"
        assert "STATISTICS_MEAN" in band["metadata"][""]
        names = tool("gdalinfo", str(release.classes))
        assert "Categories:" in names
        assert ("clearing" if release.name == "clearings" else "pasture") in names
        (band,) = json.loads(tool("gdalinfo", "-json", str(release.confidence)))["bands"]
        assert band["scale"] == 0.01
        assert band["overviews"]
        layer = tool("ogrinfo", "-so", str(release.polygons), "polygons")
        assert "Geometry: Polygon" in layer
        for field in ("class_name: String", "area_ha: Real", "date_from: Date"):
            assert field in layer
        assert "Warning" not in layer


@pytest.mark.slow
def test_qgis_process_counts_as_we_do(maps):
    # the script that Debian 12 puts around the program gives it an option that it does not know
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed (Debian: qgis)")
    release = maps[1]["landcover"]

    def run(algorithm: str, **parameters: object) -> dict[str, Any]:
        given = [f"{key}={value}" for key, value in parameters.items()]
        return json.loads(tool(program, "run", algorithm, "--json", "--", *given))["results"]

    polygons = gpd.read_file(release.polygons)
    found = run(
        "qgis:basicstatisticsforfields", INPUT_LAYER=f"{release.polygons}|layername=polygons", FIELD_NAME="area_ha"
    )
    assert found["COUNT"] == len(polygons)
    assert found["SUM"] == pytest.approx(polygons.area_ha.sum())
    found = run("native:rasterlayeruniquevaluesreport", INPUT=release.classes, BAND=1)
    with rasterio.open(release.classes) as raster:
        assert found["NODATA_PIXEL_COUNT"] == (raster.read(1) == 255).sum() > 0
