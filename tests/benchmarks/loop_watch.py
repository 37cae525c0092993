"""How long does `geossl watch` take to decide, with 10,000 scenes in the ledger?

A landing folder of 60,000 files, six a scene, all of them in the cube's ledger but one scene that came just now. The
process is started anew for each round. The ledger is written by the cube's own writer of rows; of the pixels, which
no watch reads, there are none.
"""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import icechunk
import numpy as np
import rasterio
import zarr

from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.repository import Cube
from geossl.cube.scenes import SceneEntry, write_table
from geossl.imagery.scene import Scene
from geossl.imagery.seen import Seen
from geossl.imagery.sources import open_source
from geossl.project.project import Project
from geossl.project.stages import watch

from .harness import Sides, bench

SCENES = 10_000
GRANULES = 20
"""Places that the scenes are of; each is on four tiles."""

LIMIT = 10.0
"""Seconds."""

BANDS = ("B02", "B03", "B04", "B08", "B11", "scl")

PROJECT = """\
name: landing
sensor: { name: sentinel-2-l2a, bands: [B02, B03, B04, B08, B11] }
grid: { tile: 256 }
sources: [{ kind: folder, path: landing, pattern: "{scene}/{date}/{band}.tif" }]
"""


@bench("watch-10k-scenes", unit="s", reference="the limit", better="lower", goal=1.0, rounds=3)
def watch_10k_scenes(folder: Path) -> Iterator[Sides]:
    """One new scene beside ten thousand."""
    (folder / "geossl.yaml").write_text(PROJECT)
    content = _raster(folder / "one.tif")
    for number in range(SCENES):
        _arrive(folder, number, content)
    write_ledger(Project.load(folder))
    print(f"    nothing new: {decide(folder, '–'):.1f} s, process start included")
    _arrive(folder, SCENES, content)
    yield Sides(lambda: decide(folder, "✓"), lambda: LIMIT)


def write_ledger(project: Project) -> None:
    """Let the cube hold everything that the sources have, but for the pixels."""
    seen = Seen()
    [settings] = project.settings.sources
    found = [s for s in open_source(settings, project.root).scenes(project.sensor, seen) if isinstance(s, Scene)]
    assert len(found) == SCENES
    grid = project.grid(found[:1])

    def write(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        group = layout.create_collection(root, project.sensor.name, project.sensor, grid)
        for part in itertools.batched(found, 1000):
            write_table(group, [(scene, _row(scene)) for scene in part])
            group = subgroup(zarr.open_group(session.store, mode="r+"), project.sensor.name)
        return f"ingest {SCENES} scene(s)"

    Cube.create(project.cube_uri).transact(write)
    watch.note(project, seen)


def _row(scene: Scene) -> SceneEntry:
    granule = int(scene.id.partition("-")[0][1:])
    return SceneEntry(None, scene.checksum(), 0, frozenset(f"x{granule}_y{n}" for n in range(4)))


def _raster(path: Path) -> bytes:
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 1, "dtype": "int16", "nodata": -32768}
    place = {"crs": "EPSG:32718", "transform": rasterio.transform.from_origin(600_000, 9_000_000, 10, 10)}
    with rasterio.open(path, "w", compress="deflate", **profile, **place) as out:
        out.write(np.full((1, 256, 256), 1000, np.int16))
    return path.read_bytes()


def _arrive(folder: Path, number: int, content: bytes) -> None:
    day = dt.date(2016, 1, 1) + dt.timedelta(days=5 * (number // GRANULES))
    place = folder / "landing" / f"T{number % GRANULES:02}" / f"{day:%Y%m%d}"
    place.mkdir(parents=True)
    for band in BANDS:
        (place / f"{band}.tif").write_bytes(content)


def decide(folder: Path, mark: str) -> float:
    """Seconds that `geossl watch` takes; it must say this."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "geossl.cli.app", "watch", "-p", str(folder)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - start
    assert said.startswith(mark), said
    return seconds
