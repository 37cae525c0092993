"""``python -m tests.releases.make``: a small project as this version of geossl leaves it, kept for later versions to open.

Run before a release; it writes ``tests/releases/<version>.tar.xz``, which is committed and never made again. The
pixels are drawn by :func:`pixels`, so that a test knows every one of them. The encoder's weights are rounded to
three values each, which makes the archive small.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

import geossl
from geossl.files import read_json, write_json
from geossl.nets.weights import load_encoder, save_encoder
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import ingest, pretrain, retrain, stats, watch
from geossl.project.stages import map as map_stage
from geossl.registry import Decision

SIDE = 256
DAYS = ("20230110", "20230715")
BANDS = 3

PROJECT = """\
# A small project, as a user of this version would have written it.
name: kept
grid: { tile: 256 }
cluster: { workers: 1 }
ingest: { reserve: 0 }
sensor: { name: sentinel-2-l2a, bands: [B03, B04, B08] }
sources:
  - { kind: folder, path: imagery, pattern: "{date}.tif", scene: field }
split: { block: 16, buffer: 0, fractions: [0.4, 0.2, 0.4], gate: 0.15 }
composite: null
pretrain:
  method: { name: simclr }
  encoder: { name: unet-tiny }
  epochs: 1
  chip: 64
  batch_size: 8
evaluate: { floors: false, labels: [60], draws: 1 }
retrain: { hours: 1 }
tasks:
  landcover:
    kind: landcover
    labels: { path: labels.tif }
    settings: { labels: 200, mode: few }
"""

PROFILE = {
    "driver": "GTiff", "width": SIDE, "height": SIDE, "crs": "EPSG:32622", "compress": "deflate",
    "transform": rasterio.transform.from_origin(600_000, 9_000_320, 10, 10),
}  # fmt: skip


def classes() -> NDArray[np.uint8]:
    """(H, W) land classes 1, 2, 3 in fields of 16 px."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 4, (SIDE // 16, SIDE // 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)


def pixels(day: int) -> NDArray[np.int16]:
    """(C, H, W) numbers of one day's image: those of the class, the day's, and a little of a pattern."""
    land = np.array([[400, 500, 300], [900, 1200, 2500], [500, 400, 3500]], np.int16)
    y, x = np.mgrid[:SIDE, :SIDE]
    pattern = ((x // 2 + y // 2) % 4 * 20).astype(np.int16)
    return land[classes() - 1].transpose(2, 0, 1) + pattern + np.int16(100 * day)


def write_inputs(folder: Path) -> None:
    """The imagery and labels of the project."""
    (folder / "imagery").mkdir(parents=True, exist_ok=True)
    for day, name in enumerate(DAYS):
        with rasterio.open(
            folder / "imagery" / f"{name}.tif", "w", count=BANDS, dtype="int16", nodata=-32768, **PROFILE
        ) as out:
            out.write(pixels(day))
    with rasterio.open(folder / "labels.tif", "w", count=1, dtype="uint8", nodata=0, **PROFILE) as out:
        out.write(classes(), 1)


def main() -> None:
    target = Path(__file__).with_name(f"{geossl.__version__}.tar.xz")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "kept"
        write_inputs(folder)
        (folder / "geossl.yaml").write_text(PROJECT)
        make(Project.load(folder))
        with tarfile.open(target, "w:xz", preset=9) as archive:
            archive.add(folder / "geossl.yaml", "geossl.yaml")
            archive.add(folder / "store", "store", filter=_kept)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


def make(project: Project) -> None:
    """Run the loop once, with a second model that the gate refuses."""
    ingest.run(project, silent)
    stats.run(project, silent)
    pretrain.run(project, silent)
    _round(project)
    retrain.run(project, silent)
    map_stage.run(project, silent)
    first = project.registry.find("landcover", "champion")
    assert first is not None
    assert not watch.look(project, silent)
    other = project.registry.register("landcover", (project.store / first.folder).with_name("another"))
    refused = Decision.refused("its labels were of another legend", metric="macro_f1", margin=0.01)
    project.registry.decide("landcover", other.number, refused)


def _round(project: Project) -> None:
    """Let the encoder's weights be few numbers, and the project know it by its new name."""
    trained = project.encoder_folder()
    encoder, card = load_encoder(trained)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.round((parameter / parameter.std()).clamp(-1, 1)) * parameter.std())
    partial = project.encoders / "rounded"
    card = save_encoder(partial, encoder, card)
    partial.rename(project.encoders / card.id)
    shutil.rmtree(trained)
    record = project.state.folder / "pretrain.json"
    content = read_json(record)
    assert content is not None
    content["result"]["encoder"] = card.id
    write_json(record, content)


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rpartition("/")[2]
    derived = name.startswith("mlflow.db") or name.endswith((".lock", ".png")) or name == ".lock"
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if derived else entry


if __name__ == "__main__":
    main()
