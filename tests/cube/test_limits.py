"""Disks end: what an ingest does before, at and after the point where its own is full or read-only."""

from __future__ import annotations

import os
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from pydantic import ByteSize

from geossl.cube import space
from geossl.cube.ingest import ingest
from geossl.cube.report import IngestReport
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.space import stored_share
from geossl.errors import StoreError
from geossl.imagery.scene import Scene

from .conftest import CORNER, GRID, SENSOR, SceneMaker, digest

MB = 10**6
STEP = 2 * (2 * 2 + 1) * 256**2
"""Bytes of pixels of one scene on its two tiles."""


def run(cube: Cube, scenes: list[Scene], client: Client | None = None, *, reserve: int = 0) -> IngestReport:
    settings = IngestSettings(wave=2, reserve=ByteSize(reserve))
    return ingest(cube, scenes, SENSOR, GRID, "s2", settings, client)


def is_like_calm(cube: Cube, scenes: list[Scene], folder: Path) -> bool:
    calm = Cube.create(str(folder / "calm"))
    run(calm, scenes)
    return digest(Cube.open(cube.uri).view()) == digest(calm.view())


def test_the_wave_that_would_touch_the_reserve_is_not_started(
    tmp_path: Path, make_scene: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [make_scene(number) for number in range(6)]
    cube = Cube.create(str(tmp_path / "cube"))
    free = 100 * MB
    usage = namedtuple("usage", "total used free")
    # as a disk of 100 MB that nobody else writes to
    stored = lambda: sum(file.stat().st_size for file in Path(cube.uri).rglob("*") if file.is_file())  # noqa: E731
    empty = stored()
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: usage(0, 0, free - (stored() - empty)))
    reserve = free - 33 * STEP // 10  # these pixels compress to 0.65: room for two waves and a half
    with pytest.raises(StoreError, match="KB missing") as caught:
        run(cube, scenes, reserve=reserve)
    assert "ingest.reserve" in caught.value.remedy
    assert cube.view().collection("s2").scene_ids(GRID[CORNER].id) == [f"scene-00{number}" for number in range(4)]
    snapshot, size = cube.snapshot(), stored()
    with pytest.raises(StoreError, match="missing"):
        run(cube, scenes, reserve=reserve)
    assert (cube.snapshot(), stored()) == (snapshot, size)
    assert run(cube, scenes).ingested == ["scene-004", "scene-005"]
    assert run(cube, scenes, reserve=free).already == [scene.id for scene in scenes]  # takes no room
    assert is_like_calm(cube, scenes, tmp_path)


def test_what_compresses_well_is_expected_to_go_on_so(
    tmp_path: Path, make_scene: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = np.full((2, 256, 512), 700, np.int16)
    scenes = [make_scene(number, image=flat) for number in range(4)]
    cube = Cube.create(str(tmp_path / "cube"))
    run(cube, scenes[:2])
    tiles = [GRID[CORNER], GRID[CORNER[0] + 1, CORNER[1]], GRID[0, 0]]
    share = stored_share(cube.view(), "s2", tiles)
    chunks = sum(file.stat().st_size for file in (Path(cube.uri) / "chunks").iterdir())
    assert share is not None
    assert share < 0.05
    assert share * 2 * STEP < 1.5 * chunks  # the chunks of records lie there too, small ones in manifests
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: usage(0, 0, STEP // 2))
    assert run(cube, scenes).ingested == ["scene-002", "scene-003"]


@pytest.mark.parametrize("parallel", [False, True])
def test_a_full_disk_leaves_the_last_commit_and_is_gone_on_from(
    small_disk: Path,
    fill: Callable[[int], Path],
    tmp_path: Path,
    make_scene: SceneMaker,
    client: Client,
    parallel: bool,
) -> None:
    scenes = [make_scene(number) for number in range(6)]
    cube = Cube.create(str(small_disk / "cube"))
    run(cube, scenes[:2])
    before = digest(cube.view())
    # pixels of random numbers do not compress; the estimate is switched off by a disk that fills meanwhile
    filling = fill(int(1.2 * STEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "free_bytes", lambda _: None)
        with pytest.raises(StoreError, match="is full") as caught:
            run(cube, scenes, client if parallel else None)
    assert "run the same command again" in caught.value.remedy
    assert digest(Cube.open(cube.uri).view()) == before
    filling.unlink()
    assert run(Cube.open(cube.uri), scenes).ingested == [scene.id for scene in scenes[2:]]
    assert is_like_calm(cube, scenes, tmp_path)


def test_a_disk_without_a_single_byte_left(
    small_disk: Path, fill: Callable[[int], Path], tmp_path: Path, make_scene: SceneMaker
) -> None:
    """Not even the lock, a manifest or a reference can be written."""
    scenes = [make_scene(number) for number in range(4)]
    cube = Cube.create(str(small_disk / "cube"))
    run(cube, scenes[:2])
    before = digest(cube.view())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "free_bytes", lambda _: None)
        for leave in range(0, 24, 4):
            filling = fill(leave * 4096)
            with pytest.raises(StoreError, match="is full"):
                run(cube, scenes)
            assert digest(Cube.open(cube.uri).view()) == before
            filling.unlink()
            for chunk in (small_disk / "cube").rglob("*#*"):
                chunk.unlink()
    assert run(Cube.open(cube.uri), scenes).ingested == ["scene-002", "scene-003"]
    assert is_like_calm(cube, scenes, tmp_path)


@pytest.mark.parametrize("parallel", [False, True])
def test_a_read_only_store(
    small_disk: Path, tmp_path: Path, make_scene: SceneMaker, client: Client, parallel: bool
) -> None:
    scenes = [make_scene(number) for number in range(4)]
    cube = Cube.create(str(small_disk / "cube"))
    run(cube, scenes[:2])
    before = digest(cube.view())
    os.sync()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only"):
        run(Cube.open(cube.uri), scenes, client if parallel else None)
    assert digest(Cube.open(cube.uri).view()) == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert run(Cube.open(cube.uri), scenes).ingested == ["scene-002", "scene-003"]
    assert is_like_calm(cube, scenes, tmp_path)
