"""A year of a store: what is needed stays, all else is bounded, and nothing is lost by whoever is killed."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.cli.app import app
from geossl.cube.check import check
from geossl.cube.repository import Cube
from geossl.cube.scenes import quarantined, write_quarantine
from geossl.errors import StoreError
from geossl.files import write_json
from geossl.progress import silent
from geossl.project import litter
from geossl.project.needed import needed
from geossl.project.project import Project
from geossl.project.stages import maintain
from geossl.project.stages.maintain import GRACE
from geossl.project.stages.run import run_all
from geossl.project.trainings import Trainings

from .conftest import Quiet
from .store_world import TASK, World

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All snapshots of the cube are old, and nobody waits for MLflow."""
    monkeypatch.setattr("geossl.registry.Mirror", lambda *_: Quiet())
    monkeypatch.setattr("geossl.project.stages.maintain._keep", lambda _: dt.timedelta(0))


def later(days: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + days * DAY


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


OPERATIONS = ("commit", "train", "finetune", "publish", "sample", "freeze", "promote", "rollback", "anchor", "maintain")


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 20)), min_size=8, max_size=25))
def test_whatever_happens_lineage_resolves_and_rollback_works(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    registry, days = world.project.registry, 0.0
    world.train()
    world.finetune()
    release = world.publish()
    for name, number in operations:
        some = 1 + number % len(registry.versions(TASK))
        there = (world.project.store / registry.version(TASK, some).folder).is_dir()
        match name:
            case "commit" | "train" | "finetune":
                getattr(world, name)()
            case "publish":
                release = world.publish()
            case "sample" | "freeze":
                getattr(world, name)(release)
            case "promote" if there:
                registry.promote(TASK, some, why="by hand")
            case "anchor" if there:
                registry.pin_anchor(TASK, some, why="by hand")
            case "rollback" if registry.find(TASK, "previous") is not None:
                registry.rollback(TASK, why="by hand")
            case "maintain":
                days += number
                maintain.run(world.project, silent, now=later(days))
        world.require_lineage()
    for _ in range(3):
        days += 10
        maintain.run(world.project, silent, now=later(days))
        world.require_lineage()
    assert maintain.plan(world.project, now=later(days + 10)).now == []


def test_a_long_loop_leaves_bounded_models_encoders_tags_and_snapshots(world: World) -> None:
    counts = []
    for number in range(24):
        world.commit()
        world.train()
        version = world.finetune()
        if number % 3 == 0:
            world.project.registry.promote(TASK, version, why="better")
        release = world.publish()
        if number == 2:
            world.freeze(release)
            world.sample(release)
        maintain.run(world.project, silent, now=later(number))
        world.require_lineage()
        cube = Cube.open(world.cube.uri)
        counts.append(
            (
                len(names(world.project.tasks / TASK)),
                len(names(world.project.encoders)),
                len(cube.tags()),
                len(cube.log()),
            )
        )
    # a week of what was needed last, at one a day; then no more comes on top
    assert max(counts[16:]) <= tuple(n + 3 for n in counts[15])
    assert max(count[0] for count in counts) < 16
    assert max(count[2] for count in counts) < 60


def test_nothing_goes_that_was_of_use_or_written_within_the_grace(world: World) -> None:
    world.train()
    world.finetune()
    world.publish()
    for _ in range(5):
        world.train()
        world.project.registry.promote(TASK, world.finetune(), why="better")
        world.publish()
    first = world.project.tasks / TASK / world.project.registry.version(TASK, 2).folder.rpartition("/")[2]
    assert first.is_dir()
    for days in (0, 6.9):
        maintain.run(world.project, silent, now=later(days))
        assert first.is_dir()
    # in use again meanwhile, so it is not what was of no use for a week
    world.project.registry.promote(TASK, 2, why="by hand")
    maintain.run(world.project, silent, now=later(7.1))
    assert first.is_dir()
    for number in (3, 4, 5, 6):
        world.project.registry.promote(TASK, number, why="by hand")
        world.publish(again=False)
    maintain.run(world.project, silent, now=later(14))
    assert first.is_dir()
    os.utime(first / "card.json", times=(later(20).timestamp(),) * 2)
    maintain.run(world.project, silent, now=later(22))
    assert first.is_dir(), "somebody wrote there two days ago"
    maintain.run(world.project, silent, now=later(28))
    assert not first.exists()
    world.require_lineage()


def test_dry_run_says_what_goes_and_changes_nothing(world: World) -> None:
    world.train()
    world.project.registry.promote(TASK, world.finetune(), why="first")
    world.train()
    for key in ("a" * 16, "b" * 16):
        (world.project.encoders / f"unfinished-{key}").mkdir()
        (world.project.encoders / f"unfinished-{key}" / "log.txt").write_bytes(bytes(5_000_000))
    partial = world.project.maps / TASK / "releases" / ".partial-1-2024"
    partial.mkdir(parents=True)
    (partial / ".partial-1-half.tif").write_bytes(bytes(3_000_000))
    first = maintain.plan(world.project)
    assert first.now == []
    told = "\n".join(first.lines())
    assert "unless they are needed again: 1 unfinished trainings, 1 leftovers of what was killed (8.0MB)" in told
    maintain.run(world.project, silent)
    before = sorted(path for path in world.project.store.rglob("*"))
    told = "\n".join(maintain.plan(world.project, now=later(8)).lines())
    assert "1 leftovers of what was killed (3.0MB)" in told
    assert ".partial-1-2024" in told
    assert sorted(path for path in world.project.store.rglob("*")) == before
    maintain.run(world.project, silent, now=later(8))
    assert not partial.exists()


def test_the_training_that_may_go_on_keeps_its_checkpoints_and_snapshot(world: World) -> None:
    world.train()
    snapshot = world.commit()
    key = "c" * 16
    world.cube.tag(f"pretrain-{key}", snapshot)
    unfinished = world.project.encoders / f"unfinished-{key}"
    (unfinished / "checkpoints").mkdir(parents=True)
    log = Trainings(world.project.store)
    with pytest.raises(KeyboardInterrupt), log.running("why", snapshot, 1, silent):
        raise KeyboardInterrupt
    world.commit()
    for days in (0, 30, 60):
        maintain.run(world.project, silent, now=later(days))
        assert unfinished.is_dir()
        assert world.cube.view(f"pretrain-{key}").snapshot == snapshot
    world.train()  # an encoder came since: nobody goes back
    for days in (61, 70):
        maintain.run(world.project, silent, now=later(days))
    assert not unfinished.exists()


def test_what_is_moved_away_while_it_is_looked_at_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    find, gone = litter.find, world.project.store / "maps" / ".partial-1-gone"

    def found(*about: Any) -> Iterator[litter.Item]:
        yield from find(*about)
        yield litter.Item("leftovers of what was killed", "maps/.partial-1-gone", gone)

    monkeypatch.setattr(litter, "find", found)
    world.train()
    plan = maintain.plan(world.project, now=later(6))
    assert gone not in [item.path for item in plan.now]
    assert gone in [item.path for item, _ in plan.later.values()]
    assert plan.lines()
    maintain.run(world.project, silent, now=later(6))


def test_pictures_beyond_the_limit_go_the_oldest_first(tmp_path: Path) -> None:
    world = World(tmp_path, "keep.quicklooks=3")
    world.project.quicklooks.mkdir()
    for number in range(5):
        path = world.project.quicklooks / f"scene-{number}.png"
        path.write_bytes(b"png")
        os.utime(path, (1000 + number, 1000 + number))
    maintain.run(world.project, silent)
    maintain.run(world.project, silent, now=later(8))
    assert names(world.project.quicklooks) == {"scene-2.png", "scene-3.png", "scene-4.png"}


def test_embeddings_by_older_encoders_go_and_milvus_stays(world: World) -> None:
    for name in ("old", "new"):
        write_json(world.project.embeddings / name / "_about.json", {})
    (world.project.embeddings / "milvus.db" / "collections").mkdir(parents=True)
    with world.project.state.recording("embed", "key") as result:
        result.update(folder="new", snapshot=world.cube.snapshot())
    for days in (0, 8):
        maintain.run(world.project, silent, now=later(days))
    assert names(world.project.embeddings) == {"new", "milvus.db"}


def test_tags_of_people_stay_and_a_name_can_come_back(world: World) -> None:
    snapshot = world.commit()
    world.cube.tag("before-the-fire", snapshot)
    world.cube.tag("embed-" + "d" * 16, snapshot)
    world.commit()
    for days in (0, 8):
        maintain.run(world.project, silent, now=later(days))
    assert world.cube.tags() == {"before-the-fire": snapshot}
    assert world.cube.view("before-the-fire").id
    newest = world.cube.snapshot()
    for _ in range(3):
        world.cube.tag("embed-" + "d" * 16, newest)
        assert world.cube.tags()["embed-" + "d" * 16] == newest
        world.cube.untag("embed-" + "d" * 16)


def test_tags_in_the_cube_of_another_project_end_with_their_use(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    theirs = World(tmp_path / "theirs")
    pooled = f"{{collection: x, cube: {theirs.cube.uri}}}"
    ours = World(tmp_path / "ours", f"pretrain.pool=[{pooled}]")
    first = ours.train()
    key = ours.project.state.get("pretrain").key
    theirs.cube.tag(f"pool-long-pretrain-{key}", theirs.cube.snapshot())
    theirs.cube.tag("pool-another-pretrain-1", theirs.cube.snapshot())
    for days in (0, 8):
        maintain.run(ours.project, silent, now=later(days))
        maintain.run(theirs.project, silent, now=later(days))
    assert theirs.cube.tags().keys() == {f"pool-long-pretrain-{key}", "pool-another-pretrain-1"}
    assert ours.train() != first
    for days in (10, 18):
        maintain.run(ours.project, silent, now=later(days))
    assert theirs.cube.tags().keys() == {"pool-another-pretrain-1"}


def test_records_of_what_was_set_aside_go_with_its_files(world: World, tmp_path: Path) -> None:
    name, there = world.project.sensor.name, tmp_path / "broken.tif"
    there.touch()
    entries = {str(there): ("broken", ""), str(tmp_path / "gone.tif"): ("broken", ""), "S2_OF_A_SERVER": ("404", "")}

    def work(session: Any) -> str:
        write_quarantine(zarr.open_group(session.store, mode="r+"), name, entries)
        return "set aside"

    world.cube.transact(work)
    for _ in range(2):
        maintain.run(world.project, silent)
        left = {item.source for item in quarantined(world.cube.view(), name)}
        assert left == {str(there), "S2_OF_A_SERVER"}


def test_a_version_whose_model_is_gone_is_not_promoted(world: World) -> None:
    world.train()
    world.finetune()
    shutil.rmtree(world.project.store / world.project.registry.version(TASK, world.finetune()).folder)
    command = ["promote", TASK, "2", "--why", "I want it", "--project", str(world.project.root)]
    with pytest.raises(StoreError, match="still there: 1"):
        app(command, result_action="return_value")


def test_a_damaged_lineage_stops_everything(world: World) -> None:
    world.train()
    world.finetune()
    release = world.publish()
    (world.project.maps / TASK / "releases" / release / f"{TASK}-lineage.json").write_text("{")
    with pytest.raises(StoreError, match="nothing is known"):
        needed(world.project)
    with pytest.raises(StoreError, match="nothing is known"):
        maintain.run(world.project, silent, now=later(8))


SCRIPT = """
import datetime as dt, sys
from pathlib import Path
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import maintain
maintain._keep = lambda _: dt.timedelta(0)
project, shift, times = Project.load(Path(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for _ in range(times):
    maintain.run(project, silent, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=shift))
"""


@pytest.mark.slow
def test_killed_at_any_time_the_next_run_goes_on(world: World) -> None:
    def grow() -> None:
        for _ in range(6):
            world.commit()
            world.train()
            world.project.registry.promote(TASK, world.finetune(), why="better")
            world.publish()
        for path in world.project.tasks.glob("*/*"):
            for number in range(200):
                (path / f"{number}.bin").touch()

    killed = 0
    for turn in range(8):
        grow()
        maintain.run(world.project, silent, now=later(20 * turn))
        command = [sys.executable, "-c", SCRIPT, str(world.project.root), str(20 * turn + 8), "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.03 + 0.06 * turn)
            process.kill()
        killed += process.returncode == -9
        world.require_lineage()
    assert killed >= 4
    maintain.run(world.project, silent, now=later(200))
    maintain.run(world.project, silent, now=later(210))
    world.require_lineage()
    assert not list(world.project.store.rglob(".going-*"))
    assert maintain.plan(world.project, now=later(220)).now == []
    assert len(names(world.project.tasks / TASK)) < 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_beside_an_ingest_a_training_and_maps_nothing_is_lost(small_project: Path, tmp_path: Path) -> None:
    """As often as it can, with all that was there before old enough to go, and all that is new within the grace."""
    run_all(Project.load(small_project), silent)
    shutil.copytree(small_project, tmp_path, symlinks=True, dirs_exist_ok=True)
    changes = ["pretrain.seed=5", "composite.months=3", "map.minimum_ha=0.2"]
    calm = tmp_path / "calm"
    shutil.copytree(small_project, calm, symlinks=True)
    run_all(Project.load(calm, changes), silent)
    project = Project.load(tmp_path, changes)
    maintain.run(project, silent)
    shift = (GRACE - dt.timedelta(minutes=1)) / DAY
    for path in project.store.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, times=((NOW - GRACE).timestamp(),) * 2)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(shift), "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        try:
            run_all(project, silent)
            assert process.poll() is None, process.stderr.read()
        finally:
            process.kill()
    assert all(result.skipped for result in run_all(project, silent))
    assert check(project.cube()).damage == []
    undisturbed = Project.load(calm, changes)
    for name in project.settings.tasks:
        ours, theirs = (each.maps / name / "latest" / f"{name}.tif" for each in (project, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes()
