"""What people see beside runs: small, complete, and without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from geossl.downstream.evaluate import WITHOUT_ENCODER
from geossl.progress import silent
from geossl.project import show
from geossl.project.project import Project
from geossl.project.stages.run import run_all
from geossl.registry import Decision
from geossl.scores import Interval


@pytest.fixture(scope="module")
def project(small_project: Path) -> Project:
    run_all(Project.load(small_project), silent)
    return Project.load(small_project)


def test_scenes_come_newest_first_with_their_pictures(project: Project) -> None:
    rows = show.scene_table(project)
    times = [row["time (UTC)"] for row in rows if row["time (UTC)"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 5
    pictures = show.quicklooks(project)
    assert pictures is not None
    assert pictures.count("](data:image/webp;base64,") == 5
    assert len(pictures) < 300_000


def test_scores_stand_beside_floors(project: Project) -> None:
    rows = show.score_table(project)
    assert len(rows) == len(project.scores())
    assert {row["floor"] for row in rows} == {"", "floor"}
    # the chosen model may be one that does without the encoder
    ours = {row["model"] for row in rows if not row["floor"]} - {WITHOUT_ENCODER}
    assert all("pretrained" in model for model in ours)


def test_maps_and_curves_are_pictures(project: Project) -> None:
    for task in project.settings.tasks:
        found = show.map_preview(project, task)
        assert found is not None
        assert f"![map of {task}](data:image/" in found
        assert found.count("](data:image/webp;base64,") >= 2, "a colour a class"
    assert show.running_training(project) is None
    picture, figures = show.training(project.encoder_folder()) or ("", "")
    assert picture.startswith("data:image/svg+xml")
    assert figures.startswith("step ")
    assert "loss" in figures


def test_a_half_written_row_of_a_running_training_is_left_out(project: Project, tmp_path: Path) -> None:
    shutil.copy(project.encoder_folder() / "history.csv", tmp_path)
    whole = show.training(tmp_path)
    with (tmp_path / "history.csv").open("a") as file:
        file.write("99999,3,0.1")
    assert show.training(tmp_path) == whole


def test_the_gate_shows_what_it_compared(project: Project, tmp_path: Path) -> None:
    assert show.decisions(project) is None
    store = tmp_path / "store"
    shutil.copytree(project.store / "registry", store / "registry", ignore=shutil.ignore_patterns("*.db*"))
    other = Project(tmp_path, project.settings)
    worse = Decision(
        False,
        ("it may be worse",),
        "macro_f1",
        0.01,
        17,
        True,
        Interval(-0.05, -0.08, 0.01),
        Interval(-0.04, -0.07, 0.02),
    )
    (store / "model").mkdir()
    other.registry.register("landcover", store / "model")
    other.registry.decide("landcover", 2, worse)
    said = show.decisions(other)
    assert said is not None
    for part in ("version 2 **does not replace the champion**", "it may be worse", "-0.0800", "17 gate blocks"):
        assert part in said
