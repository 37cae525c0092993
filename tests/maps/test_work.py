"""How a prediction is carried out: read ahead and written behind, on workers, killed, and on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client

from geossl.bands import Statistics
from geossl.cluster import ClusterSettings, dask_client
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.task import TaskCard, TrainedTask, load_task, save_task
from geossl.errors import StoreError
from geossl.maps import work
from geossl.maps.ahead import Behind, ahead
from geossl.maps.blend import Blender
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.settings import MapSettings
from geossl.maps.tiles import TileFolder
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

OPTIONS = MapSettings(window=128, margin=16, overlap=32, batch=3)


@pytest.fixture
def task(tiny_cube, new_task) -> TrainedTask:
    """A network of random weights for the tiny cube."""
    collection = tiny_cube.view().collection("sentinel-2-l2a")
    legend = new_task().legend
    torch.manual_seed(0)
    settings = EncoderSettings(name="unet-tiny")
    network = LandcoverNetwork(build_encoder(settings, collection.sensor.bands), len(legend))
    statistics = collection.statistics
    assert isinstance(statistics, Statistics)
    card = TaskCard(
        "landcover", legend, collection.sensor, statistics, settings, "dense", "encoder", "", {}, "", {}, None
    )
    return TrainedTask.create(card, network)


def rasters(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: TileFolder(folder).read(path.stem) for path in folder.glob("*.tif")}


def test_what_is_made_ahead_comes_in_order_and_in_another_thread():
    made: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for n in range(6):
            made.append(n)
            yield n, threading.get_ident()

    got = []
    for n, thread in ahead(items()):
        assert thread != threading.get_ident()
        got.append(n)
        deadline = time.monotonic() + 5
        while len(made) < min(6, n + 3) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(made) == min(6, n + 3), "two are ready, no more"
    assert got == made == list(range(6))


def test_errors_of_either_thread_reach_whoever_waits():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("while reading")

    with pytest.raises(ValueError, match="while reading"):
        list(ahead(items()))
    done: list[int] = []

    def write(n: int) -> None:
        if n == 2:
            raise OSError("while writing")
        done.append(n)

    def write_all() -> None:
        with Behind() as behind:
            for n in range(100):
                behind(write, n)

    with pytest.raises(OSError, match="while writing"):
        write_all()
    assert done[:2] == [0, 1]
    assert len(done) < 10, "what came after the error was not all written"


@pytest.mark.slow  # each worker imports torch
def test_workers_predict_what_one_process_does(tiny_cube, task, tmp_path):
    collection = tiny_cube.view().collection("sentinel-2-l2a")
    steps = dict.fromkeys(collection.tile_ids, (2,))
    alone = predict_map(task, collection, steps, tmp_path / "alone", settings=OPTIONS)
    with dask_client(ClusterSettings(workers=2)) as client:
        shared = predict_map(task, collection, steps, tmp_path / "shared", settings=OPTIONS, client=client)
        again = predict_map(task, collection, steps, tmp_path / "shared", settings=OPTIONS, client=client)
    assert shared.records == alone.records
    assert shared.computed == alone.computed
    assert again.computed == ()
    ours, theirs = rasters(tmp_path / "alone"), rasters(tmp_path / "shared")
    assert ours.keys() == theirs.keys() == set(collection.tile_ids)
    for tile_id, pixels in ours.items():
        np.testing.assert_array_equal(pixels, theirs[tile_id])
        assert (pixels[:, :, :40] == 255).all(), "the no-data stripe"
        assert (pixels[:, :, 40:] != 255).all()


def test_threads_of_one_worker_take_turns(tiny_cube, task, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "_LONGEST", 1)  # a run for each tile, all at the same time
    blend, inside, most = Blender.blend, set(), []

    def watched(self, *args):
        inside.add(threading.get_ident())
        most.append(len(inside))
        yield from blend(self, *args)
        inside.discard(threading.get_ident())

    collection = tiny_cube.view().collection("sentinel-2-l2a")
    steps = dict.fromkeys(collection.tile_ids, (2,))
    alone = predict_map(task, collection, steps, tmp_path / "alone", settings=OPTIONS)
    monkeypatch.setattr(Blender, "blend", watched)
    with Client(processes=False, n_workers=1, threads_per_worker=3, dashboard_address=None) as client:
        shared = predict_map(task, collection, steps, tmp_path / "shared", settings=OPTIONS, client=client)
    assert max(most) == 1, "they share what a blender keeps"
    assert shared.records == alone.records
    theirs = rasters(tmp_path / "shared")
    for tile_id, pixels in rasters(tmp_path / "alone").items():
        np.testing.assert_array_equal(pixels, theirs[tile_id])


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from geossl.cube.repository import Cube
    from geossl.downstream.task import load_task
    from geossl.maps.predict import predict_map
    from geossl.maps.settings import MapSettings

    cube, task, folder, options, calls = sys.argv[1:]
    task = load_task(Path(task))
    predict = task.predict

    def predict_and_die(*args):
        global calls
        calls = int(calls) - 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return predict(*args)

    task.predict = predict_and_die
    collection = Cube.open(cube).view().collection("sentinel-2-l2a")
    steps = dict.fromkeys(collection.tile_ids, (2,))
    predict_map(task, collection, steps, Path(folder), settings=MapSettings.model_validate_json(options))
"""


