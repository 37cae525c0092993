from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import Polygon, box, shape

from geossl.bands import Band, Radiometry, Sensor, sensor
from geossl.errors import SceneError
from geossl.grid import Grid
from geossl.imagery.clouds import Quality
from geossl.imagery.folder import FolderSettings
from geossl.imagery.landsat import metadata_files, read_landsat
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source
from geossl.imagery.warp import check_scene, read_tile

Groups = dict[str, dict[str, Any]]
Product = Callable[..., Path]

SIDE = 256
MASKS = {"QUALITY_L1_PIXEL": "QA_PIXEL", "QUALITY_L1_RADIOMETRIC_SATURATION": "QA_RADSAT"}
L2 = {"spacecraft": "LANDSAT_8", "instrument": "OLI_TIRS", "level": "L2SP", "prefix": "LC08"}
L1 = L2 | {"level": "L1TP"}
ETM_L1 = {"spacecraft": "LANDSAT_7", "instrument": "ETM", "level": "L1TP", "prefix": "LE07"}
TM_L2 = {"spacecraft": "LANDSAT_4", "instrument": "TM", "level": "L2SP", "prefix": "LT04"}


def metadata(spacecraft: str, instrument: str, level: str, prefix: str) -> Groups:
    """What USGS writes into the metadata of a Collection 2 product, as far as it matters here."""
    product = f"{prefix}_{level}_120038_20201204_20201218_02_T1"
    surface = "SR_" if level == "L2SP" else ""
    numbers = range(1, 10) if prefix == "LC08" else (1, 2, 3, 4, 5, 7)
    contents = {
        "ORIGIN": "Image courtesy of the U.S. Geological Survey",
        "LANDSAT_PRODUCT_ID": product,
        "PROCESSING_LEVEL": level,
        "COLLECTION_NUMBER": "02",
        "COLLECTION_CATEGORY": "T1",
        **{f"FILE_NAME_BAND_{number}": f"{product}_{surface}B{number}.TIF" for number in numbers},
        **{f"FILE_NAME_{key}": f"{product}_{name}.TIF" for key, name in MASKS.items()},
    }
    image = {"SPACECRAFT_ID": spacecraft, "SENSOR_ID": instrument, "DATE_ACQUIRED": "2020-12-04",
             "SCENE_CENTER_TIME": "02:37:43.2682459Z", "CLOUD_COVER": 44.51,
             "SUN_AZIMUTH": 158.65681345, "SUN_ELEVATION": 32.90999175}  # fmt: skip
    corners = {"UL": (32.8, 117.6), "UR": (32.7, 120.0), "LL": (30.7, 117.6), "LR": (30.6, 120.0)}
    projection: dict[str, Any] = {"MAP_PROJECTION": "UTM", "UTM_ZONE": 50}
    for corner, (latitude, longitude) in corners.items():
        projection[f"CORNER_{corner}_LAT_PRODUCT"] = latitude
        projection[f"CORNER_{corner}_LON_PRODUCT"] = longitude
    by_scene = prefix != "LC08"
    level1 = {f"REFLECTANCE_{part}_BAND_{number}": value
              for number in numbers
              for part, value in (("MULT", f"{1.1e-3 * number if by_scene else 2e-5:.4E}"),
                                  ("ADD", f"{-0.01 * number if by_scene else -0.1:.6f}"))}  # fmt: skip
    level2 = {f"REFLECTANCE_{part}_BAND_{number}": value
              for number in numbers for part, value in (("MULT", "2.75e-05"), ("ADD", "-0.2"))}  # fmt: skip
    groups: Groups = {"PRODUCT_CONTENTS": contents, "IMAGE_ATTRIBUTES": image, "PROJECTION_ATTRIBUTES": projection}
    if level == "L2SP":
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = level2
        # names the files of another product
        groups["LEVEL1_PROCESSING_RECORD"] = {"LANDSAT_PRODUCT_ID": product.replace(level, "L1TP"),
                                              "FILE_NAME_BAND_1": "other.TIF"}  # fmt: skip
    return groups | {"LEVEL1_RADIOMETRIC_RESCALING": level1}


