from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.bands import Band, Radiometry, Sensor, sensor, sensors
from geossl.errors import SceneError
from geossl.imagery.clouds import QualityKind
from geossl.imagery.scene import Asset, Rejected, Scene, in_order, outline

TIME = datetime(2022, 10, 5, 11, 54, 11, 24_000, tzinfo=UTC)
SQUARE = {"type": "Polygon", "coordinates": [[[-51.0, 0.0], [-50.0, 0.0], [-50.0, 1.0], [-51.0, 0.0]]]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"shift": -1000, "source_nodata": 0.0, "masks": {"scl": Asset("/i/scl.tif", 2)}},
        {"source_nodata": -9999.5, "masks": {"qa_pixel": Asset("/i/all.tif", 8)}, "crs": None},
        {"properties": {"geossl:physical": True, "eo:cloud_cover": 3.5, "updated": "2023-01-01T00:00:00Z"}},
        {"crs": 'PROJCS["sinusoidal, of no authority"]'},
    ],
)
def test_a_scene_survives_as_a_stac_item(
    make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor], more: Any
) -> None:
    scene = make_scene(Asset("/i/all.tif", 3), Asset("/i/b2.tif"), **({"time": TIME} | more))
    said = json.loads(json.dumps(scene.to_item().to_dict()))
    item = pystac.Item.from_dict(said)
    assert Scene.from_item(item, make_sensor("B1", "B2")) == scene
    assert item.bbox == [-51, 0, -50, 1]
    assert pickle.loads(pickle.dumps(scene)) == scene


SIMPLE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = SIMPLE | st.lists(SIMPLE, max_size=3) | st.dictionaries(st.text(max_size=4), SIMPLE, max_size=2)
ASSETS = st.builds(
    Asset,
    st.sampled_from(["/i/a b.tif", "https://h.org/a.tif?x=1", "s3://b/ü.tif"]),
    st.integers(1, 300),
    st.sampled_from(["", '"e-tag"']),
)
CORNERS = st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=4, max_size=4)


@settings(max_examples=50)
@given(
    scene=st.builds(
        Scene,
        id=st.text(min_size=1),
        sensor=st.sampled_from(["toy", "sentinel-2-l2a", "hls-s30"]),
        time=st.datetimes(datetime(1858, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)),
        footprint=st.builds(outline, CORNERS),
        crs=st.sampled_from([None, "EPSG:32650", "IAU_2015:30100", 'PROJCS["sinusoidal, of no authority"]']),
        bands=st.fixed_dictionaries({"B1": ASSETS, "B8A": ASSETS}),
        masks=st.dictionaries(st.sampled_from(get_args(QualityKind)), ASSETS),
        shift=st.integers(-20_000, 20_000),
        source_nodata=st.none() | st.floats(allow_nan=False),
        properties=st.dictionaries(st.text(max_size=4).map("x:".__add__), JSON, max_size=3),
    )
)
def test_any_scene_survives_as_a_stac_item(scene: Scene) -> None:
    of = Sensor(scene.sensor, (Band("B1", 0.5, 10), Band("B8A", 0.86, 10)), Radiometry("int16"))
    said = json.loads(json.dumps(scene.to_item().to_dict()))
    assert Scene.from_item(pystac.Item.from_dict(said), of) == scene


def test_no_data_that_json_cannot_say_survives(
    make_scene: Callable[..., Scene], make_sensor: Callable[..., Sensor]
) -> None:
    item = make_scene("/i/a.tif", "/i/b.tif", source_nodata=math.nan).to_item()
    json.dumps(item.to_dict(), allow_nan=False)
    nodata = Scene.from_item(item, make_sensor("B1", "B2")).source_nodata
    assert nodata is not None
    assert math.isnan(nodata)


