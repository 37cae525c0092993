"""The main job from scenes to report, on a small generated landscape, by the stages themselves."""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from geossl.cli.summary import score_table, time_table
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER
from geossl.errors import SettingsError, StoreError
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import ORDER, run_all, stage
from geossl.project.stages.scenes import quarantine_table, scene_table
from geossl.project.stages.status import status


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
    for verb in ORDER[1:]:
        with pytest.raises(StoreError, match="geossl ingest"):
            stage(verb)(empty, silent)


def test_no_scene_at_all_says_where_it_looked(project: Project, tmp_path: Path) -> None:
    (tmp_path / "imagery" / "scenes").mkdir(parents=True)
    shutil.copy(project.root / "geossl.yaml", tmp_path)
    with pytest.raises(SettingsError, match="imagery/scenes"):
        stage("ingest")(Project.load(tmp_path), silent)
