"""The sets as geossl projects, made once below ``out/tables`` by geossl's own stages."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geossl.chips.split import TEST, TRAIN, VAL
from geossl.downstream.data import TaskData
from geossl.project.project import Project
from tests.benchmarks.recipes.sets import DATA, ZION, made

OUT = Path("out/tables")

AMAZON_S2 = """\
name: amazon-s2
sensor: {{ name: sentinel-2-l2a }}
sources:
  - kind: folder
    path: "{source}"
    pattern: sen2.tif
    bands: [B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12]
    scene: sen2
    date: 2017-01-01  # it is not said when it was taken
    physical: true
composite: null
split: {{ block: 32, buffer: 4 }}
tasks:
  landcover:
    kind: landcover
    labels:
      path: "{source}/sen2_labels.tif"
      classes:
        - {{ name: dry-out, code: 1, color: "#ccba7c" }}
        - {{ name: forest, code: 2, color: "#68aa63" }}
        - {{ name: village, code: 3, color: "#d99482" }}
        - {{ name: water, code: 4, color: "#476ba0" }}
"""

AMAZON_L5 = """\
name: amazon-l5
sensor:
  name: landsat-5-numbers
  dtype: uint8
  bands:
    - {{ name: B1, wavelength: 0.485, gsd: 30, common_name: blue }}
    - {{ name: B2, wavelength: 0.56, gsd: 30, common_name: green }}
    - {{ name: B3, wavelength: 0.66, gsd: 30, common_name: red }}
    - {{ name: B4, wavelength: 0.83, gsd: 30, common_name: nir }}
    - {{ name: B5, wavelength: 1.65, gsd: 30, common_name: swir16 }}
    - {{ name: B7, wavelength: 2.215, gsd: 30, common_name: swir22 }}
sources:
  - kind: folder
    path: "{source}/landsat5-raw"
    pattern: "LT52240631988227CUB02_{{band}}.TIF"
    bands: [B1, B2, B3, B4, B5, B7]
    scene: LT52240631988227CUB02
    date: 1988-08-14
    nodata: 255
composite: null
split: {{ block: 32, buffer: 4 }}
tasks:
  landcover:
    kind: landcover
    labels:
      path: "{source}/lsat_labels.tif"
      ignore: [2, 4]
      classes:
        - {{ name: cleared, code: 1, color: "#d99482" }}
        - {{ name: forest, code: 3, color: "#68aa63" }}
"""

CHIAPAS = """\
name: chiapas
sensor: {{ name: landsat-7-l2, dtype: int16, scale: 0.0001, offset: 0, nodata: -9999 }}
sources:
  - kind: folder
    path: "{source}"
    pattern: "LE7022049{{date:%Y%j}}EDC*_stack.gtif"
    bands: [B1, B2, B3, B4, B5, B7, thermal, fmask]
composite: null
split: {{ block: 32, buffer: 4 }}
tasks:
  landcover:
    kind: landcover
    date: 1999-11-18
    labels:
      path: "{source}/training_data.gtif"
      classes:
        - {{ name: forest, code: 1, color: "#68aa63" }}
        - {{ name: water, code: 2, color: "#476ba0" }}
        - {{ name: herbaceous, code: 3, color: "#e2e2c1" }}
        - {{ name: barren, code: 4, color: "#b3aea3" }}
        - {{ name: urban, code: 5, color: "#d99482" }}
"""

BIGEARTHNET = """\
name: bigearthnet
sensor: {{ name: sentinel-2-l2a, bands: [B02, B03, B04, B08] }}
grid: {{ crs: "EPSG:32633", resolution: 10 }}
sources:
  - {{ kind: folder, path: "{source}", pattern: images.tif, bands: [B02, B03, B04, B08], scene: patches, date: 2018-01-01 }}
composite: null
split: {{ block: 384, buffer: 4, fractions: [0.4, 0.12, 0.48] }}
tasks:
  landcover:
    kind: landcover
    labels:
      path: "{source}/labels.tif"
      classes:
        - {{ name: artificial, code: 1, color: "#d99482" }}
        - {{ name: agricultural, code: 2, color: "#dbd83d" }}
        - {{ name: forest, code: 3, color: "#68aa63" }}
        - {{ name: shrub or bare, code: 4, color: "#ccba7c" }}
        - {{ name: wetland, code: 5, color: "#bad8ea" }}
        - {{ name: water, code: 6, color: "#476ba0" }}
