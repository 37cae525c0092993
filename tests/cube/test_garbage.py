"""Expiry and garbage: what nothing refers to goes, and nothing else."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import subprocess
import sys
from pathlib import Path

import icechunk
import pytest
import zarr

from geossl.cube import layout
from geossl.cube.check import check
from geossl.cube.ingest import ingest
from geossl.cube.repository import LONGEST_INGEST, Cube
from geossl.cube.scenes import forget_quarantine, read_quarantine, write_quarantine
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError

from .conftest import CORNER, GRID, SENSOR, SceneMaker, digest, pixels_of

WEST = GRID[CORNER].id
NOTHING = dt.timedelta(0)


def add(session: icechunk.Session, name: str) -> str:
    layout.create_collection(zarr.open_group(session.store), name, SENSOR, GRID)
    return f"add {name}"


def age(cube: Cube, by: dt.timedelta = LONGEST_INGEST + dt.timedelta(hours=1)) -> None:
    """Let all files look older."""
    for path in Path(cube.uri).rglob("*"):
        if path.is_file():
            time = path.stat().st_mtime - by.total_seconds()
            os.utime(path, (time, time))


def files(cube: Cube, folder: str) -> set[str]:
    return {path.name for path in (Path(cube.uri) / folder).iterdir()}


def test_expiry_keeps_what_is_tagged_and_the_newest(cube: Cube) -> None:
    first, second, third = (cube.transact(lambda session, name=name: add(session, name)) for name in ("a", "b", "c"))
    cube.tag("map-1", first)
    would = cube.expire(NOTHING, dry_run=True)
    assert [entry.message for entry in would] == ["add b", "create the cube"]
    assert len(cube.log()) == 5
    assert cube.expire(dt.timedelta(days=1)) == []
    assert cube.expire(NOTHING) == would
    assert cube.expire(NOTHING) == []
    # what is young may belong to a writer that has not committed yet
    assert cube.collect_garbage() == 0
    age(cube)
    expected = cube.collect_garbage(dry_run=True)
    assert cube.collect_garbage() == expected > 0
    assert cube.collect_garbage() == 0
    again = Cube.open(cube.uri)
    assert again.view("map-1").collections() == ["a"]
    assert again.view().snapshot == third
    assert again.view().collections() == ["a", "b", "c"]
    with pytest.raises(StoreError, match="no snapshot"):
        again.view(second).collections()
    assert files(cube, "seals") == {first, third}
    assert again.damaged_files(first) == again.damaged_files(third) == []


def test_orphans_of_a_killed_writer_go_when_they_are_old_enough(cube: Cube, make_scene: SceneMaker) -> None:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    sound, before = files(cube, "chunks"), digest(cube.view())
    with cube.writing() as session:  # which never commits
        array = zarr.open_group(session.store)[f"s2/{WEST}/image"]
        assert isinstance(array, zarr.Array)
        array[0] = pixels_of(9, 256, 256)
    orphans = files(cube, "chunks") - sound
    assert len(orphans) == 1
    size = sum((Path(cube.uri) / "chunks" / name).stat().st_size for name in orphans)
    assert cube.collect_garbage() == 0
    assert files(cube, "chunks") == sound | orphans
    age(cube, LONGEST_INGEST - dt.timedelta(hours=1))
    assert cube.collect_garbage() == 0
    age(cube, dt.timedelta(hours=2))
    assert cube.collect_garbage() >= size  # and some files of Icechunk's own
    assert files(cube, "chunks") == sound
    assert digest(Cube.open(cube.uri).view()) == before


def test_what_was_set_aside_is_forgotten_when_its_file_is_gone(cube: Cube, tmp_path: Path) -> None:
    (tmp_path / "there.tif").touch()
    kept = {"s3://bucket/a.tif", "an-id", f"{tmp_path}/there.tif", f"{tmp_path}: a-scene-of-several-files"}
    gone = {f"{tmp_path}/gone.tif", f"{tmp_path}/gone.json: an-item"}

    def work(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        write_quarantine(root, "s2", dict.fromkeys(kept | gone, ("broken", "")))
        return "set aside"

    cube.transact(work)
    assert forget_quarantine(cube, "s2", 10) == len(gone)
    assert read_quarantine(cube.view().root, "s2").keys() == kept
    assert forget_quarantine(cube, "s2", 10) == 0
    assert forget_quarantine(cube, "s2", 1) == len(kept) - 1


SCRIPT = Path(__file__).with_name("ingest_process.py")


def test_cleaning_while_another_process_ingests_loses_nothing(
    cube: Cube, make_scene: SceneMaker, tmp_path: Path
) -> None:
    """Again and again, from the first commit to the last, and with everything but the running ingest old."""
    ingest(cube, [make_scene(20)], SENSOR, GRID, "s2", IngestSettings())
    tagged = digest(cube.view())
    cube.tag("map-1", cube.snapshot())
    ingest(cube, [make_scene(21)], SENSOR, GRID, "s2", IngestSettings())
    age(cube)
    scenes = [make_scene(number) for number in range(12)]
    (tmp_path / "scenes.pickle").write_bytes(pickle.dumps(scenes))
    command = [sys.executable, str(SCRIPT), cube.uri, str(tmp_path / "scenes.pickle"), "0"]
    cleaned = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in process.stdout:  # a line at every step of its progress
            Cube.open(cube.uri).expire(NOTHING)
            Cube.open(cube.uri).collect_garbage()
            cleaned += 1
    assert process.returncode == 0
    assert cleaned > 12
    again = Cube.open(cube.uri)
    assert check(again).damage == check(again, "map-1").damage == []
    assert digest(again.view("map-1")) == tagged
    calm = Cube.create(str(tmp_path / "calm"))
    ingest(calm, [make_scene(20)], SENSOR, GRID, "s2", IngestSettings())
    ingest(calm, [make_scene(21), *scenes], SENSOR, GRID, "s2", IngestSettings())
    assert digest(again.view()) == digest(calm.view())