def test_times_are_utc(make_scene: Callable[..., Scene]) -> None:
    local = make_scene("/i/a.tif", time=datetime(2020, 1, 1, 3, tzinfo=timezone(timedelta(hours=-5))))
    assert local.time == datetime(2020, 1, 1, 8, tzinfo=UTC)
    assert local.time.tzinfo is UTC
    with pytest.raises(SceneError, match="has no time zone"):
        make_scene("/i/a.tif", time=datetime(2020, 1, 1))


def test_the_checksum_knows_what_pixels_are_made_from(tmp_path: Path, make_scene: Callable[..., Scene]) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.tif").write_bytes(bytes(200_000))
        (tmp_path / place / "b.tif").write_bytes(bytes(100))
    here = make_scene(str(tmp_path / "here/a.tif"), str(tmp_path / "here/b.tif"))
    there = make_scene(str(tmp_path / "there/a.tif"), str(tmp_path / "there/b.tif"), id="moved")
    assert here.checksum() == there.checksum()
    seen = {here.checksum()}
    b = Asset(str(tmp_path / "here/b.tif"))
    different = [
        make_scene(*list(here.bands.values())[::-1]),
        make_scene(*here.bands.values(), shift=-1000),
        make_scene(*here.bands.values(), source_nodata=0),
        make_scene(*here.bands.values(), masks={"scl": b}),
        make_scene(*here.bands.values(), properties={"geossl:physical": True}),
        make_scene(here.bands["B1"], Asset(b.href, 2)),
    ]
    seen |= {scene.checksum() for scene in different}
    for position in (0, 199_999):
        content = bytearray(200_000)
        content[position] = 1
        (tmp_path / "there/a.tif").write_bytes(content)
        seen.add(there.checksum())
    (tmp_path / "there/a.tif").write_bytes(bytes(200_001))
    seen.add(there.checksum())
    assert len(seen) == 1 + len(different) + 3
    (tmp_path / "there/a.tif").unlink()
    with pytest.raises(SceneError, match=r"moved, band B1: cannot read .*a\.tif: No such file"):
        there.checksum()


def test_a_remote_file_counts_by_its_address_and_update(make_scene: Callable[..., Scene]) -> None:
    def checksum(name: str = "a", version: str = "", updated: str = "2023-01-01") -> str:
        file = Asset(f"https://example.org/{name}.tif", version=version)
        return make_scene(file, properties={"updated": updated}).checksum()

    assert checksum() == checksum()
    assert len({checksum(), checksum("b"), checksum(updated="2024-01-01"), checksum(version='"tag" 7')}) == 4


def test_order_is_time_then_id_and_ids_are_unique(make_scene: Callable[..., Scene]) -> None:
    def scene(name: str, day: int, href: str = "/i/a.tif") -> Scene:
        return make_scene(href, id=name, time=datetime(2020, 1, day, tzinfo=UTC))

    found: list[Scene | Rejected] = [
        Rejected("z", "why"),
        scene("b", 2),
        scene("c", 1),
        scene("a", 2),
        scene("c", 3, "/i/c.tif"),
        Rejected("y", ""),
    ]
    for order in (found, found[::-1]):
        entries = in_order(order)
        assert [entry.id for entry in entries if isinstance(entry, Scene)] == ["c", "a", "b"]
        assert [entry.source for entry in entries[3:] if isinstance(entry, Rejected)] == ["/i/c.tif", "y", "z"]
    assert "there is already a scene c" in next(entry for entry in entries if isinstance(entry, Rejected)).reason


S2 = sensor("sentinel-2-l2a").subset(["B02", "B05", "B08"])


def item(assets: Mapping[str, Mapping[str, Any]], **properties: object) -> pystac.Item:
    made = pystac.Item("i", SQUARE, [-51, 0, -50, 1], TIME, dict(properties))
    for key, extra in assets.items():
        fields = {name: value for name, value in extra.items() if name not in ("roles", "type")}
        made.add_asset(key, pystac.Asset(f"/i/{key}.tif", None, None, extra.get("type"), extra.get("roles"), fields))
    return made


