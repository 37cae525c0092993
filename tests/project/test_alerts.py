"""Alerts of a whole project: from scenes to alerts, to verdicts in QGIS, and back."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import icechunk
import numpy as np
import pytest
import rasterio
import shapely
import zarr

from geossl.bands import Statistics
from geossl.cli.app import app
from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.repository import Cube
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.grid import Grid
from geossl.legend import NO_LABEL
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NONE
from geossl.maps.alerts.tiles import REVIEWED
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import alerts
from geossl.project.stages.alerts_score import scores, tables
from geossl.project.stages.report import _alerts as _alerts_of_report
from geossl.project.stages.run import stage

FILE = """\
name: painted
store: store
grid: { tile: 256 }
sensor: { name: sentinel-2-l2a, bands: [B04, B08, B11] }
sources: [{ kind: folder, path: imagery }]
composite: null
alerts:
  forest: { since: 2022-02-01, reference: { path: truth.gpkg, date_column: date } }
"""
# stored reflectance of red, near and short-wave infrared
WOOD, SOIL = (300, 3200, 1400), (1600, 2500, 3600)
CLEARED, FLICKER = np.s_[40:70, 240:280], np.s_[90:110, 40:60]
"""Gone from March on; and what looks so in March and April alone."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two tiles whose scenes are in the cube: monthly from 2021-12, with forest in the north."""
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "geossl.yaml").write_text(FILE)
    opened = Project.load(folder)
    grid = Grid("EPSG:32722", 10, 256)
    rng = np.random.default_rng(0)

    def fill(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        collection = layout.create_collection(root, opened.sensor.name, opened.sensor, grid)
        tiles = [layout.create_tile(collection, grid[ix, 0], opened.sensor) for ix in (0, 1)]
        for month in range(6):
            image = np.empty((3, 256, 512))
            image[:] = np.array(WOOD)[:, None, None]
            for place in [np.s_[160:, :], *([CLEARED] if month > 2 else []), *([FLICKER] if month in (3, 4) else [])]:
                image[:, *place] = np.array(SOIL)[:, None, None]
            # each month in another light
            image = ((1 + 0.1 * month) * image + rng.normal(scale=80, size=image.shape)).astype(np.int16)
            clear = np.zeros((256, 512), np.uint8)
            time = np.datetime64("2021-12", "M") + np.timedelta64(month, "M")
            for ix, group in enumerate(tiles):
                half = np.s_[..., 256 * ix : 256 * ix + 256]
                step = layout.Step(f"scene-{time}", np.datetime64(f"{time}-05", "ns"), "", np.ones((1, 1), np.float32))
                layout.append_step(group, step, image[half], clear[half])
        layout.set_statistics(collection, Statistics((1,) * 3, *[(1000.0,) * 3] * 6))
        return "painted"

    Cube.create(opened.cube_uri).transact(fill)
    rows, cols = CLEARED
    x, y = grid.origin
    truth = shapely.box(x + cols.start * 10, y - rows.stop * 10, x + cols.stop * 10, y - rows.start * 10)
    frame = gpd.GeoDataFrame({"date": ["2022-02-20"]}, geometry=[truth], crs=grid.crs)
    frame.to_file(folder / "truth.gpkg", driver="GPKG")
    return folder


def _latest(folder: Path, name: str) -> Path:
    return folder / "store" / "alerts" / "forest" / "latest" / name


def _alerts(folder: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(_latest(folder, "forest.gpkg")).sort_values("area_ha", ascending=False, ignore_index=True)


def test_alerts_find_what_was_cleared_and_a_second_run_does_nothing(project: Path) -> None:
    opened = Project.load(project)
    result = stage("alerts")(opened, silent)
    assert "6 scenes looked at, 2 of 2 tiles updated" in result.lines[0]
    assert stage("alerts")(opened, silent).skipped
    found = _alerts(project)
    assert found.area_ha.tolist() == pytest.approx([12, 4], rel=0.03)
    assert found.status.tolist() == ["confirmed", "confirmed"]
    assert str(found.first_date[0].date()) == "2022-03-05"
    assert str(found.confirmed_date[0].date()) == "2022-04-05"
    assert str(found.standing_date[0].date()) == "2022-02-05"
    judged = scores(opened, silent)["forest"]
    (clearing,) = judged.clearings
    assert clearing.detected - clearing.day == 13
    total = judged.total(sure=True)
    assert total["omission"] < 0.02
    assert total["commission"] == pytest.approx(4 / 16, abs=0.05)
    lines = [part for part in tables("forest", judged) if isinstance(part, str)]
    assert any("to detection 13, to confirmation 44" in line for line in lines)
    assert [name for name in opened.cube().tags() if name.startswith("alerts-forest-")]

    # where people look: the report's sheet
    [sheet] = _alerts_of_report(opened)
    assert sheet.notes[0] == f"2 alerts (2 confirmed), {found.area_ha.sum():.1f} ha in all"
    assert [row[:3] for row in sheet.rows] == [("2022-03-05", "confirmed", f"{area:.1f}") for area in found.area_ha]
    assert sheet.map.ground is not None
    assert (sheet.map.codes[CLEARED] == CONFIRMED).mean() > 0.9


def test_news_elsewhere_makes_no_other_release(project: Path) -> None:
    opened = Project.load(project)
    stage("alerts")(opened, silent)
    release = _latest(project, "").resolve()

    def elsewhere(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        layout.create_tile(subgroup(root, opened.sensor.name), Grid("EPSG:32722", 10, 256)[9, 9], opened.sensor)
        return "another tile"

    opened.cube().transact(elsewhere)
    assert not stage("alerts")(opened, silent).skipped
    assert _latest(project, "").resolve() == release


def test_verdicts_go_through_qgis_and_are_respected(project: Path) -> None:
    opened = Project.load(project)
    stage("alerts")(opened, silent)
    file = _latest(project, "forest.gpkg").resolve()
    frame = _alerts(project)
    kept, gone = frame.alert_id
    judged = frame.assign(review=["confirmed", "rejected"], reason=["clear-cut", "season"])
    file.unlink()
    judged.to_file(file, driver="GPKG", layer="alerts")
    assert app(["alerts", "review", str(file), "--project", str(project)], result_action="return_value") == 0
    assert alerts.review(opened, file, silent).skipped
    assert "forest-verdicts" in opened.cube().view().label_names()

    result = stage("alerts")(opened, silent)
    assert "0 scenes looked at, 2 of 2 tiles updated" in result.lines[0]
    assert stage("alerts")(opened, silent).skipped
    again = _alerts(project)
    assert again.alert_id.tolist() == [kept]
    assert again.loc[0, ["status", "review", "reason"]].tolist() == ["confirmed by a person", "confirmed", "clear-cut"]
    assert gone not in again.alert_id.tolist()
    with rasterio.open(_latest(project, "forest-status.tif")) as status:
        code = status.read(1)
    assert (code[CLEARED] == REVIEWED).mean() > 0.97
    assert (code[FLICKER] == NONE).all()


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("alerts.forest.since=2020-01-01", StoreError, "no clear image before 2020-01-01"),
        ("alerts.forest.forest={task: cover}", SettingsError, "'cover' is no land-cover task"),
    ],
)
def test_what_cannot_be_monitored_is_said(project: Path, override: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        stage("alerts")(Project.load(project, [override]), silent)


def test_a_year_is_no_day_to_be_judged_by(project: Path) -> None:
    frame = gpd.read_file(project / "truth.gpkg").assign(date=2022)
    frame.to_file(project / "years.gpkg", driver="GPKG")
    override = "alerts.forest.reference.path=years.gpkg"
    with pytest.raises(LabelError, match="holds years such as 2022"):
        scores(Project.load(project, [override]), silent)


def test_without_a_reference_there_is_nothing_to_be_judged_by(project: Path) -> None:
    with pytest.raises(SettingsError, match="no monitor has a reference"):
        scores(Project.load(project, ["alerts.forest.reference=null"]), silent)


PUCALLPA = """\
name: pucallpa
sensor:
  name: landsat-composite
  dtype: uint8
  nodata: 0
  bands:
    - { name: swir1, gsd: 90, common_name: swir16 }
    - { name: nir, gsd: 90, common_name: nir }
    - { name: red, gsd: 90, common_name: red }
    - { name: green, gsd: 90, common_name: green }
grid: { resolution: 90 }
sources:
  - { kind: folder, path: landing, pattern: "{date:%Y}.tif", bands: [swir1, nir, red, green], scene: pucallpa }
composite: null
alerts:
  forest: { since: 1996-01-01, expire_days: 4000, minimum_ha: 5 }
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pucallpa_years_that_come_late_end_as_all_at_once(shared_data: Path, tmp_path: Path) -> None:
    years = sorted((shared_data / "pucallpa-landsat-series").glob("*.tif"))
    found = {}
    for name, arrivals in (("late", [years[:3] + years[6:], years[3:6]]), ("all", [years])):
        folder = tmp_path / name
        (folder / "landing").mkdir(parents=True)
        (folder / "geossl.yaml").write_text(PUCALLPA)
        for new in arrivals:
            for path in new:
                (folder / "landing" / path.name).symlink_to(path)
            for verb in ("ingest", "stats", "alerts"):
                stage(verb)(Project.load(folder), silent)
        with rasterio.open(_latest(folder, "forest-date.tif")) as date:
            found[name] = date.read(1)
        with rasterio.open(_latest(folder, "forest-status.tif")) as status:
            code = status.read(1)
    np.testing.assert_array_equal(found["late"], found["all"])
    watched = code != NO_LABEL
    assert 0.3 < watched.sum() / (377 * 697) < 0.95
    # a frontier: much of the forest falls in 25 years, most of it confirmed by the next image, and not all of it
    assert 0.05 < np.isin(code, (CONFIRMED, DETECTED)).sum() / watched.sum() < 0.6
    assert (code == CONFIRMED).sum() > (code == DETECTED).sum()
