"""Two ingests at once, of two processes, end as if one had followed the other."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geossl.cube.check import check
from geossl.cube.repository import Cube
from geossl.errors import StoreError

from .conftest import CORNER, GRID, SceneMaker, pixels_of
from .s3_servers import BUCKET, CEPH, has_ceph, moto, radosgw, reached, without_conditions

SCRIPT = Path(__file__).with_name("rival.py")
WEST, EAST = GRID[CORNER].id, GRID[CORNER[0] + 1, CORNER[1]].id


@contextlib.contextmanager
def rival(uri: str, scenes: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that ingests what it is told, when it is told."""
    command = [sys.executable, str(SCRIPT), uri, str(scenes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def compete(uri: str, folder: Path, make_scene: SceneMaker, rounds: int) -> None:
    """Each round two processes start at the same time, with a scene each that lies on the same tiles."""
    scenes = folder / "scenes.pickle"
    scenes.write_bytes(pickle.dumps([make_scene(number) for number in range(2 * rounds)]))
    with rival(uri, scenes) as one, rival(uri, scenes) as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            for process, scene in ((one, 2 * number), (other, 2 * number + 1)):
                assert process.stdin is not None
                process.stdin.write(f"{scene}\n")
                process.stdin.flush()
            for process in (one, other):
                assert process.stdout is not None
                assert process.stdout.readline() == "1\n"
    cube = Cube.open(uri)
    collection = cube.view().collection("s2")
    wanted = {f"scene-{number:03}" for number in range(2 * rounds)}
    assert set(collection.items()) == wanted
    for tile, columns in ((WEST, slice(0, 256)), (EAST, slice(256, 512))):
        assert sorted(collection.scene_ids(tile)) == sorted(wanted)
        for step, scene in enumerate(collection.scene_ids(tile)):
            expected = pixels_of(int(scene.removeprefix("scene-")), 256, 512)[:, :, columns]
            np.testing.assert_array_equal(collection.image(tile)[step], expected)
    assert collection.scene_ids(WEST) == collection.scene_ids(EAST)
    # one commit a scene, each on top of the other's
    assert [entry.scenes["s2"] for entry in cube.log()[: 2 * rounds]] == list(range(2 * rounds, 0, -1))
    assert check(cube).damage == []


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_on_a_local_folder(tmp_path: Path, make_scene: SceneMaker, rounds: int) -> None:
    compete(str(tmp_path / "cube"), tmp_path, make_scene, rounds)


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_on_a_bucket(tmp_path: Path, make_scene: SceneMaker, rounds: int) -> None:
    with moto() as endpoint, reached(endpoint):
        compete(f"s3://{BUCKET}/some/cube", tmp_path, make_scene, rounds)


@pytest.mark.slow
@pytest.mark.skipif(not has_ceph(), reason=f"needs {', '.join(CEPH)}: apt install ceph radosgw")
def test_on_a_bucket_of_ceph(tmp_path_factory: pytest.TempPathFactory, make_scene: SceneMaker) -> None:
    folder = tmp_path_factory.mktemp("ceph")
    with radosgw(folder) as endpoint, reached(endpoint):
        compete(f"s3://{BUCKET}/some/cube", folder, make_scene, 20)


CREATE = """if True:
    import sys, warnings; warnings.simplefilter("ignore")
    from geossl.cube.repository import Cube
    print("ready", flush=True)
    for line in sys.stdin:
        print(Cube.open_or_create(line.strip()).view().id, flush=True)"""


def test_two_that_create_the_same_cube_at_once() -> None:
    """On a bucket, where no lock keeps one waiting for the other."""
    with moto() as endpoint, reached(endpoint), contextlib.ExitStack() as stack:
        rivals = []
        for _ in range(2):
            command = [sys.executable, "-c", CREATE]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            rivals.append((process.stdin, process.stdout))
        for _, output in rivals:
            assert output is not None
            assert output.readline() == "ready\n"
        for number in range(30):
            for given, _ in rivals:
                assert given is not None
                given.write(f"s3://{BUCKET}/cube-{number}\n")
                given.flush()
            ids = {output.readline() for _, output in rivals if output is not None}
            assert len(ids) == 1
            assert ids != {""}


def test_a_cube_whose_making_was_killed_is_made(tmp_path: Path) -> None:
    """Before its history was written, files of the repository lay there already."""
    cube = Cube.create(str(tmp_path / "cube"))
    (tmp_path / "cube" / "repo").unlink()
    again = Cube.open_or_create(cube.uri)
    assert check(again).damage == []
    assert len(again.log()) == 2


CONDITIONS = [
    (frozenset({"if-match"}), "ignores If-Match:"),
    (frozenset({"if-none-match"}), "ignores If-None-Match:"),
    (frozenset({"if-match", "if-none-match"}), "ignores If-None-Match and If-Match:"),
]


@pytest.mark.parametrize(("dropped", "named"), CONDITIONS)
def test_a_store_that_loses_conditions_is_refused(dropped: frozenset[str], named: str) -> None:
    """A cube that lies there already is refused as well, before anything is written."""
    with moto() as endpoint:
        uri = f"s3://{BUCKET}/some/cube"
        with reached(endpoint):
            snapshot = Cube.create(uri).snapshot()
        with without_conditions(endpoint, frozenset()) as proxy, reached(proxy):
            assert Cube.open_or_create(uri).snapshot() == snapshot
        with without_conditions(endpoint, dropped) as proxy, reached(proxy):
            for attempt in (lambda: Cube.open_or_create(uri), lambda: Cube.create(f"{uri}-new")):
                with pytest.raises(StoreError, match=named):
                    attempt()
            with pytest.raises(StoreError, match=named), Cube.open(uri).writing():
                pass
        with reached(endpoint):
            assert Cube.open(uri).snapshot() == snapshot
