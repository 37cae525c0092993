"""One new scene that touches two of a hundred tiles: what does its map take beside the map of everything?

Both sides are what a person or a flow would start: ``geossl ingest`` and ``geossl map``, each a process of its own,
from its start to its end. Ours brings in one scene and renews the map, with its polygons and what describes it; the
reference maps the whole area, from an ingested cube. The default encoder with a light decoder on random weights, tiles and
windows as they come.

``python -m tests.benchmarks.loop_map [FOLDER]`` measures once, each side one time, in a folder that stays.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import torch

from geossl.bands import Statistics
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.task import TaskCard, TrainedTask, save_task
from geossl.legend import LandClass, Legend
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.project.project import Project

from .harness import Sides, bench
from .scenes import pixels

TILES, SIZE = 10, 1024
"""Tiles each way, and pixels of one."""
CHANGED = (4, 5)
"""Row and column of the first tile that the new scene covers; the other is the one to its right."""
BANDS = ("B02", "B03", "B04", "B08")
LEGEND = Legend(tuple(LandClass(n + 1, f"class {n + 1}", f"#{40 * n:02x}8040") for n in range(5)))

PROJECT = f"""\
name: renewed
sensor: {{ name: sentinel-2-l2a, bands: [{", ".join(BANDS)}] }}
grid: {{ tile: {SIZE} }}
ingest: {{ reserve: 0 }}
composite: null
sources: [{{ kind: folder, path: landing, pattern: "{{scene}}-{{date}}.tif" }}]
tasks: {{ cover: {{ kind: landcover, labels: {{ path: labels.tif }} }} }}
"""


@bench("incremental-vs-full-map", unit="s", reference="a map of all 100 tiles", better="lower", goal=0.05, rounds=1)
def incremental_vs_full_map(folder: Path) -> Iterator[Sides]:
    """Process starts included on either side."""
    prepare(folder)
    whole(folder)
    yield Sides(lambda: renew(folder), lambda: whole(folder))


def prepare(folder: Path) -> None:
    """A project whose cube holds one scene of everything, and whose task has a champion."""
    (folder / "landing").mkdir(parents=True)
    (folder / "geossl.yaml").write_text(PROJECT)
    _write_scene(folder, "all", dt.date(2024, 1, 1), (0, 0), TILES, TILES)
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(folder / "labels.tif", "w", **profile, **_place(0, 0)) as out:
        out.write(np.tile(np.arange(1, 6, dtype=np.uint8), (1, SIZE, SIZE // 5 + 1))[:, :, :SIZE])
    geossl(folder, "ingest")
    geossl(folder, "stats")
    project = Project.load(folder)
    torch.manual_seed(0)
    settings = EncoderSettings()
    network = LandcoverNetwork(build_encoder(settings, project.sensor.bands), len(LEGEND))
    mean, std = (2000.0,) * len(BANDS), (1000.0,) * len(BANDS)
    statistics = Statistics((1,) * len(BANDS), mean, std, mean, mean, mean, mean)
    card = TaskCard("landcover", LEGEND, project.sensor, statistics, settings, "dense", "encoder", "", {}, "", {}, None)
    task = TrainedTask.create(card, network)
    save_task(project.tasks / "cover" / task.id, task)
    project.registry.register("cover", project.tasks / "cover" / task.id)


def whole(folder: Path) -> float:
    """Seconds of the first map."""
    shutil.rmtree(folder / "store" / "maps", ignore_errors=True)
    return geossl(folder, "map")


def renew(folder: Path) -> float:
    """Seconds from a scene's arrival to its map."""
    number = len(list((folder / "landing").iterdir()))
    _write_scene(folder, "new", dt.date(2024, 1, 1) + dt.timedelta(days=5 * number), CHANGED, 1, 2)
    return geossl(folder, "ingest") + geossl(folder, "map")


def geossl(folder: Path, verb: str) -> float:
    """Seconds of one verb."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "geossl.cli.app", verb, "-p", str(folder)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    seconds = time.perf_counter() - start
    print(
        f"    {verb}: {seconds:.1f} s;", "; ".join(line.strip() for line in said.stdout.splitlines()[1:4]), flush=True
    )
    return seconds


def _place(row: int, column: int) -> dict[str, object]:
    corner = rasterio.transform.from_origin(604_160 + 10 * SIZE * column, 9_001_600 - 10 * SIZE * row, 10, 10)
    return {"crs": "EPSG:32622", "transform": corner}


def _write_scene(folder: Path, name: str, day: dt.date, corner: tuple[int, int], rows: int, columns: int) -> None:
    profile = {"driver": "GTiff", "width": columns * SIZE, "height": rows * SIZE, "count": len(BANDS),
               "dtype": "int16", "nodata": -32768, "tiled": True, "compress": "deflate", "zlevel": 1}  # fmt: skip
    number = (day - dt.date(2024, 1, 1)).days
    with rasterio.open(folder / "landing" / f"{name}-{day:%Y%m%d}.tif", "w", **profile, **_place(*corner)) as out:
        for band in range(len(BANDS)):
            image = pixels(band, number, TILES * SIZE)[: rows * SIZE, : columns * SIZE]
            out.write((image // 4).astype(np.int16), band + 1)


def main() -> None:
    """Measure once."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/loop-map")
    if not folder.exists():
        prepare(folder)
        print("prepared: call again to measure")
        return
    full = whole(folder)
    renewed = renew(folder)
    print(f"{renewed:.1f} s of {full:.1f} s: {renewed / full:.1%}")


if __name__ == "__main__":
    main()
