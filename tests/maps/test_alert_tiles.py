"""From scenes to the alerts of tiles: only what is new is made, and a crash leaves what was good."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from geossl.imagery.clouds import Quality
from geossl.legend import LandClass, Legend
from geossl.maps.alerts import tiles as alert_tiles
from geossl.maps.alerts.looks import LookFolder, find_looks, score_looks
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NEVER, NONE, OUTSIDE, Rule, to_day
from geossl.maps.alerts.tiles import BANDS, REVIEWED, AlertTiles, Judged, update_tiles

FOREST = Legend((LandClass(0, "forest", "#1f6b3a"), LandClass(1, "no forest", "#d9d9d9")))
RULE = Rule(to_day(np.datetime64("2021-01-01").item()), expire=4000)
CLEARED = np.s_[60:120, 100:200]
GREEN, BARE = 1000, 9000


@pytest.fixture
def world(new_collection: Callable[..., Any]) -> Any:
    """Two tiles, four yearly scenes: on the first, ground is cleared between the first and the second scene."""
    world = new_collection(rows=1, steps=4)
    for number, image in enumerate(world.images.values()):
        image[:, 0], image[:, 1] = BARE, GREEN  # the toy model calls this forest
        if not number:
            image[1:, 0][:, *CLEARED], image[1:, 1][:, *CLEARED] = GREEN, BARE
    return world


class Monitor:
    """All that an update needs, in a folder."""

    def __init__(self, folder: Path, world: Any, new_task: Any, steps: int = 4) -> None:
        self.world, self.new_task = world, new_task
        self.looks = LookFolder(folder / "looks")
        self.store = AlertTiles(folder / "tiles")
        self.only = set(range(steps))
        self.asked: list[Mapping[str, int]] = []

    def fit(self, steps: Mapping[str, int]) -> Any:
        self.asked.append(steps)
        return self.new_task(legend=FOREST)

    def update(self, judged: Callable[[str], Judged | None] = lambda _: None) -> tuple[list[str], list[str]]:
        """Scenes scored and tiles made."""
        found = [
            look
            for look in find_looks(self.world, self.world.tile_ids, RULE.since - 400, "toy")
            if int(look.scene[-1]) in self.only
        ]
        scored, mute = score_looks(self.world, found, self.looks, self.fit, self.forest)
        assert not mute
        self.looks.forget(found)
        tiles = update_tiles(
            self.store,
            self.world.grid,
            self.world.tile_ids,
            self.forest,
            found,
            self.looks,
            RULE,
            forest_key="all but the west",
            judged=judged,
        )
        return scored, tiles

    def forest(self, _: str) -> NDArray[np.bool_]:
        where = np.ones((256, 256), bool)
        where[:, :10] = False
        return where

    def bands(self) -> dict[str, dict[str, NDArray[np.int16]]]:
        return {tile_id: self.store.read(tile_id) for tile_id in self.world.tile_ids}


def test_each_scene_moves_the_alerts_on_and_nothing_new_does_nothing(tmp_path: Path, world: Any, new_task: Any) -> None:
    monitor = Monitor(tmp_path, world, new_task)
    first = world.tile_ids[0]
    for steps, status in ((1, NONE), (2, DETECTED), (3, CONFIRMED)):
        monitor.only = set(range(steps))
        scored, tiles = monitor.update()
        assert scored == [f"scene-{steps - 1}"]
        assert tiles == world.tile_ids
        found = monitor.store.read(first)
        assert (found["status"][CLEARED] == status).mean() > 0.95
        assert (found["status"][:, :10] == OUTSIDE).all()
        assert (found["status"][150:, 20:] == NONE).all()
    inside = 90, 150
    assert [int(found[name][inside]) for name in ("first", "confirmed", "standing", "raised")] == [
        to_day(np.datetime64(f"202{year}-03-01").item()) for year in (1, 2, 0, 1)
    ]
    assert monitor.update() == ([], [])
    assert len(monitor.asked) == 3


def test_a_scene_that_comes_late_ends_where_it_would_have_ended(tmp_path: Path, world: Any, new_task: Any) -> None:
    in_order, late = Monitor(tmp_path / "a", world, new_task), Monitor(tmp_path / "b", world, new_task)
    in_order.update()
    for only in ({0, 3}, {0, 2, 3}, {0, 1, 2, 3}):
        late.only = only
        late.update()
    for tile_id, bands in in_order.bands().items():
        for name in BANDS:
            assert_array_equal(late.store.read(tile_id)[name], bands[name], name)


def test_only_tiles_with_new_pixels_are_made_again(tmp_path: Path, world: Any, new_task: Any) -> None:
    monitor = Monitor(tmp_path, world, new_task)
    monitor.update()
    before = {tile_id: monitor.store.raster(tile_id).stat().st_mtime_ns for tile_id in world.tile_ids}
    changed = world.tile_ids[1]
    # a scene that touches one tile alone
    for arrays in (world.images, world.flags):
        arrays[changed] = np.concatenate([arrays[changed], arrays[changed][-1:]])
    monitor.only.add(4)
    assert monitor.update() == (["scene-4"], [changed])
    again = [tile_id for tile_id in before if monitor.store.raster(tile_id).stat().st_mtime_ns != before[tile_id]]
    assert again == [changed]


def test_a_scene_that_is_made_anew_is_looked_at_anew(tmp_path: Path, world: Any, new_task: Any) -> None:
    monitor = Monitor(tmp_path, world, new_task, steps=2)
    monitor.update()
    tile_id = world.tile_ids[0]
    world.flags[tile_id][:] = Quality.CLOUD
    world.revised[tile_id] = 1
    scored, tiles = monitor.update()
    assert scored == ["scene-0", "scene-1"]
    assert tile_id in tiles
    assert (monitor.store.read(tile_id)["status"][CLEARED] == NONE).all()


def test_what_is_gone_from_the_cube_is_forgotten(tmp_path: Path, world: Any, new_task: Any) -> None:
    monitor, fewer = Monitor(tmp_path / "a", world, new_task), Monitor(tmp_path / "b", world, new_task, steps=2)
    monitor.update()
    monitor.only = {0, 1}
    monitor.update()
    fewer.update()
    assert len(list((tmp_path / "a" / "looks").iterdir())) == 2
    for tile_id, bands in fewer.bands().items():
        assert_array_equal(monitor.store.read(tile_id)["status"], bands["status"])


def test_a_person_has_the_last_word_until_newer_images(tmp_path: Path, world: Any, new_task: Any) -> None:
    monitor = Monitor(tmp_path, world, new_task, steps=3)
    monitor.update()
    tile_id, shape = world.tile_ids[0], (256, 256)
    until = np.full(shape, NEVER, np.int16)
    until[CLEARED] = to_day(np.datetime64("2022-03-01").item())
    nothing = np.zeros(shape, bool)
    rejected = Judged(nothing, np.zeros(shape, np.int16), until, "rejected")
    confirmed = replace(rejected, confirmed=until != NEVER, first=np.full(shape, 2200, np.int16), key="confirmed")

    def on_first(verdicts: Judged) -> Callable[[str], Judged | None]:
        return lambda each: verdicts if each == tile_id else None

    assert monitor.update(on_first(rejected)) == ([], [tile_id])
    assert (monitor.store.read(tile_id)["status"][CLEARED] == NONE).all()
    assert monitor.update(on_first(rejected)) == ([], [])
    monitor.only.add(3)  # one newer look at bare ground: an alert again, but not a confirmed one
    monitor.update(on_first(rejected))
    assert (monitor.store.read(tile_id)["status"][CLEARED] == DETECTED).mean() > 0.95
    monitor.update(on_first(confirmed))
    found = monitor.store.read(tile_id)
    assert (found["status"][CLEARED] == REVIEWED).all()
    assert (found["first"][CLEARED] == 2200).all()


def _update_and_die(folder: Path, world: Any, new_task: Any) -> None:
    """The parent process is not told how far this came."""
    real, done = AlertTiles.write, []

    def write(self: AlertTiles, *about: Any) -> None:
        if len(done) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *about)
        done.append(about)

    alert_tiles.AlertTiles.write = write  # type: ignore[method-assign]
    Monitor(folder, world, new_task).update()


def test_kill_between_tiles_leaves_what_was_good_and_the_next_run_goes_on(
    tmp_path: Path, world: Any, new_task: Any
) -> None:
    whole, killed = Monitor(tmp_path / "a", world, new_task), Monitor(tmp_path / "b", world, new_task, steps=2)
    whole.update()
    killed.update()
    process = multiprocessing.get_context("fork").Process(
        target=_update_and_die, args=(tmp_path / "b", world, new_task)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for tile_id in world.tile_ids:
        assert set(np.unique(killed.store.read(tile_id)["status"])) <= {NONE, DETECTED, CONFIRMED, OUTSIDE}
    killed.only = {0, 1, 2, 3}
    scored, tiles = killed.update()
    assert not scored
    assert tiles == world.tile_ids[1:]
    for tile_id, bands in whole.bands().items():
        for name in BANDS:
            assert_array_equal(killed.store.read(tile_id)[name], bands[name], name)
