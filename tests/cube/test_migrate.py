"""Cubes of format 1 are read, not written to, and brought along however often that is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr

from geossl.cube import layout
from geossl.cube.check import check
from geossl.cube.ingest import ingest
from geossl.cube.migrate import migrate
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError

from .conftest import GRID, SENSOR, SceneMaker, digest

NAMES = [f"s2-{letter}" for letter in "abcd"]


def make_old(cube: Cube) -> None:
    """Take from a cube what format 1 did not have."""
    session = cube.repository.writable_session("main")
    root = zarr.open_group(session.store)
    for name in layout.scene_counts(root):
        del root[f"{name}/{layout.SCENES}/steps"]
    root.attrs[layout.FORMAT_KEY] = 1
    session.commit("as geossl 0.1 wrote it")


@pytest.fixture
def old(cube: Cube, make_scene: SceneMaker) -> Cube:
    scenes = [make_scene(0), make_scene(1, nodata=(slice(None), slice(0, 256))), make_scene(2)]
    for name in NAMES:
        ingest(cube, scenes, SENSOR, GRID, name, IngestSettings())
    make_old(cube)
    return cube


def test_an_old_cube_is_read_but_not_written_to(old: Cube, make_scene: SceneMaker) -> None:
    cube = Cube.open(old.uri)
    assert len(cube.view().collection(NAMES[0]).items()) == 3
    assert check(cube).damage == []
    with pytest.raises(StoreError, match=r"has format 1(.|\n)*geossl cube migrate"):
        ingest(cube, [make_scene(5)], SENSOR, GRID, NAMES[0], IngestSettings())


def test_a_migrated_cube_is_as_if_written_today(old: Cube, make_scene: SceneMaker, tmp_path: Path) -> None:
    snapshot = old.snapshot()
    done = migrate(old)
    assert done[-1] == "the cube has format 3 now; it had 1"
    assert len(done) == len(NAMES) + 1
    assert migrate(old) == []
    assert check(old).damage == []
    ingest(old, [make_scene(5)], SENSOR, GRID, NAMES[0], IngestSettings())
    assert check(old).damage == []
    assert len(old.view(snapshot).collection(NAMES[0]).items()) == 3
    new = Cube.create(str(tmp_path / "new"))
    scenes = [make_scene(0), make_scene(1, nodata=(slice(None), slice(0, 256))), make_scene(2)]
    for name in NAMES:
        ingest(new, scenes, SENSOR, GRID, name, IngestSettings())
    ingest(new, [make_scene(5)], SENSOR, GRID, NAMES[0], IngestSettings())
    assert digest(old.view()) == digest(new.view())


def test_a_migration_that_is_killed_again_and_again_ends_well(old: Cube, tmp_path: Path) -> None:
    code = f"""if True:
        import warnings; warnings.simplefilter("ignore")
        from geossl.cube.migrate import migrate
        from geossl.cube.repository import Cube
        migrate(Cube.open({old.uri!r}), lambda *step: print(*step, flush=True))"""
    rng = random.Random(0)
    commits = len(old.log())
    for kill in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(2 + kill):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        cube = Cube.open(old.uri)
        assert layout.format_version(cube.view().root) == 1
        assert len(cube.view().collection(NAMES[-1]).items()) == 3
    assert len(old.log()) > commits
    migrate(Cube.open(old.uri))
    # every collection was migrated once, whatever was killed
    assert len(old.log()) == commits + len(NAMES) + 1
    assert check(Cube.open(old.uri)).damage == []
