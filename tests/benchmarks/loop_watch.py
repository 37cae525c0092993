"""How long does `geossl watch` take to decide, with 10,000 scenes in the ledger?

A landing folder of 60,000 files, six a scene, all of them in the cube's ledger but one scene that came just now. The
process is started anew for each round. The ledger is written by the cube's own writer of rows, the note of what was
met by the watch's own; of the pixels, which no watch reads, there are none.
"""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import rasterio
import zarr

from geossl.cube import layout
from geossl.cube.arrays import subgroup
from geossl.cube.repository import Cube
from geossl.cube.scenes import SceneEntry, write_table
from geossl.imagery.folder import FolderSettings, FolderSource
from geossl.imagery.scene import Scene
from geossl.imagery.seen import Seen
from geossl.project.project import Project
from geossl.project.stages import watch

from .harness import Sides, bench

SCENES = 10_000
GRANULES = 20
"""Places that the scenes are of; each is on four tiles."""

LIMIT = 10.0
"""Seconds."""

_DAY = dt.datetime(2016, 1, 1, tzinfo=dt.UTC)

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
    landing = project.root / "landing"
    one = next(landing.glob("*/*"))
    said = FolderSettings.model_validate({"path": str(one), "pattern": "{band}.tif", "date": _DAY})
    [first] = FolderSource(said, one).scenes(project.sensor)
    assert isinstance(first, Scene)
    folders = sorted(landing.glob("*/*"))
    found = [_moved(first, folder) for folder in folders]
    grid = project.grid(found[:1])

    def write(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        layout.create_collection(root, project.sensor.name, project.sensor, grid)
        for part in itertools.batched(found, 1000):
            group = subgroup(zarr.open_group(session.store, mode="r+"), project.sensor.name)
            write_table(group, [(scene, _row(scene)) for scene in part])
        return f"ingest {SCENES} scene(s)"

    Cube.create(project.cube_uri).transact(write)
    seen = Seen()
    seen.new_files(path for folder in folders for path in folder.iterdir())
    watch.note(project, seen)


def _moved(scene: Scene, folder: Path) -> Scene:
    """The same scene in another folder, with the name and day that the source would give it."""
    day = dt.datetime.strptime(folder.name, "%Y%m%d").replace(tzinfo=dt.UTC)
    assets = [
        {name: replace(asset, href=str(folder / Path(asset.href).name)) for name, asset in of.items()}
        for of in (scene.bands, scene.masks)
    ]
    return replace(scene, id=f"{folder.parent.name}-{folder.name}", time=day, bands=assets[0], masks=assets[1])


def _row(scene: Scene) -> SceneEntry:
    granule = int(scene.id.partition("-")[0][1:])
    return SceneEntry(None, f"{hash(scene.id):032x}"[-32:], 0, frozenset(f"x{granule}_y{n}" for n in range(4)))


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
    assert f"{mark} watch" in said, said
    return seconds
