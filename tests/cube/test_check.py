"""Damage on disk: `check` finds and names it, no reader serves it, and the next ingest mends it."""

from __future__ import annotations

import datetime as dt
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.core.sync import sync

from geossl.chips.index import build_index
from geossl.chips.reader import ChipReader
from geossl.cube import layout
from geossl.cube.check import CheckReport, check
from geossl.cube.chunks import get
from geossl.cube.columns import write_rows
from geossl.cube.ingest import ingest
from geossl.cube.repair import repair
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.verdicts import CONFIRMED, TileVerdicts, add_verdicts
from geossl.errors import StoreError
from geossl.grid import CHUNK
from geossl.imagery.scene import Scene

from .conftest import CORNER, GRID, SENSOR, SceneMaker, digest, pixels_of

WEST, EAST = GRID[CORNER].id, GRID[CORNER[0] + 1, CORNER[1]].id


@pytest.fixture
def scenes(make_scene: SceneMaker) -> list[Scene]:
    """Three scenes on two tiles; one holds nothing on the first."""
    return [make_scene(0), make_scene(1, nodata=(slice(None), slice(0, 256))), make_scene(2)]


@pytest.fixture
def full(cube: Cube, scenes: list[Scene]) -> Cube:
    read_in(cube, scenes)
    return cube


def read_in(cube: Cube, scenes: list[Scene]) -> list[str]:
    return ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2)).ingested


def checked(cube: Cube) -> CheckReport:
    """A check by a process that has read nothing before."""
    return check(Cube.open_unchecked(cube.uri))


def stored(cube: Cube, folder: str) -> list[Path]:
    return sorted((Path(cube.uri) / folder).iterdir())