def as_text(groups: Groups) -> str:
    def value(said: Any) -> str:
        text = str(said)
        return text if (text[0].isdigit() and "Z" not in text) or text.startswith("-") else f'"{text}"'

    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, said in groups.items():
        lines += [f"  GROUP = {name}", *(f"    {key} = {value(said[key])}" for key in said), f"  END_GROUP = {name}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""]) + "\0" * 500


def as_json(groups: Groups) -> str:
    said = {name: {key: str(value) for key, value in group.items()} for name, group in groups.items()}
    return json.dumps({"LANDSAT_METADATA_FILE": said})


def as_xml(groups: Groups) -> str:
    inner = "".join(
        f"<{name}>{''.join(f'<{key}>{value}</{key}>' for key, value in group.items())}</{name}>\n"
        for name, group in groups.items()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<LANDSAT_METADATA_FILE>\n{inner}</LANDSAT_METADATA_FILE>'


@pytest.fixture
def product(tmp_path: Path, write: Callable[..., str]) -> Product:
    """A product of 256 × 256 pixels at 30 m; returns its metadata file in the form that is asked for."""

    def make(said: dict[str, str], form: str = "txt", change: Callable[[Groups], None] = lambda _: None) -> Path:
        groups = metadata(**said)
        change(groups)
        contents = groups["PRODUCT_CONTENTS"]
        rng = np.random.default_rng(3)
        for key in [key for key in contents if key.startswith("FILE_NAME_")]:
            if key.startswith("FILE_NAME_QUALITY"):
                pixels = np.zeros((SIDE, SIDE), np.uint16)
                if key.endswith("PIXEL"):
                    pixels[:] = 21824
                    pixels[:10], pixels[10:20] = 22280, 1
                else:
                    pixels[30:34], pixels[40] = 0b1000, 1 << 11
            elif said["level"] == "L2SP" or said["prefix"] == "LC08":
                pixels = rng.integers(1, 65_535, (SIDE, SIDE), dtype=np.uint16)
            else:
                pixels = rng.integers(1, 256, (SIDE, SIDE), dtype=np.uint8)
            if not key.startswith("FILE_NAME_QUALITY"):
                pixels[10:20] = 0
            write(tmp_path / contents[key], pixels, crs="EPSG:32650", transform=from_origin(560_685, 3_628_815, 30, 30))
        path = tmp_path / f"{contents['LANDSAT_PRODUCT_ID']}_MTL.{form}"
        path.write_text({"txt": as_text, "json": as_json, "xml": as_xml}[form](groups))
        return path

    return make


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
def test_a_product_says_what_its_scene_is(product: Product, form: Any) -> None:
    s = sensor("landsat-8-l2")
    scene = read_landsat(product(L2, form), s)
    assert (scene.id, scene.crs) == ("LC08_L2SP_120038_20201204_20201218_02_T1", "EPSG:32650")
    assert (scene.shift, scene.source_nodata) == (0, 0)
    assert scene.time == datetime(2020, 12, 4, 2, 37, 43, 268_245, tzinfo=UTC)
    assert shape(scene.footprint).equals(Polygon([(117.6, 32.8), (120, 32.7), (120, 30.6), (117.6, 30.7)]))
    assert [Path(asset.href).name for asset in scene.bands.values()] == [
        f"{scene.id}_SR_B{number}.TIF" for number in range(1, 8)
    ]
    assert {kind: Path(asset.href).name for kind, asset in scene.masks.items()} == {
        "qa_pixel": f"{scene.id}_QA_PIXEL.TIF",
        "qa_radsat": f"{scene.id}_QA_RADSAT.TIF",
    }
    assert scene.properties == {
        "platform": "landsat-8",
        "landsat:correction": "L2SP",
        "landsat:collection_category": "T1",
        "eo:cloud_cover": 44.51,
        "view:sun_azimuth": 158.65681345,
        "view:sun_elevation": 32.90999175,
    }
    assert Scene.from_item(pystac.Item.from_dict(json.loads(json.dumps(scene.to_item().to_dict()))), s) == scene


@pytest.mark.parametrize(
    ("said", "name"),
    [(L2, "landsat-8-l2"), (L2 | {"spacecraft": "LANDSAT_9"}, "landsat-8-l2"), (L1, "landsat-8-l1"),
     (ETM_L1 | {"level": "L2SP"}, "landsat-7-l2"), (ETM_L1, "landsat-7-l1"), (TM_L2, "landsat-5-l2"),
     (TM_L2 | {"level": "L1GS", "spacecraft": "LANDSAT_5"}, "landsat-5-l1")],
)  # fmt: skip
def test_numbers_and_flags_are_the_files(product: Product, said: Any, name: Any) -> None:
    s = sensor(name)
    mtl = product(said)
    scene = read_landsat(mtl, s)
    check_scene(scene, s)
    pixels = read_tile(scene, s, Grid("EPSG:32650", 30, SIDE, (560_685, 3_628_815))[0, 0])
    assert pixels is not None
    assert pixels.aligned
    for stored, asset in zip(pixels.image, scene.bands.values(), strict=True):
        with rasterio.open(asset.href) as dataset:
            np.testing.assert_array_equal(stored, dataset.read(1))
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:10], expected[10:20] = Quality.CLOUD, Quality.NODATA
    expected[30:34], expected[40] = Quality.SATURATED, Quality.NODATA
    np.testing.assert_array_equal(pixels.quality, expected)


def test_numbers_without_a_common_scale_keep_their_own(product: Product) -> None:
    """Level-1 of ETM+ and TM: coefficients differ by scene, so they stay with the scene."""
    s = sensor("landsat-7-l1")
    assert s.radiometry.unit == "none"
    scene = read_landsat(product(ETM_L1), s)
    assert scene.properties["landsat:reflectance"]["B3"] == [3.3e-3, -0.03]
    assert list(scene.properties["landsat:reflectance"]) == list(s.band_names)


def test_one_product_is_read_once(product: Product) -> None:
    names = [product(L2, form).name for form in ("xml", "json", "txt")]
    other = "LE07_L1TP_120038_20210113_20210113_02_RT_MTL.xml"
    assert metadata_files([*names, other, "a_B1.TIF"]) == [names[2], other]
    assert metadata_files(["a_B1.TIF", "MTL.txt"]) == []


def test_a_folder_of_products_of_two_satellites(product: Product, tmp_path: Path) -> None:
    """The one of the project's sensor is a scene, once, whatever forms its metadata have."""
    for form in ("txt", "xml"):
        product(L2, form)
    product(ETM_L1 | {"level": "L2SP"}, "json")
    found = list(open_source(FolderSettings(path=str(tmp_path)), tmp_path).scenes(sensor("landsat-8-l2")))
    assert [entry.id for entry in found if isinstance(entry, Scene)] == ["LC08_L2SP_120038_20201204_20201218_02_T1"]
    assert [entry.remedy for entry in found if isinstance(entry, Rejected)] == ["choose sensor landsat-7-l2"]


def group(name: str, **changes: Any) -> Callable[[Groups], None]:
    return lambda groups: groups[name].update(changes)


def without(name: str) -> Callable[[Groups], None]:
    return lambda groups: groups["PRODUCT_CONTENTS"].pop(name)


REFLECTANCE = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"


@pytest.mark.parametrize(
    ("said", "change", "name", "reason"),
    [
        (L2, None, "landsat-8-l1", "it is of sensor landsat-8-l2, not landsat-8-l1\n  → choose sensor landsat-8-l2"),
        (L1, None, "landsat-8-l2", "choose sensor landsat-8-l1"),
        (ETM_L1, None, "landsat-8-l1", "choose sensor landsat-7-l1"),
        (TM_L2, None, "sentinel-2-l2a", "choose sensor landsat-5-l2"),
        (TM_L2 | {"instrument": "MSS", "level": "L1TP"}, None, "landsat-5-l1",
         "it is of sensor landsat-mss-l1, not landsat-5-l1\n  → describe a sensor of your own"),
        (L2, group(REFLECTANCE, REFLECTANCE_MULT_BAND_4="1e-4"), "landsat-8-l2",
         r"MTL\.txt, band B4: its numbers have scale 0\.0001, sensor landsat-8-l2 has 2\.75e-05"),
        (L2, group(REFLECTANCE, REFLECTANCE_ADD_BAND_2="-0.1"), "landsat-8-l2",
         r"band B2: its offset -0\.1 is not a whole number of steps"),
        (L2, group(REFLECTANCE, REFLECTANCE_ADD_BAND_2="-0.19725"), "landsat-8-l2", "bands have different offsets"),
        (L2, lambda groups: groups.pop(REFLECTANCE), "landsat-8-l2", "the metadata state no scale of band B1, B2"),
        (L2, lambda groups: groups.pop("IMAGE_ATTRIBUTES"), "landsat-8-l2", "the metadata have no IMAGE_ATTRIBUTES"),
        (L2, without("FILE_NAME_BAND_4"), "landsat-8-l2", "the metadata have no FILE_NAME_BAND_4"),
        (L2, without("LANDSAT_PRODUCT_ID"), "landsat-8-l2", "LANDSAT_PRODUCT_ID"),
        (L2, group("IMAGE_ATTRIBUTES", DATE_ACQUIRED="2020-13-04"), "landsat-8-l2", "the metadata hold no number or time: month must be"),
        (L2, group("PROJECTION_ATTRIBUTES", UTM_ZONE="fifty"), "landsat-8-l2", "no number or time: .*fifty"),
        (L2, group("PRODUCT_CONTENTS", COLLECTION_NUMBER="01"), "landsat-8-l2", "of Landsat Collection 1 or older"),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_refused(
    product: Product, said: Any, change: Any, name: Any, reason: Any, tmp_path: Path
) -> None:
    if change is None or "LANDSAT_PRODUCT_ID" not in reason:
        mtl = product(said, change=change or (lambda _: None))
    else:
        mtl = product(said)
        mtl.write_text(mtl.read_text().replace("LANDSAT_PRODUCT_ID =", "NO_ID ="))
    with pytest.raises(SceneError, match=reason):
        read_landsat(mtl, sensor(name))


def test_an_offset_of_whole_steps_is_a_shift(product: Product) -> None:
    s = Sensor("own", (Band("B4", 0.655, 30),), Radiometry("uint16", 2.75e-5, -0.2 + 100 * 2.75e-5, 0, "reflectance"))
    assert read_landsat(product(L2), s).shift == -100


def test_temperature_is_a_sensor_of_ones_own(product: Product) -> None:
    def thermal(groups: Groups) -> None:
        groups["PRODUCT_CONTENTS"]["FILE_NAME_BAND_ST_B10"] = "a_ST_B10.TIF"
        groups["LEVEL2_SURFACE_TEMPERATURE_PARAMETERS"] = {"TEMPERATURE_MULT_BAND_ST_B10": "0.00341802",
                                                           "TEMPERATURE_ADD_BAND_ST_B10": "149.0"}  # fmt: skip

    s = Sensor("st", (Band("ST_B10", 10.9, 30),), Radiometry("uint16", 0.00341802, 149.0, 0, "kelvin"))
    assert read_landsat(product(L2, change=thermal), s).bands["ST_B10"].href.endswith("a_ST_B10.TIF")


@pytest.mark.parametrize("missing", ["SR_B5", "QA_PIXEL", "QA_RADSAT"])
def test_a_file_that_is_not_there_is_named(product: Product, missing: Any) -> None:
    mtl = product(L2)
    (path,) = mtl.parent.glob(f"*_{missing}.TIF")
    path.unlink()
    with pytest.raises(SceneError, match=rf"should be in {path.name}, which is not there"):
        read_landsat(mtl, sensor("landsat-8-l2"))


def test_metadata_name_no_file_elsewhere(product: Product, tmp_path: Path) -> None:
    mtl = product(L2)
    secret = shutil.copy(next(tmp_path.glob("*_SR_B4.TIF")), tmp_path.parent / "secret.TIF")
    text = mtl.read_text()
    mtl.write_text(text.replace(f"{mtl.name[:-8]}_SR_B4.TIF", f"../{Path(secret).name}"))
    with pytest.raises(SceneError, match=r"B4 should be in \.\./secret\.TIF, which is not there"):
        read_landsat(mtl, sensor("landsat-8-l2"))


def test_a_footprint_across_the_antimeridian_is_cut(product: Product) -> None:
    def east(groups: Groups) -> None:
        for key in [key for key in groups["PROJECTION_ATTRIBUTES"] if "LON" in key]:
            groups["PROJECTION_ATTRIBUTES"][key] = 179 if "L_LON" in key else -179
            groups["PROJECTION_ATTRIBUTES"][key.replace("LON", "LAT")] = 60 if "_U" in key else 58

    found = shape(read_landsat(product(L2, change=east), sensor("landsat-8-l2")).footprint)
    assert found.equals(box(179, 58, 180, 60).union(box(-180, 58, -179, 60)))


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("txt", "", "is no Landsat metadata file"),
        ("txt", "GROUP = LANDSAT_METADATA_FILE\n  GROUP = A\n", "group A does not end"),
        ("txt", "END_GROUP = A\n", "group A ends where it was not open"),
        ("json", "{", "cannot be read as Landsat metadata"),
        ("json", "[]", "cannot be read as Landsat metadata"),
        ("json", '{"LANDSAT_METADATA_FILE": 1}', "cannot be read as Landsat metadata"),
        ("xml", "<html>", "cannot be read as Landsat metadata"),
        ("xml", "<html><body/></html>", r"is no Landsat metadata file \(it begins with html\)"),
    ],
)
def test_damaged_metadata_are_refused(tmp_path: Path, form: Any, content: Any, reason: Any) -> None:
    path = tmp_path / f"a_MTL.{form}"
    path.write_text(content)
    with pytest.raises(SceneError, match=reason):
        read_landsat(path, sensor("landsat-8-l2"))


def test_a_real_product_before_collection_2_is_refused_with_the_way_out(shared_data: Path) -> None:
    (mtl,) = (shared_data / "rstoolbox-amazon/landsat5-raw").glob("*_MTL.txt")
    with pytest.raises(SceneError, match=r"is of Landsat Collection 1 or older[\s\S]*by a `pattern`"):
        read_landsat(mtl, sensor("landsat-5-l1"))
