"""The loop on a small landscape: due or not, trained within its hours, gated, and picked up where it was cut off."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from geossl.errors import SettingsError
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import finetune, retrain
from geossl.project.stages.run import order, run_all, stage
from geossl.project.state import State
from geossl.project.trainings import Trainings
from geossl.registry import Registry

LOOP = [
    "split.gate=0.15",
    "split.block=32",
    "retrain.hours=1",
    "retrain.new_pixels=0.2",
    "tasks.clearing.labels=null",
    "evaluate.floors=false",
]


@pytest.fixture(scope="module")
def folder(small_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose last two scenes have not arrived yet; they wait in ``later``."""
    here = tmp_path_factory.mktemp("loop")
    shutil.copytree(small_project / "imagery", here / "imagery")
    shutil.copy(small_project / "geossl.yaml", here)
    (here / "later").mkdir()
    for scene in sorted((here / "imagery" / "scenes").iterdir())[-2:]:
        scene.rename(here / "later" / scene.name)
    return here


def arrive(folder: Path) -> None:
    """The scene that has waited longest comes in."""
    scene = min((folder / "later").iterdir())
    scene.rename(folder / "imagery" / "scenes" / scene.name)


def champions(project: Project) -> dict[str, int]:
    return {task: project.registry.aliases(task)["champion"] for task in project.settings.tasks}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loop_on_a_landscape_whose_scenes_arrive_one_by_one(folder: Path) -> None:
    project = Project.load(folder, LOOP)
    assert order(project) == ("ingest", "drift", "stats", "retrain", "map", "alerts", "report")
    run_all(project, silent)
    assert champions(project) == {"landcover": 1, "clearing": 1}
    assert all(result.skipped for result in run_all(project, silent))
    [first] = Trainings(project.store).all()
    assert first.finished
    assert first.why == "there is no encoder yet"

    # a new scene is ingested and mapped; it is too little to learn again where half as much is asked for
    arrive(folder)
    patient = Project.load(folder, [*LOOP, "retrain.new_pixels=0.9"])
    done = {result.stage: result for result in run_all(patient, silent)}
    assert not done["ingest"].skipped
    assert not done["map"].skipped
    assert "not due" in done["retrain"].lines[0]
    assert patient.registry.aliases("landcover") == {"champion": 1, "anchor": 1}

    # due, but its hours are used up
    poor = Project.load(folder, [*LOOP, "retrain.hours=1e-9"])
    assert "waits for next month" in retrain.run(poor, silent).lines[0]
    assert len(Trainings(project.store).all()) == 1

    # due and paid for: every task has a challenger, and the gate has decided on it or could not
    result = retrain.run(project, silent)
    assert not result.skipped
    assert len(Trainings(project.store).all()) == 2
    [decision] = project.registry.decisions("landcover")
    assert decision["challenger"] == 2
    assert decision["decision"]["blocks"] >= 12
    assert champions(project)["landcover"] == (2 if decision["decision"]["passed"] else 1)
    assert champions(project)["clearing"] == 2, "without labels there is nothing to compare by"
    assert retrain.run(project, silent).skipped
    assert len(project.registry.decisions("landcover")) == 1

    # a challenger that is worse on purpose: two labelled pixels
    before = champions(project)["landcover"]
    scores = project.scores()
    worse = Project.load(folder, [*LOOP, "tasks.landcover.settings.labels=8", "tasks.landcover.settings.mode=few"])
    lines = retrain.run(worse, silent).lines
    assert any("does not replace the champion" in line for line in lines)
    assert champions(project)["landcover"] == before
    assert project.scores() == scores, "scores are those of the model that makes the maps"
    assert len(Trainings(project.store).all()) == 2, "the encoder was not trained again"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_that_was_cut_off_goes_on_with_its_own_snapshot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.load(folder, LOOP)
    run_all(project, silent)
    arrive(folder)
    stage("ingest")(project, silent)
    stage("stats")(project, silent)
    snapshot = project.cube().snapshot()

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geossl.project.stages.pretrain.pretrain", cut_off)
    with pytest.raises(KeyboardInterrupt):
        retrain.run(project, silent)
    assert not Trainings(project.store).all()[-1].finished
    monkeypatch.undo()
    # something else is written in between
    project.cube().transact(lambda session: _touch(session))
    assert project.cube().snapshot() != snapshot
    assert not retrain.run(project, silent).skipped
    record = project.state.get("pretrain")
    assert record is not None
    assert record.result["snapshot"] == snapshot


def _touch(session: object) -> str:
    import zarr

    zarr.open_group(session.store, mode="r+").attrs["touched"] = True  # type: ignore[attr-defined]
    return "touched"


def test_hours_are_counted_by_calendar_month_and_device(tmp_path: Path) -> None:
    log = Trainings(tmp_path)
    with log.running("why", "SNAPSHOT", 4, silent):
        pass
    [training] = log.all()
    assert training.finished
    assert log.hours(dt.datetime.now(dt.UTC).date()) == pytest.approx(training.seconds * 4 / 3600)
    assert log.hours(dt.date(2001, 1, 1)) == 0


def test_a_policy_needs_gate_blocks_and_a_verb_a_policy(small_project: Path) -> None:
    with pytest.raises((SettingsError, ValidationError), match="gate"):
        Project.load(small_project, ["retrain.hours=1"])
    with pytest.raises(SettingsError, match="no `retrain`"):
        retrain.run(Project.load(small_project), silent)


def loop_state(store: Path) -> Any:
    """As much of a project as the loop's bookkeeping asks for."""
    cube = SimpleNamespace(view=lambda _: None)
    return SimpleNamespace(store=store, state=State(store), registry=Registry(store), cube=lambda: cube)


def test_scores_follow_the_champion_whenever_the_loop_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geossl.mirror.Mirror.update", lambda *_: None)
    project = loop_state(tmp_path)

    def challenger(model: str) -> None:
        with project.state.recording("challenger.loss", f"key-{model}") as result:
            result.update(model=model, by_hand=f"hand-{model}", scores=[model])
            project.registry.register("loss", tmp_path / "tasks" / "loss" / model)

    def noted() -> list[str]:
        finetune.settle(project, "loss")
        return project.state.get("finetune.loss").result["scores"]

    challenger("a")
    assert noted() == ["a"], "the first is champion at once"
    challenger("b")
    assert noted() == ["a"], "nothing was decided yet"
    project.registry.promote("loss", 2, why="by hand, or by a loop that was killed here")
    assert noted() == ["b"]
    assert project.state.fresh("finetune.loss", "hand-b") is not None
    with project.state.recording("finetune.loss", "later") as result:
        result.update(model="b", scores=["scored anew by hand"])
    assert noted() == ["scored anew by hand"]


def test_a_training_that_was_overtaken_is_not_gone_back_to(tmp_path: Path) -> None:
    project, log = loop_state(tmp_path), Trainings(tmp_path)
    with pytest.raises(KeyboardInterrupt), log.running("why", "OLD", 1, silent):
        raise KeyboardInterrupt
    assert retrain._cut_off(project, log) == log.all()[-1]
    with project.state.recording("pretrain", "by hand") as result:
        result["snapshot"] = "NEW"
    assert retrain._cut_off(project, log) is None