@pytest.mark.parametrize(
    ("assets", "expected"),
    [
        pytest.param({"B02": {}, "B05": {}, "B08": {}, "B03": {}}, ["B02", "B05", "B08"], id="keys are names"),
        pytest.param({"b08": {}, "b05": {}, "b02": {}}, ["b02", "b05", "b08"], id="in any case"),
        pytest.param(
            {
                "visual": {"eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}], "roles": ["visual"]},
                "thumbnail": {"eo:bands": [{"name": "B02"}], "roles": ["thumbnail"]},
                "blue-jp2": {"eo:bands": [{"name": "blue", "common_name": "blue"}], "type": "image/jp2"},
                "blue": {"eo:bands": [{"name": "blue", "common_name": "blue"}], "type": "image/tiff"},
                "rededge1": {"eo:bands": [{"name": "rededge1", "common_name": "rededge", "center_wavelength": 0.704}]},
                "rededge2": {"eo:bands": [{"name": "rededge2", "common_name": "rededge", "center_wavelength": 0.74}]},
                "nir": {"eo:bands": [{"name": "nir", "common_name": "nir", "center_wavelength": 0.842}]},
                "nir08": {"eo:bands": [{"name": "nir08", "common_name": "nir08", "center_wavelength": 0.865}]},
            },
            ["blue", "rededge1", "nir"],
            id="as Earth Search",
        ),
        pytest.param(
            {
                "B02_60m": {"bands": [{"name": "B02"}], "gsd": 60},
                "B02_10m": {"bands": [{"name": "B02"}], "gsd": 10},
                "B05_60m": {"bands": [{"name": "B05"}], "raster:spatial_resolution": 60},
                "B05_20m": {"bands": [{"name": "B05"}], "raster:spatial_resolution": 20},
                "B08_10m": {"bands": [{"eo:common_name": "nir"}], "proj:transform": [10, 0, 0, 0, -10, 0]},
            },
            ["B02_10m", "B05_20m", "B08_10m"],
            id="the finest of several",
        ),
    ],
)
def test_bands_of_other_providers_are_found(assets: Any, expected: Any) -> None:
    scene = Scene.from_item(item(assets), S2)
    assert [asset.href for asset in scene.bands.values()] == [f"/i/{key}.tif" for key in expected]
    assert all(asset.index == 1 for asset in scene.bands.values())


def test_bands_within_one_file_are_found() -> None:
    stack = {"bands": [{"name": "B08"}, {"name": "B02"}, {"name": "x", "eo:center_wavelength": 0.7}]}
    scene = Scene.from_item(item({"stack": stack}), S2)
    assert [asset.index for asset in scene.bands.values()] == [2, 3, 1]


def test_a_missing_band_is_named() -> None:
    with pytest.raises(SceneError, match="i: no asset holds band B05, B08; there are B02, B04"):
        Scene.from_item(item({"B02": {}, "B04": {}}), S2)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("scl", "scl"),
        ("SCL_20m", "scl"),
        ("qa_pixel", "qa_pixel"),
        ("QA_RADSAT", "qa_radsat"),
        ("Fmask", "fmask"),
        ("hls_fmask", "hls_fmask"),
        ("qa", None),
        ("fmaskish", None),
    ],
)
def test_the_mask_is_found(key: Any, kind: Any) -> None:
    scene = Scene.from_item(item({"B02": {}, "B05": {}, "B08": {}, key: {}}), S2)
    assert scene.masks == ({kind: Asset(f"/i/{key}.tif")} if kind else {})


OLD = {"scale": 1e-4, "offset": 0, "nodata": 0}
NEW = {"scale": 1e-4, "offset": -0.1, "nodata": 0}


