"""Drift on a generated landscape: a scene with an offset is held back, the others are not, and a release is for good."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geossl.cube.hold import held_scenes
from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import drift
from geossl.project.stages.run import stage

DRY = [
    f"{year}-{month:02}-{day:02}"
    for year in (2021, 2022)
    for month, day in ((5, 27), (6, 18), (7, 8), (8, 7), (9, 1), (9, 26))
]
LATER = ["2023-06-03", "2023-07-18", "2023-08-27"]
SPOILT = "20230718"


@pytest.fixture(scope="module")
def folder(small_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two dry seasons; three scenes of the next wait in ``later``, and one of them is off."""
    here = tmp_path_factory.mktemp("drift")
    dates = tuple(map(dt.date.fromisoformat, (*DRY, *LATER)))
    write_landscape(here / "imagery", LandscapeSettings(size=512, dates=dates))
    (here / "geossl.yaml").write_text((small_project / "geossl.yaml").read_text())
    (here / "later").mkdir()
    for scene in (here / "imagery" / "scenes").iterdir():
        if scene.name.split("_")[2] >= "2023":
            scene.rename(here / "later" / scene.name)
    for band in (here / "later").glob(f"*{SPOILT}*/B*.tif"):
        with rasterio.open(band) as file:
            pixels, profile = file.read(), file.profile
        profile |= {"driver": "GTiff", "interleave": "band"}
        for key in ("blockxsize", "blockysize", "tiled", "photometric"):
            profile.pop(key, None)
        with rasterio.open(band, "w", **profile) as file:
            file.write(np.where(pixels == 0, 0, pixels + 500).astype(pixels.dtype))
    return here


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_scene_with_an_offset_is_held_until_it_is_released(folder: Path) -> None:
    project = Project.load(folder)
    assert drift.run(project, silent).skipped
    for verb in ("ingest", "stats", "pretrain"):
        stage(verb)(project, silent)
    for scene in (folder / "later").iterdir():
        scene.rename(folder / "imagery" / "scenes" / scene.name)
    stage("ingest")(project, silent)
    result = drift.run(project, silent)
    held = held_scenes(project.cube().view().root[project.sensor.name])  # type: ignore[arg-type]
    assert [scene.split("_")[2] for scene in held] == [SPOILT]
    assert result.set_aside == 1
    assert next(iter(held.values())).startswith("offset")
    figures = json.loads((project.store / "drift" / "drift.json").read_text())
    assert {entry["scene"].split("_")[2] for entry in figures["scenes"] if entry["fault"]} == {SPOILT}
    assert (project.store / "drift" / "drift.png").stat().st_size > 5_000
    assert drift.figures(project) == figures
    assert drift.table(figures).row_count == len(LATER)

    [scene] = held
    clear = [
        float(project.scenes().clear_fraction(t)[project.scenes().scene_ids(t).index(scene)])
        for t in project.scenes().tile_ids
    ]
    assert clear == [0.0] * len(clear)
    assert drift.let_go(project, [scene]) == [scene]
    assert drift.run(project, silent).set_aside == 0
    assert not held_scenes(project.cube().view().root[project.sensor.name])  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_learnt_from_was_judged_before(folder: Path, tmp_path: Path) -> None:
    """An offset that comes in when drift was measured already is held before the training that it makes due."""
    here = tmp_path / "project"
    shutil.copytree(folder, here, ignore=shutil.ignore_patterns("store"))
    spoilt = next(path for path in (here).glob(f"*/**/*{SPOILT}*") if path.is_dir())
    spoilt = spoilt.rename(here / spoilt.name)
    policy = ["tasks={}", "split.gate=0.15", "retrain.hours=1", "retrain.new_pixels=0", "evaluate.floors=false"]
    project = Project.load(here, policy)
    for verb in ("ingest", "stats", "retrain", "drift"):
        stage(verb)(project, silent)
    spoilt.rename(here / "imagery" / "scenes" / spoilt.name)
    stage("ingest")(project, silent)
    assert not stage("retrain")(project, silent).skipped
    record = project.state.get("pretrain")
    assert record is not None
    learnt = project.cube().view(record.result["snapshot"])
    assert [scene.split("_")[2] for scene in held_scenes(learnt.root[project.sensor.name])] == [SPOILT]  # type: ignore[arg-type]
