"""What needs a person is seen, told, and over; and machines can read it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from geossl.cli.app import app
from geossl.cube.hold import hold, release
from geossl.files import write_json
from geossl.progress import silent
from geossl.project import notify
from geossl.project.project import Project
from geossl.project.stages import maintain
from geossl.project.stages.run import run_all, stage
from geossl.project.stages.status import status
from geossl.project.trainings import Trainings

from .conftest import Hook
from .store_world import TASK, World

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)


def kinds(world: World, now: dt.datetime) -> list[str]:
    return [f"{each['kind']} {each['what']}".strip() for each in status(world.project, now=now).attention]


def test_a_store_at_rest_needs_nobody(world: World) -> None:
    assert kinds(world, NOW) == []
    world.train()
    world.finetune()
    found = status(world.project)
    assert found.attention == []
    assert found.champions == {TASK: {"version": 1, "since": found.champions[TASK]["since"], "encoder": "simclr-1"}}
    assert found.to_dict() == json.loads(json.dumps(found.to_dict()))


def test_since_when_a_champion_is_one(world: World) -> None:
    world.train()
    for _ in range(3):
        world.finetune()
    world.project.registry.promote(TASK, 2, why="better")
    since = status(world.project).champions[TASK]["since"]
    world.project.registry.pin_anchor(TASK, 2, why="by hand")
    world.finetune()
    assert status(world.project).champions[TASK]["since"] == since
    world.project.registry.promote(TASK, 3, why="better")
    world.project.registry.rollback(TASK, why="it was not")
    assert status(world.project).champions[TASK]["since"] > since


def test_a_training_that_stands_still_needs_a_person_until_it_goes_on(world: World) -> None:
    log = Trainings(world.project.store)
    with pytest.raises(KeyboardInterrupt), log.running("new imagery", world.cube.snapshot(), 1, silent):
        raise KeyboardInterrupt
    assert kinds(world, NOW + DAY / 2) == []
    assert kinds(world, NOW + 1.1 * DAY) == ["stuck training"]
    checkpoint = world.project.encoders / "unfinished-1" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    os.utime(checkpoint, ((NOW + DAY).timestamp(),) * 2)
    assert kinds(world, NOW + 1.1 * DAY) == []
    with log.running("new imagery", world.cube.snapshot(), 1, silent):
        pass
    assert kinds(world, NOW + 9 * DAY) == []


def test_hours_that_are_used_up_are_told_and_over_next_month(
    world: World,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(notify.ADDRESSES, hook.address)
    project = Project.load(world.project.root, ["retrain.hours=1"])
    started = NOW.replace(day=1, hour=0, minute=0)
    write_json(
        world.project.store / "trainings" / "1.json",
        {"started": started.isoformat(), "why": "", "snapshot": "", "devices": 2, "seconds": 1800, "finished": True},
    )
    found = status(project, now=NOW)
    assert (found.hours, found.budget) == (1.0, 1.0)
    maintain.attend(project, NOW)
    maintain.attend(project, NOW)
    assert hook.titles() == [f"geossl long: the device-hours of {NOW:%B} are used up"]
    maintain.attend(project, started + 32 * DAY)
    assert hook.titles() == [f"geossl long: over: the device-hours of {NOW:%B} are used up"]


def test_growth_is_told_from_earlier_looks_and_says_when_the_disk_is_full(world: World) -> None:
    grown = world.project.store / "maps" / "loss" / "tiles"
    grown.mkdir(parents=True)
    for day in range(5):
        (grown / f"{day}.tif").write_bytes(bytes(1_000_000))
        maintain.run(world.project, silent, now=NOW + day * DAY)
    found = status(world.project, now=NOW + 4 * DAY)
    assert found.growth["maps"] == pytest.approx(1e6)
    assert found.bytes["maps"] == 5_000_000
    rate = sum(found.growth.values())
    reserve = world.project.settings.ingest.reserve
    assert found.days_to_full == pytest.approx((found.free - reserve) / rate, rel=0.01)
    days = found.days_to_full
    assert days is not None
    for limit, expected in ((days * 2, ["full"]), (days / 2, [])):
        soon = Project.load(world.project.root, [f"notify.full={limit}"])
        assert [each["kind"] for each in status(soon, now=NOW + 4 * DAY).attention] == expected
    assert status(world.project, now=NOW + 8 * DAY).attention[-1]["what"] == "maintain", "nobody runs it any more"


def test_prometheus_can_read_it(world: World) -> None:
    world.train()
    world.finetune()
    notify.failed(world.project, 'a "flow"\nof two \\ lines', "broken")
    text = status(world.project).prometheus()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {family.type for family in families.values()} == {"gauge"}
    [sample] = families["geossl_champion_version"].samples
    assert (sample.labels, sample.value) == ({"project": "long", "task": TASK}, 1)
    [sample] = families["geossl_needs_attention"].samples
    assert sample.labels == {"project": "long", "kind": "failed", "what": 'a "flow"\nof two \\ lines'}
    assert "geossl_disk_full_days" not in families, "it is not known"


def test_check_ends_with_5_where_something_needs_a_person(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["status", "--check", "--project", str(world.project.root)]
    assert app(command, result_action="return_value") == 0
    assert capsys.readouterr().out == ""
    notify.failed(world.project, "geossl-ingest", "the disk is gone")
    assert app(command, result_action="return_value") == 5
    assert capsys.readouterr().out == "geossl-ingest failed\n  the disk is gone\n"
    notify.succeeded(world.project, "geossl-ingest")
    assert app(command, result_action="return_value") == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scenes_and_maps_of_a_real_project(
    small_project: Path,
    tmp_path: Path,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_all(Project.load(small_project), silent)
    shutil.copytree(small_project, tmp_path, symlinks=True, dirs_exist_ok=True)
    project = Project.load(tmp_path)
    monkeypatch.setenv(notify.ADDRESSES, hook.address)
    maintain.attend(project)
    assert hook.titles() == []
    assert not any(found["behind"] for found in status(project).maps.values())
    late = dt.datetime.now(dt.UTC) + 15 * DAY
    maintain.attend(project, late)
    [title] = hook.titles()
    assert "no new scene since" in title

    scene = project.scenes().scene_ids(project.scenes().tile_ids[0])[0]
    cube = project.cube()
    hold(cube, project.sensor.name, {scene: "haze: looks so"})
    maintain.attend(project, late)
    assert hook.titles() == ["geossl small: 1 scene is held back"]
    assert status(project).held == 1
    stage("stats")(project, silent)  # composites without it: the maps are behind from now on
    assert all(found["behind"] for found in status(project).maps.values())
    maintain.attend(project, late)
    maintain.attend(project, late + 2 * DAY)
    assert sorted(hook.titles()) == [f"geossl small: the map {name} is behind" for name in ("clearing", "landcover")]
    release(cube, project.sensor.name, [scene])
    run_all(project, silent)
    maintain.attend(project, late + 2 * DAY)
    titles = hook.titles()
    assert "geossl small: over: 1 scene is held back" in titles
    assert sum("is behind" in title for title in titles) == 2
    maintain.run(project, silent, now=late + 40 * DAY)
    maintain.run(project, silent, now=late + 50 * DAY)
    assert all(result.skipped for result in run_all(project, silent)), "nothing was removed that is needed"