"""

CELL, ACROSS = 128, 3
"""A patch of 120 pixels has a cell of 128; the patches of one tile of Sentinel-2 share a block of 3 × 3 cells."""


@dataclass(frozen=True)
class Set:
    """A project, and what it is trained and judged by."""

    text: str
    source: str
    every: int
    """Every so-many-th test pixel in both directions judges."""
    chip: int
    """Side of a chip of the pretraining, so that some lie wholly in a block."""
    min_clear: float = 0.5
    """Share of a chunk of 256 pixels, and of a chip, that must be clear: small scenes fill no chunk."""
    make: Callable[[Path, Path], Path] | None = None
    """What has to be made of the source first: (source, folder) → the new source."""


def lay_out(source: Path, folder: Path) -> Path:
    """The 60 patches on one raster, each Sentinel-2 tile's in a block of its own: where they lie does not matter.

    A block teaches or judges as a whole, since patches of one tile are neighbours of one day. CORINE's 44 classes
    become six: artificial, agricultural, forest, shrub or bare, wetland, water.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (source / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_tile: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_tile[row["tile"]].append(row["patch_id"])
    side = ACROSS * CELL
    columns = 6
    height, width = -(-len(by_tile) // columns) * side, columns * side
    image = np.zeros((4, height, width), np.uint16)
    label = np.zeros((height, width), np.uint8)
    for number, patches in enumerate(by_tile[tile] for tile in sorted(by_tile)):
        top, left = number // columns * side, number % columns * side
        for place, patch in enumerate(patches):
            row, col = top + place // ACROSS * CELL + 4, left + place % ACROSS * CELL + 4
            at = slice(row, row + 120), slice(col, col + 120)
            with rasterio.open(source / "s2" / f"{patch}.tif") as file:
                image[:, *at] = file.read()
            with rasterio.open(source / "reference_map" / f"{patch}_reference_map.tif") as file:
                label[at] = broad(file.read(1))
    # the first block begins at a corner of the grid's lattice of blocks
    origin = 10 * side * 130, 10 * side * 1400
    about = {"crs": "EPSG:32633", "transform": from_origin(*origin, 10, 10), "height": height, "width": width}
    for name, array in (("images", image), ("labels", label[None])):
        with rasterio.open(
            folder / f"{name}.tif", "w", "GTiff", count=len(array), dtype=array.dtype, nodata=0, **about
        ) as file:
            file.write(array)
    return folder.resolve()


def broad(corine: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """CORINE codes of three digits → 1 … 6."""
    first, second = corine // 100, corine // 10
    return np.select([first == 1, first == 2, second == 31, first == 3, first == 4, first == 5], [*range(1, 7)]).astype(
        np.uint8
    )


SETS = {
    "zion": Set(ZION, "zion-landsat8-nlcd", 4, 64),
    "amazon-s2": Set(AMAZON_S2, "rstoolbox-amazon", 1, 32, 0.1),
    "amazon-l5": Set(AMAZON_L5, "rstoolbox-amazon", 1, 32, 0.1),
    "chiapas": Set(CHIAPAS, "chiapas-landsat7-pair", 1, 32),
    "bigearthnet": Set(BIGEARTHNET, "bigearthnet-v2-patches", 4, 64, make=lay_out),
}


def project(name: str) -> Project:
    """The project of a set with its imagery and labels in the cube, under the first split with every class everywhere.

    With few polygons a split can leave a class without any label to learn from or to be judged by; which split is
    taken follows from where the labels lie, not from any score.
    """
    chosen = SETS[name]
    folder = OUT / name / "project"
    source = DATA / chosen.source
    if chosen.make:
        source = chosen.make(source, OUT / name / "source")
    plain = made(folder, chosen.text.format(source=source))
    for seed in range(100):
        found = Project.load(folder, [f"split.seed={seed}"])
        data = found.task_data("landcover")
        assert isinstance(data, TaskData)
        if all((data.counts(subset) > 0).all() for subset in (TRAIN, VAL, TEST)):
            return found
    return plain