def flip(path: Path, rng: random.Random) -> bytes:
    sound = path.read_bytes()
    broken = bytearray(sound)
    broken[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
    path.write_bytes(broken)
    return sound


def through_chips(cube: Cube) -> None:
    collection = Cube.open(cube.uri).view().collection("s2")
    index = build_index(collection, CHUNK, min_clear=0.0)
    ChipReader(collection, threads=1).read(index, np.arange(len(index)))


def through_zarr(cube: Cube) -> None:
    collection = Cube.open(cube.uri).view().collection("s2")
    for tile in collection.tile_ids:
        np.asarray(collection.image(tile)[:]), np.asarray(collection.quality(tile)[:])
        collection.times(tile), collection.scene_ids(tile), collection.chunk_clear(tile)
    collection.items()


def test_a_sound_cube_has_no_damage(full: Cube) -> None:
    report = checked(full)
    assert report.damage == []
    assert (report.scenes, report.tiles, report.snapshot) == (3, 2, full.snapshot())
    # the reference: all keys that the store lists
    chunks = [key for key in keys_of(full) if re.search(r"/c(/|$)", key)]
    assert report.chunks == len(chunks) > 20
    assert report.bytes > 5 * 2 * 256 * 256


@pytest.mark.slow
def test_200_flipped_bits_are_200_times_found_and_never_served(cube: Cube, make_scene: SceneMaker) -> None:
    """Ten files at a time: exactly those are named, no reader serves one of them, and all others are served."""
    read_in(cube, [make_scene(number) for number in range(8)])
    rng = random.Random(200)
    places = {path: place for place, path in chunk_files(cube).items() if place[0] == "image"}
    assert len(places) == 16
    for _ in range(20):
        chosen = rng.sample(sorted(places), 10)
        sound = [flip(path, rng) for path in chosen]
        damage = checked(cube).damage
        assert {(item.array, item.tile, item.step) for item in damage} == {places[path] for path in chosen}
        assert len(damage) == 10
        assert {item.scene for item in damage} == {f"scene-00{places[path][2]}" for path in chosen}
        assert {item.window for item in damage} == {(0, 0)}
        collection = Cube.open(cube.uri).view().collection("s2")
        index = build_index(collection, CHUNK, min_clear=0.0)
        reader = ChipReader(collection, threads=1)
        for row in range(len(index)):
            tile, step = index.tile_ids[index.tile[row]], int(index.step[row])
            expected = pixels_of(step, 256, 512)[:, :, :256] if tile == WEST else pixels_of(step, 256, 512)[:, :, 256:]
            if ("image", tile, step) in {places[path] for path in chosen}:
                with pytest.raises(StoreError, match="damaged"):
                    reader.read(index, np.array([row]))
                with pytest.raises(ValueError, match="checksum"):
                    np.asarray(collection.image(tile)[step])
            else:
                np.testing.assert_array_equal(reader.read(index, np.array([row])).image[0], expected)
                np.testing.assert_array_equal(collection.image(tile)[step], expected)
        for path, content in zip(chosen, sound, strict=True):
            path.write_bytes(content)
    assert checked(cube).damage == []


@pytest.mark.parametrize("folder", ["manifests", "snapshots", "seals"])
def test_flipped_bits_in_icechunks_own_files_are_found_and_named(full: Cube, folder: str) -> None:
    """About one in ten of these would make a reader take another chunk for the one it wants."""
    rng = random.Random(folder)
    needed = {f"manifests/{info.id}" for info in full.repository.list_manifest_files(full.snapshot())}
    needed |= {f"snapshots/{full.snapshot()}", f"seals/{full.snapshot()}"}
    files = [Path(full.uri) / name for name in sorted(needed) if name.startswith(folder)]
    for _ in range(20):
        path = rng.choice(files)
        sound = flip(path, rng)
        (damage,) = checked(full).damage
        assert f"{folder}/{path.name}" in damage.problem
        for read in (through_chips, through_zarr):
            with pytest.raises(StoreError, match=path.name):
                read(full)
        path.write_bytes(sound)
    through_chips(full)


def test_a_chunk_that_is_gone_is_found(full: Cube) -> None:
    path = max(stored(full, "chunks"), key=lambda path: path.stat().st_size)
    path.unlink()
    (damage,) = checked(full).damage
    assert damage.array == "image"
    assert "cannot be read" in damage.problem
    assert damage.scene is not None


def test_a_manifest_that_is_gone_is_found(full: Cube) -> None:
    info = full.repository.list_manifest_files(full.snapshot())[0]
    (Path(full.uri) / "manifests" / info.id).unlink()
    (damage,) = checked(full).damage
    assert info.id in damage.problem


def test_an_older_snapshot_can_be_checked(full: Cube, make_scene: SceneMaker) -> None:
    full.tag("map-1", full.snapshot())
    before = set(stored(full, "chunks"))
    read_in(full, [make_scene(7)])
    path = max(set(stored(full, "chunks")) - before, key=lambda path: path.stat().st_size)
    flip(path, random.Random(0))
    assert check(full, "map-1").damage == []
    assert [item.scene for item in checked(full).damage] == ["scene-007"]
    with pytest.raises(StoreError, match="geossl cube log"):
        check(full, "nonsense")


def test_a_repaired_scene_is_read_again_in_place(full: Cube, scenes: list[Scene]) -> None:
    before = digest(full.view())
    collection = full.view().collection("s2")
    damaged_path = chunk_files(full)["image", EAST, 1]
    flip(damaged_path, random.Random(1))
    assert [item.scene for item in checked(full).damage] == ["scene-001"]
    assert read_in(full, scenes) == []  # its files are the same
    done = repair(full, check(full))
    assert done == ["scene scene-001 of s2 will be read again"]
    assert read_in(full, scenes) == ["scene-001"]
    assert checked(full).damage == []
    after = digest(full.view())
    again = full.view().collection("s2")
    assert again.revisions(EAST).tolist() == [0, 1, 0]
    np.testing.assert_array_equal(again.image(EAST)[1], pixels_of(1, 256, 512)[:, :, 256:])
    assert {path for path in before if before[path] != after[path]} == {
        f"s2/{EAST}/revision",
        "s2/scenes/revision",
    }
    assert collection.snapshot != again.snapshot
    assert repair(full, check(full)) == []


def test_a_tile_with_damaged_records_is_read_again(full: Cube, scenes: list[Scene], tmp_path: Path) -> None:
    """Whose step is whose is not known any more, so all scenes are read again, on this tile alone."""
    session = full.repository.writable_session("main")
    group = zarr.open_group(session.store)
    layout.resize_pixels(group[f"s2/{EAST}"], 2)  # type: ignore[arg-type]
    session.commit("lost a step, as a bad program might")
    (damage,) = check(full).damage
    assert "number of steps: image 2, quality 2, time 3" in damage.problem
    assert repair(full, check(full))[0] == f"dropped tile {EAST} of s2"
    assert check(full).damage == []
    assert read_in(full, scenes) == ["scene-000", "scene-001", "scene-002"]
    assert check(full).damage == []
    calm = Cube.create(str(tmp_path / "calm"))
    read_in(calm, scenes)
    assert digest(full.view()) == digest(calm.view())


def test_a_lost_and_a_doubled_step_are_found(full: Cube, scenes: list[Scene]) -> None:
    sound = full.snapshot()
    session = full.repository.writable_session("main")
    layout_rows(session, EAST, {1: {"scene_id": "scene-000"}})
    session.commit("bad")
    problems = {item.problem for item in check(full).damage}
    assert "scene scene-000 has more than one step here" in problems
    assert "scene scene-001 has 0 step(s), 1 were recorded" in problems
    repair(full, check(full))
    assert len(read_in(full, scenes)) == 3
    assert check(full).damage == []
    assert full.view(sound).collection("s2").scene_ids(EAST) == full.view().collection("s2").scene_ids(EAST)


def test_a_cube_with_a_damaged_snapshot_goes_back_and_goes_on(full: Cube, scenes: list[Scene], tmp_path: Path) -> None:
    wanted = digest(full.view())
    flip(Path(full.uri) / "snapshots" / full.snapshot(), random.Random(3))
    with pytest.raises(StoreError, match="geossl cube check --repair"):
        Cube.open(full.uri)
    broken = Cube.open_unchecked(full.uri)
    (done,) = repair(broken, check(broken))
    assert "ingest 2 scene(s)" in done
    assert read_in(Cube.open(full.uri), scenes) == ["scene-002"]
    assert checked(full).damage == []
    assert digest(Cube.open(full.uri).view()) == wanted


def test_damaged_labels_and_composites_are_dropped(tiny_cube: Cube, tmp_path: Path) -> None:
    shutil.copytree(tiny_cube.uri, tmp_path / "cube")
    cube = Cube.open(str(tmp_path / "cube"))
    path = chunk_files(cube, "labels/landcover")["label", cube.view().labels("landcover").tile_ids[0], 0]
    flip(path, random.Random(4))
    found = check(cube)
    assert {item.where.split(" ")[0] for item in found.damage if item.collection == "labels/landcover"} == {
        f"labels/landcover/{cube.view().labels('landcover').tile_ids[0]}/label"
    }
    labels_only = CheckReport(found.snapshot, damage=[i for i in found.damage if i.collection == "labels/landcover"])
    assert repair(cube, labels_only) == ["dropped labels/landcover"]
    assert cube.view().label_names() == []


def test_damaged_verdicts_are_said_to_come_from_reviews(full: Cube) -> None:
    days = np.ones((256, 256), np.int16)
    verdicts = {WEST: TileVerdicts(np.full(days.shape, CONFIRMED, np.uint8), days, days)}
    dates = dt.date(2024, 1, 1), dt.date(2024, 2, 1)
    said = {"a": ("confirmed", "", "r1")}
    add_verdicts(full, "toy-verdicts", GRID, verdicts, said, epoch=dates[0], dates=dates, source="toy.gpkg")
    assert check(full).damage == []
    flip(chunk_files(full, "labels/toy-verdicts")["first", WEST, 0], random.Random(5))
    remedies = {item.remedy for item in check(full).damage if item.collection == "labels/toy-verdicts"}
    assert [("geossl alerts review" in text, "geossl ingest" in text) for text in remedies] == [(True, False)]


def layout_rows(session: object, tile: str, rows: dict[int, dict[str, object]]) -> None:
    write_rows(session.store, {f"s2/{tile}": rows})  # type: ignore[attr-defined]


def keys_of(cube: Cube) -> list[str]:
    async def keys() -> list[str]:
        return [key async for key in cube.view().session.store.list()]

    return sync(keys())


def chunk_files(cube: Cube, layer: str = "s2") -> dict[tuple[str, str, int], Path]:
    """(array, tile, first index) → the file that holds that chunk, found by its bytes."""
    by_content = {path.read_bytes(): path for path in stored(cube, "chunks")}
    store = cube.view().session.store

    def found() -> Iterator[tuple[tuple[str, str, int], Path]]:
        for key in keys_of(cube):
            path, mark, chunk = key.partition("/c/")
            if mark and path.startswith(layer + "/"):
                data = sync(get(store, key))
                if data in by_content:
                    tile, array = path.split("/")[-2:]
                    yield (array, tile, int(chunk.split("/")[0])), by_content[data]

    return dict(found())


def test_a_damaged_seal_costs_no_snapshot(cube: Cube, make_scene: SceneMaker) -> None:
    """What it vouches for is sound, so the newest snapshot stays the newest."""
    ingest(cube, [make_scene(0), make_scene(1)], SENSOR, GRID, "s2", IngestSettings(wave=1))
    newest = cube.snapshot()
    path = Path(cube.uri) / "seals" / newest
    path.write_text(path.read_text().replace(":", ";", 1))
    found = check(Cube.open_unchecked(cube.uri))
    assert [item.problem for item in found.damage] == [f"the file seals/{newest} is not what was written"]
    assert repair(Cube.open_unchecked(cube.uri), found) == [f"sealed snapshot {newest} anew"]
    again = Cube.open(cube.uri)
    assert again.snapshot() == newest
    assert set(again.view().collection("s2").items()) == {"scene-000", "scene-001"}
    assert check(again).damage == []