@pytest.mark.slow
def test_a_map_that_is_killed_again_and_again_ends_as_one_that_is_not(tiny_cube, task, tmp_path):
    save_task(tmp_path / "task", task)
    collection = tiny_cube.view().collection("sentinel-2-l2a")
    steps = dict.fromkeys(collection.tile_ids, (2,))
    task = load_task(tmp_path / "task")
    calm = predict_map(task, collection, steps, tmp_path / "calm", settings=OPTIONS)
    script = textwrap.dedent(KILLED)
    for calls in (3, 17, 17):
        command = [sys.executable, "-c", script, tiny_cube.uri, str(tmp_path / "task"), str(tmp_path / "killed")]
        process = subprocess.run([*command, OPTIONS.model_dump_json(), str(calls)], check=False, env=os.environ)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        for path in (tmp_path / "killed").glob("x*.json"):
            assert TileFolder(tmp_path / "killed").record(path.stem) in calm.records, "a record tells of a whole tile"
    report = predict_map(task, collection, steps, tmp_path / "killed", settings=OPTIONS)
    assert report.records == calm.records
    assert report.seam == calm.seam
    ours, theirs = rasters(tmp_path / "calm"), rasters(tmp_path / "killed")
    for tile_id, pixels in ours.items():
        np.testing.assert_array_equal(pixels, theirs[tile_id])


def test_a_disk_that_fills_leaves_the_last_map_and_says_what_is_missing(collection, new_task, small_disk, fill):
    """Pixels of noise, so that tiles are as large as they get."""
    rng = np.random.default_rng(0)
    for image in collection.images.values():
        image[:] = rng.integers(-2000, 2000, image.shape)
    steps = dict.fromkeys(collection.tile_ids, (0,))
    options = MapSettings(overlap=8, minimum_ha=1.0)

    def publish(task):
        report = predict_map(task, collection, steps, tiles_folder(small_disk, "land"), settings=options)
        parts = {"legend": task.legend, "grid": collection.grid, "encoder": None, "settings": options}
        return report, publish_map(report, small_disk, "land", **parts)

    _, first = publish(new_task())
    good = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    (tile, *_) = (tiles_folder(small_disk, "land") / f"{tile_id}.tif" for tile_id in collection.tile_ids)

    # no room for a second version of a tile beside its first
    filling = fill(leave=tile.stat().st_size // 2)
    other = new_task(id="pointwise-2", radius=1)
    with pytest.raises(StoreError, match=r"is full: the rest of the map needs (about|more than) [\d.]+[kKM]i?B"):
        publish(other)
    filling.unlink()

    # room for tiles, none for a release
    predict_map(other, collection, steps, tiles_folder(small_disk, "land"), settings=options)
    filling = fill(leave=tile.stat().st_size)
    with pytest.raises(StoreError, match=r"is full: the new release needs (about|more than) [\d.]+[kKM]i?B"):
        publish(other)
    assert {path.name: path.read_bytes() for path in (small_disk / "land" / "latest").iterdir()} == good
    assert not list((small_disk / "land" / "releases").glob(".partial-*"))
    filling.unlink()

    report, second = publish(other)
    assert report.computed == (), "the tiles that were done are kept"
    assert (small_disk / "land" / "latest").resolve() == second.folder.resolve() != first.folder.resolve()