@pytest.mark.parametrize(
    ("extra", "properties", "shift", "nodata"),
    [
        pytest.param({}, {}, 0, None, id="nothing said"),
        pytest.param({"raster:bands": [OLD]}, {"s2:processing_baseline": "05.00"}, 0, 0, id="offset undone"),
        pytest.param({"raster:bands": [NEW]}, {}, -1000, 0, id="offset stated"),
        pytest.param(
            {"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}]}, {}, -1000, 0, id="STAC 1.1"
        ),
        pytest.param({"raster:scale": 1e-4, "raster:offset": -0.1}, {}, -1000, None, id="on the asset"),
        pytest.param(
            {"raster:bands": [NEW]}, {"earthsearch:boa_offset_applied": True}, 0, 0, id="Earth Search has undone it"
        ),
        pytest.param(
            {"raster:bands": [NEW]}, {"earthsearch:boa_offset_applied": False}, -1000, 0, id="Earth Search has not"
        ),
        pytest.param({}, {"s2:processing_baseline": "04.00"}, -1000, None, id="Planetary Computer"),
        pytest.param({}, {"s2:processing_baseline": "N0510"}, -1000, None, id="as in product names"),
        pytest.param({}, {"s2:processing_baseline": "03.01"}, 0, None, id="old baseline"),
    ],
)
def test_harmonisation_by_what_the_item_says(extra: Any, properties: Any, shift: Any, nodata: Any) -> None:
    scene = Scene.from_item(item({name: dict(extra) for name in S2.band_names}, **properties), S2)
    assert (scene.shift, scene.source_nodata) == (shift, nodata)


def test_a_sensor_without_a_unit_keeps_the_numbers() -> None:
    plain = Sensor("plain", S2.bands, Radiometry("int16"))
    assert Scene.from_item(item({name: {"raster:bands": [NEW]} for name in S2.band_names}), plain).shift == 0


LANDSAT = {"platform": "landsat-8", "instruments": ["oli", "tirs"], "landsat:correction": "L2SP"}


@pytest.mark.parametrize(
    ("properties", "name", "said"),
    [
        ({}, "landsat-8-l2", None),
        (LANDSAT, "landsat-8-l2", None),
        (LANDSAT | {"platform": "LANDSAT_9"}, "landsat-8-l2", None),
        ({"platform": "landsat-8"}, "landsat-8-l1", None),
        (LANDSAT, "own", None),
        (LANDSAT | {"platform": "landsat-7"}, "landsat-8-l2", "landsat-7-l2"),
        (LANDSAT | {"landsat:correction": "L1TP"}, "landsat-8-l2", "landsat-8-l1"),
        (LANDSAT | {"platform": "landsat-5", "instruments": ["tm"]}, "landsat-5-l2", None),
        (LANDSAT | {"platform": "landsat-5", "instruments": ["mss"]}, "landsat-5-l2", "landsat-mss-l2"),
        ({"platform": "landsat-7"}, "landsat-8-l2", "landsat-7"),
        ({"platform": "sentinel-2a", "s2:product_type": "S2MSI1C"}, "sentinel-2-l1c", None),
        ({"platform": "sentinel-2a", "s2:product_type": "S2MSI2A"}, "sentinel-2-l1c", "sentinel-2-l2a"),
        ({"constellation": "sentinel-2", "processing:level": "L1C"}, "sentinel-2-l2a", "sentinel-2-l1c"),
        ({"platform": "sentinel-2c"}, "sentinel-2-l2a", None),
        ({"platform": "sentinel-2a"}, "landsat-8-l2", "sentinel-2"),
        ({"geossl:sensor": "landsat-8-l1"}, "landsat-8-l2", "landsat-8-l1"),
        ({"platform": "landsat-8"}, "hls-l30", None),
    ],
)
def test_an_item_of_another_sensor_is_refused_by_name(properties: Any, name: Any, said: Any) -> None:
    """One collection often holds several: band names agree, numbers and wavelengths do not."""
    ours = Sensor("own", S2.bands, S2.radiometry) if name == "own" else sensor(name).subset(["red", "green"])
    made = item({band: {} for band in ours.band_names}, **properties)
    if said is None:
        assert Scene.from_item(made, ours).sensor == name
    else:
        remedy = f"choose sensor {said}" if said in sensors() else "describe a sensor of your own for it"
        with pytest.raises(SceneError, match=rf"^i: it is of sensor {said}, not {name}\n  → {remedy}$"):
            Scene.from_item(made, ours)


def test_landsat_items_of_the_planetary_computer() -> None:
    """Keys are common names, bands are named by instrument, and both quality bands are used."""
    made = item(
        {
            "red": {"eo:bands": [{"name": "OLI_B4", "common_name": "red", "center_wavelength": 0.65}]},
            "nir08": {"eo:bands": [{"name": "OLI_B5", "common_name": "nir08", "center_wavelength": 0.87}]},
            "qa": {},
            "qa_pixel": {},
            "qa_radsat": {},
            "qa_aerosol": {},
        },
        **LANDSAT,
    )
    for key in ("red", "nir08"):
        made.assets[key].extra_fields["raster:bands"] = [{"scale": 2.75e-5, "offset": -0.2, "nodata": 0}]
    scene = Scene.from_item(made, sensor("landsat-8-l2").subset(["B4", "B5"]))
    assert [asset.href for asset in scene.bands.values()] == ["/i/red.tif", "/i/nir08.tif"]
    assert {kind: asset.href for kind, asset in scene.masks.items()} == {
        "qa_pixel": "/i/qa_pixel.tif",
        "qa_radsat": "/i/qa_radsat.tif",
    }
    assert (scene.shift, scene.source_nodata) == (0, 0)


def test_a_classic_fmask_of_a_scene_of_hls_stays_one(make_scene: Callable[..., Scene]) -> None:
    """What geossl wrote itself is taken by its word."""
    for kind in ("fmask", "hls_fmask"):
        scene = make_scene("/i/a.tif", sensor="hls-s30", masks={kind: Asset("/i/mask.tif")})
        found = Scene.from_item(scene.to_item(), Sensor("hls-s30", (Band("B1", None, 30),), S2.radiometry))
        assert found == scene


def test_a_scene_found_twice_counts_once_and_impossible_times_are_refused(make_scene: Callable[..., Scene]) -> None:
    def at(name: str, time: datetime, **more: Any) -> Scene:
        return make_scene("/i/a.tif", id=name, time=time, **more)

    now = datetime.now(UTC)
    good = [at("early", datetime(1858, 6, 1, tzinfo=UTC)), at("a", TIME), at("today", now)]
    bad = [at("unset", datetime(1970, 1, 1, tzinfo=UTC)), at("ahead", now + timedelta(days=2)),
           at("zero", datetime(1, 1, 1, tzinfo=UTC))]  # fmt: skip
    entries = in_order([*good, *bad, at("a", TIME), at("a", TIME, shift=-1000)])
    assert entries[:3] == good
    reasons = [entry.reason for entry in entries[3:] if isinstance(entry, Rejected)]
    assert [reason.partition(":")[0] for reason in reasons if "cannot be right" in reason] == ["zero", "unset", "ahead"]
    assert [reason for reason in reasons if "cannot be right" not in reason] == [
        f"there is already a scene a, of {TIME}"
    ]


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"scale": 2.75e-5, "offset": -0.2}, "its numbers have scale 2.75e-05, sensor sentinel-2-l2a has 0.0001"),
        ({"scale": 1e-4, "offset": -0.10005}, "its offset -0.10005 is not a whole number of steps"),
    ],
)
def test_numbers_that_no_shift_can_harmonise_are_refused(extra: Any, reason: Any) -> None:
    with pytest.raises(SceneError, match=reason):
        Scene.from_item(item({name: {"raster:bands": [extra]} for name in S2.band_names}), S2)


def test_bands_must_agree_on_their_shift() -> None:
    assets = {"B02": {"raster:bands": [NEW]}, "B05": {"raster:bands": [OLD]}, "B08": {"raster:bands": [NEW]}}
    with pytest.raises(SceneError, match="its bands differ in shift"):
        Scene.from_item(item(assets), S2)
