"""Runs that were lost, doubled, out of order or at the same time end in the same state as one clean run."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rasterio

from geossl.project.project import Project
from geossl.project.state import content

from .server import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = """\
name: order
grid: { tile: 256 }
cluster: { workers: 1 }
sensor: { name: sentinel-2-l2a, bands: [B02, B03, B04, B08] }
sources:
  - { kind: folder, path: imagery/scenes }
composite: { months: 6 }
split: { block: 32, buffer: 4, fractions: [0.5, 0.2, 0.3], seed: 3 }
pretrain: { encoder: { name: unet-tiny }, epochs: 1, chip: 32, batch_size: 16, threads: 1, precision: "32" }
evaluate: { labels: [60], draws: 1, floors: false }
tasks:
  landcover:
    kind: landcover
    labels: { path: imagery/labels/landcover.gpkg, column: class }
    settings: { labels: 100, mode: few }
map: { minimum_ha: 0.1 }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which nothing has run, with three scenes."""
    import datetime as dt

    from geossl.demo.landscape import LandscapeSettings, write_landscape

    folder = tmp_path_factory.mktemp("order")
    days = ("2021-08-07", "2022-07-18", "2022-09-01")
    write_landscape(folder / "imagery", LandscapeSettings(size=256, dates=tuple(map(dt.date.fromisoformat, days))))
    (folder / "geossl.yaml").write_text(SETTINGS)
    return folder


def everything(folder: Path) -> dict[str, Any]:
    """What a project holds, but for the times at which it came about."""
    project = Project.load(folder)
    champion = project.registry.find("landcover", "champion")
    record = project.state.get("map.landcover")
    assert champion is not None
    assert record is not None
    with rasterio.open(project.maps / record.result["release"] / "landcover.tif") as raster:
        pixels = raster.read()
    return {
        "scenes": content(project.scenes()),
        "composites": content(project.task_images()),
        "encoder": digest(project.encoder_folder() / "encoder.safetensors"),
        "model": sorted(digest(path) for path in (project.store / champion.folder).glob("*.safetensors")),
        # sums of another number of threads differ in the last digits
        "scores": json.loads(json.dumps(project.scores()), parse_float=lambda number: round(float(number), 6)),
        "map": hashlib.blake2b(pixels.tobytes()).hexdigest(),
    }


def digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def clean(world: Path, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run over all scenes leaves."""
    from flows.main import run

    folder = tmp_path_factory.mktemp("clean")
    shutil.copytree(world, folder, dirs_exist_ok=True)
    run(folder)
    return everything(folder)


def test_lost_doubled_late_and_at_once_it_ends_as_one_clean_run(
    world: Path, clean: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    from flows.ingest import ingest
    from flows.main import run
    from flows.publish import publish
    from flows.retrain import retrain
    from flows.watch import watch

    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    landing, later = tmp_path / "imagery" / "scenes", tmp_path / "later"
    landing.rename(later)
    landing.mkdir()

    def arrive(_: Path) -> None:
        first = min(later.iterdir())
        first.rename(landing / first.name)

    publish(tmp_path)  # before there is anything
    for step in (arrive, watch, retrain, arrive, publish, arrive, ingest, ingest, publish):
        step(tmp_path)
    # at last two runs at once; what one has done, the other finds done
    command = [sys.executable, "-m", "flows.main", str(tmp_path)]
    with subprocess.Popen(command, env=prefect_server.client_environment()) as other:
        run(tmp_path)
    assert other.returncode == 0
    assert everything(tmp_path) == clean
