"""Patches of alerts, their release, and the verdicts that come back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy import ndimage

from geossl.cube import layout
from geossl.cube.check import check
from geossl.cube.repository import Cube
from geossl.cube.verdicts import CONFIRMED as CLEARING
from geossl.cube.verdicts import REJECTED, TileVerdicts, add_verdicts, read_verdicts, said_of, verdict_key
from geossl.errors import LabelError, StoreError
from geossl.grid import Grid
from geossl.legend import NO_LABEL
from geossl.maps.alerts.patches import APART, group
from geossl.maps.alerts.publish import AlertRelease, publish_alerts, published
from geossl.maps.alerts.review import read_review
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, EPOCH, NEVER, NONE, OUTSIDE, to_date
from geossl.maps.alerts.style import ALERTS, NOT_FOREST
from geossl.maps.alerts.tiles import BANDS, REVIEWED, AlertTiles

GRID = Grid("EPSG:32722", 10, 256, (500_000, 9_500_000))
TILES = ["x0y0", "x1y0"]
ACROSS = np.s_[40:60, 236:276]
"""A clearing on both tiles, 8 ha."""
YOUNG = np.s_[100:120, 20:40]
"""Detected, 4 ha."""
SPECK = np.s_[200:202, 100:102]
"""0.04 ha."""
UNTIL = 2800


@given(hnp.arrays(bool, (9, 11)))
def test_pixels_of_one_day_are_grouped_as_images_are_labelled(mask: NDArray[np.bool_]) -> None:
    row, col = np.nonzero(mask)
    found = group(row + 100, col - 5, np.zeros(row.size, np.int16))
    expected = ndimage.label(mask)[0][row, col]
    pairs = set(zip(found.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(expected.tolist()))
    # in reading order of their first pixels
    assert list(dict.fromkeys(found.tolist())) == sorted(set(found.tolist()))


@given(hnp.arrays(np.int16, (6, 6), elements=st.integers(0, 3 * APART)))
def test_neighbours_join_unless_their_days_are_far_apart(days: NDArray[np.int16]) -> None:
    row, col = (axis.ravel() for axis in np.indices(days.shape))
    found = group(row, col, days.ravel()).reshape(days.shape)
    for axis in (0, 1):
        near = np.abs(np.diff(days.astype(int), axis=axis)) <= APART
        assert (np.diff(found, axis=axis)[near] == 0).all()


def _stored(folder: Path, *, grown: bool = False) -> AlertTiles:
    """Two tiles with three patches; west of them nothing is watched."""
    planes = {name: np.full((256, 512), NEVER, np.int16) for name in BANDS}
    planes["status"][:] = NONE
    planes["status"][:, :8] = OUTSIDE
    planes["percent"][:] = 0
    for place, status, first, confirmed in (
        (ACROSS, CONFIRMED, 2600, 2650),
        (YOUNG, DETECTED, 2700, NEVER),
        (SPECK, CONFIRMED, 2500, 2550),
    ):
        values = {
            "status": status,
            "percent": 95,
            "first": first,
            "confirmed": confirmed,
            "standing": first - 20,
            "raised": first,
            "withdrawn": NEVER,
        }
        for name, value in values.items():
            planes[name][place] = value
    planes["first"][40, 236] = planes["raised"][40, 236] = 2590
    if grown:
        for name in BANDS:
            planes[name][60:70, 236:276] = {"status": DETECTED, "confirmed": NEVER, "percent": 86}.get(name, 2760)
    store = AlertTiles(folder / "tiles")
    for number, tile_id in enumerate(TILES):
        half = {name: plane[:, number * 256 : number * 256 + 256] for name, plane in planes.items()}
        store.write(GRID.tile(tile_id), half, {"grown": grown})
    return store


def _publish(folder: Path, *, until: int = UNTIL, **about: Any) -> AlertRelease:
    store = AlertTiles(folder / "tiles")
    common = {"minimum_ha": 0.1, "keep": 2, "root": folder / "maps", "since": 2700}
    return publish_alerts(store, GRID, TILES, folder, "toy", until=until, **common, **about)


def test_a_release_holds_what_is_large_enough_with_names_dates_and_true_areas(tmp_path: Path) -> None:
    _stored(tmp_path)
    release = _publish(tmp_path)
    frame = gpd.read_file(release.polygons)
    other = gpd.read_parquet(release.polygons.with_suffix(".parquet"))
    assert frame.alert_id.tolist() == other.alert_id.tolist() == ["x0y0-0040-0236", "x0y0-0100-0020"]
    assert frame.status.tolist() == ["confirmed", "detected"]
    assert frame.geometry.is_valid.all()
    assert frame.geometry.area.tolist() == [80_000, 40_000]
    assert frame.area_ha.tolist() == pytest.approx([8, 4], rel=2e-3)
    assert [str(day.date()) for day in frame.first_date] == [str(to_date(2590)), str(to_date(2700))]
    assert str(frame.confirmed_date[0].date()) == str(to_date(2650))
    assert pd.isna(frame.confirmed_date[1])
    assert str(frame.standing_date[0].date()) == str(to_date(2580))
    assert frame.confidence.tolist() == pytest.approx([0.95, 0.95])
    assert frame.review.isna().all()
    with rasterio.open(release.dates) as dates, rasterio.open(release.status) as status:
        assert dates.nodata == NEVER
        assert dates.units[0] == "days since 2014-12-31"
        day, code = dates.read(1), status.read(1)
        assert status.colormap(1)[CONFIRMED] == (*ALERTS.classes[CONFIRMED].rgb, 255)
    assert (code[ACROSS] == CONFIRMED).all()
    assert (code[SPECK] == NONE).all()
    assert (code[:, :8] == NO_LABEL).all()
    assert (day[YOUNG] == 2700).all()
    assert np.count_nonzero(day != NEVER) == 800 + 400
    assert (release.folder.parent.parent / "latest").resolve() == release.folder
    assert _publish(tmp_path).id == release.id


def test_a_patch_keeps_its_name_while_it_grows(tmp_path: Path) -> None:
    _stored(tmp_path)
    before = gpd.read_file(_publish(tmp_path).polygons).set_index("alert_id")
    _stored(tmp_path, grown=True)
    after = gpd.read_file(_publish(tmp_path, until=UNTIL + 9).polygons).set_index("alert_id")
    assert after.index.tolist() == before.index.tolist()
    assert after.area_ha.iloc[0] == pytest.approx(12, rel=2e-3)
    assert after.status.iloc[0] == "confirmed"
    assert after.last_date.iloc[0] > after.first_date.iloc[0]


def test_without_an_alert_there_is_a_release_all_the_same(tmp_path: Path) -> None:
    store = AlertTiles(tmp_path / "tiles")
    for tile_id in TILES:
        empty = {name: np.full((256, 256), {"status": NONE, "percent": 0}.get(name, NEVER), np.int16) for name in BANDS}
        store.write(GRID.tile(tile_id), empty, {})
    release = _publish(tmp_path)
    assert release.patches == 0
    assert len(gpd.read_file(release.polygons)) == 0
    assert len(gpd.read_parquet(release.polygons.with_suffix(".parquet"))) == 0


def test_a_full_disk_leaves_the_last_release_and_says_so(small_disk: Path, fill: Callable[[int], Path]) -> None:
    store = _stored(small_disk)
    good = _publish(small_disk)
    before = {path.name: path.read_bytes() for path in good.folder.iterdir()}
    tile = store.raster(TILES[0]).read_bytes()
    noise = np.random.default_rng(0).integers(0, 99, (256, 256), np.int16)
    filling = fill(100_000)
    with pytest.raises(OSError, match="No space left"):
        store.write(GRID.tile(TILES[0]), dict.fromkeys(BANDS, noise), {})
    assert store.raster(TILES[0]).read_bytes() == tile
    assert store.record(TILES[0]) is None, "the tile is made again"
    filling.unlink()
    _stored(small_disk, grown=True)
    for share in (0.0, 0.3, 0.7):
        filling = fill(int(share * sum(map(len, before.values()))))
        with pytest.raises(StoreError, match=r"is full(.|\n)*run the same command again"):
            _publish(small_disk, until=UNTIL + 9)
        filling.unlink()
        latest = small_disk / "latest"
        assert {path.name: path.read_bytes() for path in latest.iterdir()} == before
    assert _publish(small_disk, until=UNTIL + 9).id != good.id


def _judge(path: Path, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame], to: Path | None = None) -> Path:
    """As QGIS saves it: a change to the table."""
    frame = change(gpd.read_file(path))
    (to or path).unlink(missing_ok=True)
    frame.to_file(to or path, driver="GPKG", layer="alerts")
    return to or path


def _say(*verdicts: tuple[str | None, str | None]) -> Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]:
    return lambda frame: frame.assign(review=[v for v, _ in verdicts], reason=[r for _, r in verdicts])


def _read(folder: Path, file: Path) -> Any:
    return read_review(file, GRID, TILES, AlertTiles(folder / "tiles"), published(folder))


def test_verdicts_become_labels_with_days(tmp_path: Path) -> None:
    _stored(tmp_path)
    file = _judge(_publish(tmp_path).polygons, _say(("confirmed", "fire"), ("rejected", NOT_FOREST)))
    review = _read(tmp_path, file)
    assert review.said["x0y0-0040-0236"][:2] == ("confirmed", "fire")
    assert review.until == to_date(UNTIL)
    label = np.concatenate([review.tiles[tile_id].label for tile_id in TILES], axis=1)
    first = np.concatenate([review.tiles[tile_id].first for tile_id in TILES], axis=1)
    until = np.concatenate([review.tiles[tile_id].until for tile_id in TILES], axis=1)
    assert (label[ACROSS] == CLEARING).all()
    assert (label[YOUNG] == REJECTED).all()
    assert np.count_nonzero(label != NO_LABEL) == 1200
    assert (first[40, 236], first[41, 240]) == (2590, 2600)
    assert (until[ACROSS] == UNTIL).all()
    assert (until[YOUNG] == np.iinfo(np.int16).max).all()


def test_a_patch_that_was_cut_may_have_two_verdicts(tmp_path: Path) -> None:
    _stored(tmp_path)

    def cut(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        left, bottom, right, top = frame.geometry[0].bounds
        parts = [shapely.box(left, bottom, left + 100, top), shapely.box(left + 100, bottom, right, top)]
        halves = frame.iloc[[0, 0]].assign(geometry=parts, review=["confirmed", "rejected"])
        return gpd.GeoDataFrame(halves, crs=frame.crs)

    review = _read(tmp_path, _judge(_publish(tmp_path).polygons, cut))
    label = np.concatenate([review.tiles[tile_id].label for tile_id in TILES], axis=1)
    assert np.count_nonzero(label == CLEARING) == 200
    assert np.count_nonzero(label == REJECTED) == 600


def _line(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return frame.assign(review="confirmed", geometry=[frame.geometry[0].boundary, *frame.geometry[1:]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame, "holds no verdict"),
        (_say(("Yes", None), (None, None)), r"other than confirmed or rejected.*'Yes'"),
        (
            lambda frame: frame.assign(review="confirmed", alert_id=["x0y0-0040-0236", "x9y9-0001-0001"]),
            "never was.*x9y9",
        ),
        (lambda frame: frame.assign(review="confirmed", release="20990101-00000000"), "a release that never was"),
        (_line, "no polygon .LineString"),
        (
            lambda frame: pd.concat([frame.assign(review="confirmed"), frame[:1].assign(review="rejected")]),
            "x0y0-0040-0236 are both confirmed and rejected",
        ),
        (lambda frame: frame.assign(review="confirmed").drop(columns="release"), "no column 'release'"),
        (
            lambda frame: frame.assign(review="confirmed", geometry=frame.geometry.translate(1e5)),
            "on ground that is watched",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_clear_words(
    tmp_path: Path, change: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame], words: str
) -> None:
    _stored(tmp_path)
    file = _judge(_publish(tmp_path).polygons, change)
    with pytest.raises(LabelError, match=words):
        _read(tmp_path, file)


def test_verdicts_that_nobody_read_are_kept_and_named(tmp_path: Path) -> None:
    _stored(tmp_path)
    first = _publish(tmp_path)
    _judge(first.polygons, _say(("confirmed", "fire"), (None, None)))
    for later in (1, 2):
        newest = _publish(tmp_path, until=UNTIL + later)
        assert newest.edited == first.polygons
    releases = {path.name for path in first.folder.parent.iterdir()}
    assert first.id in releases
    assert len(releases) == 3  # two, and the one that was judged
    said = {"x0y0-0040-0236": ("confirmed", "fire", first.id)}
    assert _publish(tmp_path, until=UNTIL + 2, verdicts=said).edited is None
    assert first.id not in {path.name for path in first.folder.parent.iterdir()}


def test_every_review_is_a_commit_and_the_newer_verdict_holds(tmp_path: Path) -> None:
    cube = Cube.create(str(tmp_path / "cube"))
    shape = (256, 256)

    def verdict(code: int, rows: slice, day: int) -> dict[str, TileVerdicts]:
        label = np.full(shape, NO_LABEL, np.uint8)
        label[rows] = code
        days = np.where(label == NO_LABEL, 0, day).astype(np.int16)
        return {"x0y0": TileVerdicts(label, days - 9 * (days > 0), days)}

    def add(verdicts: dict[str, TileVerdicts], said: dict[str, tuple[str, str, str]]) -> str:
        dates = dt.date(2021, 1, 1), to_date(UNTIL)
        return add_verdicts(cube, "toy-verdicts", GRID, verdicts, said, epoch=EPOCH, dates=dates, source="toy.gpkg")

    assert verdict_key(cube.view(), "toy-verdicts") is None
    first = add(verdict(CLEARING, slice(0, 9), 2000), {"a": ("confirmed", "fire", "r1")})
    assert add(verdict(CLEARING, slice(0, 9), 2000), {"a": ("confirmed", "fire", "r1")}) == first
    key = verdict_key(cube.view(), "toy-verdicts")
    second = add(verdict(REJECTED, slice(5, 12), 2100), {"b": ("rejected", "", "r2")})
    assert verdict_key(cube.view(), "toy-verdicts") != key
    now, then = (read_verdicts(cube.view(each), "toy-verdicts", "x0y0") for each in (second, first))
    assert now is not None
    assert then is not None
    assert now.label[:, 0].tolist()[:13] == [CLEARING] * 5 + [REJECTED] * 7 + [NO_LABEL]
    assert_array_equal(now.until[:12, 0], [2000] * 5 + [2100] * 7)
    assert (then.label[5:9] == CLEARING).all()
    assert said_of(cube.view(), "toy-verdicts").keys() == {"a", "b"}
    assert cube.view().labels("toy-verdicts").after == to_date(UNTIL)
    assert_array_equal(cube.view().labels("toy-verdicts").read("x0y0"), now.label)
    report = check(cube)
    assert not report.damage
    arrays = set(layout.LABEL_ARRAYS) | {"first", "until"}
    assert arrays <= set(
        zarr.open_group(cube.view().session.store, path="labels/toy-verdicts/x0y0", mode="r").array_keys()
    )
    assert report.chunks == len(arrays) - 1  # spatial_ref has nothing but attributes


def test_a_confirmed_patch_keeps_its_verdict_until_it_outgrows_it(tmp_path: Path) -> None:
    store = _stored(tmp_path)
    for tile_id in TILES:
        bands = store.read(tile_id)
        bands["status"][bands["status"] == CONFIRMED] = REVIEWED
        store.write(GRID.tile(tile_id), bands, {"reviewed": True})
    said = {"x0y0-0040-0236": ("confirmed", "fire", "r"), "x0y0-0100-0020": ("rejected", "season", "r")}
    frame = gpd.read_file(_publish(tmp_path, verdicts=said).polygons).set_index("alert_id")
    assert frame.loc["x0y0-0040-0236", ["status", "review", "reason"]].tolist() == [
        "confirmed by a person",
        "confirmed",
        "fire",
    ]
    # rejected before, and here again: to be judged anew
    assert frame.loc["x0y0-0100-0020", ["review", "reason"]].isna().all()
    # what a person confirmed is never too small
    assert "x0y0-0200-0100" in frame.index
