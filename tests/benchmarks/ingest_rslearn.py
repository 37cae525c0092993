"""How fast scenes become what one trains on, beside rslearn, which stores GeoTIFFs of all bands by window.

rslearn may live in another interpreter, named by the environment variable ``RSLEARN_PYTHON``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.repository import Cube

from .harness import Sides, Skipped, bench
from .ingest import UNIT, measure
from .scenes import GRID, SENSOR, TILES, SceneSet, aligned

SIZE = GRID.tile_size
PYTHON = os.environ.get("RSLEARN_PYTHON", sys.executable)

COPIED = {"convert_rasters_to_cogs": False}
FAST = {"block_size": 256, "geotiff_options": {"compress": "zstd", "predictor": 2, "zstd_level": 1}}
"""What its documentation shows to be set, in our size of chunks."""


@dataclass(frozen=True)
class Setting:
    """What rslearn leaves to its user."""

    name: str
    workers: int
    tile_store: dict[str, Any] = field(default_factory=dict)
    format: dict[str, Any] = field(default_factory=dict)


SWEEP = (
    Setting("files copied first, GeoTIFF in zstd, 2 workers", 2, COPIED, FAST),
    Setting("files copied first, GeoTIFF in zstd, 1 worker", 1, COPIED, FAST),
    Setting("files copied first, GeoTIFF as it is by default, 2 workers", 2, COPIED),
    Setting("all by default, 2 workers", 2),
)


@bench(
    "ingest-vs-rslearn",
    unit=UNIT,
    reference="rslearn prepare, ingest, materialize, the best of its sweep",
    better="higher",
    goal=1.2,
    rounds=3,
)
def ingest_vs_rslearn(folder: Path) -> Iterator[Sides]:
    """Scenes that lie on the grid; rslearn's windows are our tiles."""
    asked = subprocess.run([PYTHON, "-c", "import rslearn.main"], capture_output=True, text=True, check=False)
    if asked.returncode:
        why = (asked.stderr.strip() or "no word").splitlines()[-1]
        raise Skipped(f"{PYTHON} has no rslearn ({why}); RSLEARN_PYTHON may name an interpreter that has")
    seconds = {}
    for setting in SWEEP:
        seconds[setting.name] = materialize(aligned(1), setting, folder)
        print(f"  rslearn: {setting.name}: {seconds[setting.name]:.1f} s a scene", flush=True)
    best = min(SWEEP, key=lambda setting: seconds[setting.name])
    scenes = aligned(2)
    with dask_client(ClusterSettings(workers=2)) as client:
        yield Sides(
            lambda: measure(scenes, folder / "cube", client),
            lambda: scenes.megapixels / materialize(scenes, best, folder),
        )
    cube = Cube.open(str(folder / "cube")).view().collection("scenes")
    for x, y in ((0, 0), (2, 1)):
        ours, names = cube.image(f"x{x}y{y}"), cube.scene_ids(f"x{x}y{y}")
        theirs = read_window(folder / "rslearn", f"x{x}y{y}")
        assert theirs.keys() == set(names)
        for step, name in enumerate(names):
            np.testing.assert_array_equal(np.asarray(ours[step]), theirs[name], f"tile x{x}y{y}, {name}")


def materialize(scenes: SceneSet, setting: Setting, folder: Path) -> float:
    """Seconds that a new dataset takes."""
    shutil.rmtree(folder / "rslearn", ignore_errors=True)
    corner = GRID[0, 0].transform @ (0, 0)
    left, top = round(corner[0] / GRID.resolution), round(-corner[1] / GRID.resolution)
    windows = {
        f"x{x}y{y}": (left + x * SIZE, top + y * SIZE, left + (x + 1) * SIZE, top + (y + 1) * SIZE)
        for x in range(TILES)
        for y in range(TILES)
    }
    job = {
        "folder": str((folder / "rslearn").absolute()),
        "scenes": {item.id: [asset.href for asset in item.assets.values()] for item in scenes.items},
        "bands": SENSOR.band_names,
        "dtype": SENSOR.radiometry.dtype,
        "nodata": SENSOR.radiometry.nodata,
        "crs": GRID.crs,
        "resolution": GRID.resolution,
        "windows": windows,
        "workers": setting.workers,
        "format": setting.format,
        "tile_store": setting.tile_store,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("rslearn_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, "-W", "ignore", str(script), str(folder / "job.json")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, f"rslearn failed: {done.stderr[-2000:]}"
    return sum(map(float, done.stdout.splitlines()[-1].split()))


def read_window(dataset: Path, name: str) -> dict[str, Any]:
    """Scene → (C, H, W), of what was materialized."""
    folder = dataset / "windows" / "default" / name
    (layer,) = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    found = {}
    for number, (item,) in enumerate(layer["serialized_item_groups"]):
        part = "scenes" if number == 0 else f"scenes.{number}"
        (path,) = (folder / "layers" / part).glob("*/geotiff.tif")
        with rasterio.open(path) as file:
            found[item["name"]] = file.read()
    return found
