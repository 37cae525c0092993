"""The main job from scenes to report, on a small generated landscape, by the stages themselves."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pyogrio
import pytest
import rasterio
from pyproj import Transformer
from rio_cogeo.cogeo import cog_validate

from geossl.cli.app import app
from geossl.cli.summary import score_table, time_table
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER
from geossl.downstream.task import load_task
from geossl.errors import SettingsError, StoreError
from geossl.legend import CHANGE
from geossl.progress import silent
from geossl.project import pictures
from geossl.project.project import Project
from geossl.project.stages.run import order, run_all, stage
from geossl.project.stages.scenes import quarantine_table, scene_table
from geossl.project.stages.status import status
from geossl.report.pictures import quicklook


@pytest.fixture(scope="module")
def project(small_project: Path) -> Project:
    project = Project.load(small_project)
    run_all(project, silent)
    return project


def test_a_second_run_does_nothing(project: Project) -> None:
    snapshot = project.cube().snapshot()
    assert [result.stage for result in run_all(project, silent) if not result.skipped] == []
    assert project.cube().snapshot() == snapshot


def test_every_scene_is_in_the_cube_once(project: Project) -> None:
    scenes = project.scenes()
    items = list((project.root / "imagery" / "scenes").glob("*/*.json"))
    for tile_id in scenes.tile_ids:
        ids = scenes.scene_ids(tile_id)
        assert len(ids) == len(set(ids)) <= len(items)
    assert scene_table(project).row_count == len(items) == status(project).scenes


def test_score_rows_have_every_floor_and_lie_between_0_and_1(project: Project) -> None:
    rows = project.scores()
    assert all(set(row) == {"task", "split", "labels", "model", "metric", "mean", "low", "high"} for row in rows)
    assert all(0 <= row["mean"] <= 1 for row in rows)
    landcover = {row["model"] for row in rows if row["task"] == "landcover"}
    assert {
        "majority class",
        "random forest, pixel",
        "random encoder, same head",
        "same network from scratch",
    } <= landcover
    assert landcover & {PRETRAINED, WITHOUT_ENCODER}
    clearing = {row["model"] for row in rows if row["task"] == "clearing"}
    assert {"pretrained", "CVA", "CVA, 5×5 means", "same network from scratch"} <= clearing


def test_the_closing_tables_name_every_task_and_stage(project: Project) -> None:
    assert score_table(project).row_count == len(project.settings.tasks)
    assert time_table(project).row_count == len(project.state.records()) + 1


@pytest.mark.parametrize("task", ["landcover", "clearing"])
def test_maps_are_valid_cogs_that_gis_tools_can_read(project: Project, task: str) -> None:
    folder = project.maps / task / "latest"
    valid, errors, _ = cog_validate(folder / f"{task}.tif", strict=True, quiet=True)
    assert valid, errors
    legend = project.cube().view().labels(task).legend
    with rasterio.open(folder / f"{task}.tif") as raster:
        assert raster.crs.to_string() == project.grid().crs
        assert {code: raster.colormap(1)[code] for code in legend.codes} == {
            code: color for code, color in legend.colormap().items() if code in legend.codes
        }
        assert set(np.unique(raster.read(1))) <= {*legend.codes, 255}
    polygons = pyogrio.read_dataframe(folder / f"{task}-polygons.gpkg")
    assert {"area_ha", "date_from", "date_to"} <= set(polygons.columns)


def test_every_map_is_in_the_qgis_project_over_the_newest_imagery(project: Project) -> None:
    with zipfile.ZipFile(project.maps / "maps.qgz") as archive:
        content = ET.fromstring(archive.read("maps.qgs"))
    layers = {layer.findtext("id"): str(layer.findtext("datasource")) for layer in content.iter("maplayer")}
    assert {"landcover_map", "clearing_polygons", "clearing_change_date", "imagery_background"} <= set(layers)
    assert all((project.maps / source.partition("|")[0]).is_file() for source in layers.values())
    with rasterio.open(project.maps / "background.tif") as picture:
        assert picture.crs.to_string() == project.grid().crs
        assert picture.read(4).mean() > 100


def test_a_pixel_is_traced_to_the_scenes_behind_its_composite(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with rasterio.open(project.maps / "landcover" / "latest" / "landcover.tif") as raster:
        code = int(raster.read(1)[100, 150])
        at = raster.transform @ (150.5, 100.5)
        lon, lat = Transformer.from_crs(raster.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(*at)
    verb = ["lineage", "landcover", "--at", f"{lon},{lat}", "-p", str(project.root)]
    assert app([*verb, "--json"], result_action="return_value") == 0
    found = json.loads(capsys.readouterr().out)
    champion = project.registry.find("landcover", "champion")
    assert champion is not None
    assert found["code"] == code
    assert found["model"] == champion.folder.rsplit("/", 1)[-1]
    assert found["snapshot"] in (project.maps / "landcover" / "latest" / "landcover-lineage.json").read_text()
    (scenes,) = found["scenes"]
    start, end = found["sources"][0]["first"], found["sources"][0]["last"]
    days = dict(zip(project.scenes().scene_ids(found["tile"]), project.scenes().times(found["tile"]), strict=True))
    assert scenes
    assert all(start <= str(days[scene])[:10] <= end for scene in scenes)
    assert app(verb, result_action="return_value") == 0
    printed = capsys.readouterr().out
    for part in (found["model"], found["snapshot"], f"made from {scenes[0]}"):
        assert part in printed
    with pytest.raises(StoreError, match=r"no published map 'forest'(.|\n)*there are: clearing, landcover"):
        app(["lineage", "forest", "--at", "1,2", "-p", str(project.root)], result_action="return_value")
    with pytest.raises(StoreError, match=r"landcover/1999(.|\n)*there are: landcover/20"):
        app(["lineage", "landcover/1999", "--at", "1,2", "-p", str(project.root)], result_action="return_value")


@pytest.mark.parametrize("task", ["landcover", "clearing"])
def test_the_reports_maps_lie_on_the_imagery_that_they_were_made_from(project: Project, task: str) -> None:
    data, statistics = project.task_data(task), project.task_images().statistics or project.scenes().statistics
    assert statistics is not None
    path = project.maps / task / "latest" / f"{task}.tif"
    shown = pictures.class_map(path, task, CHANGE, data, statistics)
    assert shown.before is not None
    assert (shown.ground is None) == (task == "landcover")
    grid = data.collection.grid
    with rasterio.open(path) as raster:
        assert shown.codes.shape == raster.shape, "small enough not to be thinned out"
        top, left = (
            round(v) for v in ((grid.origin[1] - raster.bounds.top) / 10, (raster.bounds.left - grid.origin[0]) / 10)
        )
    for row, col in np.random.default_rng(0).integers(0, min(shown.codes.shape), (20, 2)).tolist():
        tile = grid[(left + col) // grid.tile_size, (top + row) // grid.tile_size]
        y, x = (top + row) % grid.tile_size, (left + col) % grid.tile_size
        steps = data.steps(tile.id)
        assert steps is not None
        for picture, step in zip((shown.before, shown.ground), steps, strict=False):
            assert picture is not None
            pixel = np.asarray(data.collection.image(tile.id)[step])[:, y : y + 1, x : x + 1]
            np.testing.assert_array_equal(picture[row, col], quicklook(pixel, data.sensor, statistics)[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["landcover", "clearing"])
def test_a_task_goes_to_qgis_as_onnx_with_the_maps_probabilities(
    project: Project, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    verb = ["export", "model", name, "--out", str(path), "-p", str(project.root)]
    assert app(verb, result_action="return_value") == 0
    champion = project.registry.find(name, "champion")
    assert champion is not None
    task, data = load_task(project.store / champion.folder), project.task_data(name)
    assert task.id in capsys.readouterr().out
    images, valid = data.images(data.tile_ids[0])
    side = task.window
    images, valid = images[None, ..., :side, :side], valid[None, ..., :side, :side]
    # as the person exports it: no-data wherever it is not clear
    stored = np.where(valid[:, :, None], images, np.array(task.sensor.radiometry.nodata, images.dtype))
    session = onnxruntime.InferenceSession(str(path))
    scaled = np.float32(stored.reshape(1, -1, side, side) * 1.0 / 255.0)
    (found,) = session.run(None, {session.get_inputs()[0].name: scaled})
    expected = task.predict(images, valid) if task.dates == 2 else task.predict(images[:, 0], valid[:, 0])
    np.testing.assert_allclose(found[:, : len(task.legend)], expected, atol=1e-4)
    with pytest.raises(StoreError, match=r"'forest' has no model(.|\n)*landcover"):
        app(["export", "model", "forest", "--out", str(path), "-p", str(project.root)], result_action="return_value")


def test_the_encoder_kept_its_history(project: Project) -> None:
    with (project.encoder_folder() / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, *rows = rows
    assert rows
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    # both tasks' labels were watched, from before the first step to the end
    assert first["step"] == "0"
    for task in project.settings.tasks:
        assert all(0 <= float(row[f"knn_{task}"]) <= 1 for row in (first, rows[-1]))


def test_the_report_needs_no_other_file(project: Project) -> None:
    page = project.report_file.read_text(encoding="utf-8")
    assert [url for url in re.findall(r"""(?:src|href)=["']([^"'#]+)""", page) if not url.startswith("data:")] == []
    for verb in ("ingest", "stats", "pretrain", "evaluate"):
        assert verb in page
    assert len(re.findall(r'alt="A view of chip \d+"', page)) == 16


def test_new_imagery_is_ingested_alone(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "later"
    shutil.copytree(project.root, root, symlinks=True)
    late = max((root / "imagery" / "scenes").iterdir())
    held = tmp_path / late.name
    shutil.move(late, held)
    shutil.rmtree(root / "store")
    later = Project.load(root)
    stage("ingest")(later, silent)
    before = {tile: later.scenes().scene_ids(tile) for tile in later.scenes().tile_ids}
    shutil.move(held, late)
    result = stage("ingest")(later, silent)
    assert "1 scenes ingested" in result.lines[0]
    for tile, ids in before.items():
        assert later.scenes().scene_ids(tile)[: len(ids)] == ids


def test_a_bad_scene_is_set_aside_and_the_others_are_ingested(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    shutil.copytree(project.root / "imagery", root / "imagery")
    shutil.copy(project.root / "geossl.yaml", root)
    first, second, third, *_ = sorted((root / "imagery" / "scenes").iterdir())
    truncated = first / "B04.tif"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    (second / "B03.tif").write_text("<html>not found</html>")
    (third / "B02.tif").unlink()
    bad = Project.load(root)
    result = stage("ingest")(bad, silent)
    assert result.set_aside == 3
    assert any("B04.tif" in line for line in result.lines), result.lines
    assert any("B03.tif" in line for line in result.lines), result.lines
    assert any("B02" in line for line in result.lines), result.lines
    assert quarantine_table(bad).row_count == 3
    present = {scene for tile in bad.scenes().tile_ids for scene in bad.scenes().scene_ids(tile)}
    assert present.isdisjoint({first.name, second.name, third.name})
    assert len(present) == len(list((root / "imagery" / "scenes").iterdir())) - 3


def test_stages_before_their_time_name_the_one_to_run(project: Project, tmp_path: Path) -> None:
    empty = dataclasses.replace(project, root=tmp_path)
    for verb in order(project)[1:]:
        if verb == "alerts":  # none are wanted here
            continue
        with pytest.raises(StoreError, match="geossl ingest"):
            stage(verb)(empty, silent)


def test_no_scene_at_all_says_where_it_looked(project: Project, tmp_path: Path) -> None:
    (tmp_path / "imagery" / "scenes").mkdir(parents=True)
    shutil.copy(project.root / "geossl.yaml", tmp_path)
    with pytest.raises(SettingsError, match="imagery/scenes"):
        stage("ingest")(Project.load(tmp_path), silent)
