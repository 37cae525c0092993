"""``python -m tests.benchmarks.pucallpa``: 35 years of clearing at Pucallpa, without a label.

The real flow on the eight images of 1985 to 2020: ingest, statistics, a clearing map for each pair of years that
follow one another, and its cleared area. Then a hundred points, half in what the last map calls cleared and half in
the forest that it does not, are drawn at random and written with their crops before and after into contact sheets
below ``out/pucallpa``. Somebody looked at each of them: ``pucallpa.csv`` beside this file holds what they saw, and
with ``--judged`` it is compared with the map and printed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pyproj import Transformer
from rasterio.windows import Window

from geossl.downstream.settings import UnlabelledMethod
from geossl.legend import NO_LABEL
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import stage

OUT = Path("out/pucallpa")
DATA = Path(__file__).parents[3] / "shared" / "data" / "pucallpa-landsat-series"
JUDGED = Path(__file__).with_suffix(".csv")
YEARS = (1985, 1990, 1995, 2000, 2005, 2010, 2015, 2020)
METHODS: tuple[UnlabelledMethod, ...] = ("cva", "irmad", "embedding")

SENSOR = """\
sensor:
  name: landsat-composite
  dtype: uint8
  nodata: 0
  bands:
    - { name: swir1, wavelength: 1.65, gsd: 90, common_name: swir16 }
    - { name: nir, wavelength: 0.84, gsd: 90, common_name: nir }
    - { name: red, wavelength: 0.66, gsd: 90, common_name: red }
    - { name: green, wavelength: 0.56, gsd: 90, common_name: green }
"""
"""Of the eight images, as a project file says it."""

PROJECT = """\
name: pucallpa
{sensor}grid: {{ resolution: 90 }}
sources:
  - {{ kind: folder, path: "{source}", pattern: "{{date:%Y}}.tif", bands: [swir1, nir, red, green], scene: pucallpa }}
composite: null
pretrain: {{ minutes: 1.5, epochs: 1000, chip: 64, batch_size: 32, method: {{ name: simclr, pairs: season }} }}
map: {{ minimum_ha: 4 }}
tasks:
"""

TASK = """\
  {name}:
    kind: change
    before: {before}-01-01
    after: {after}-01-01
    forest: {{ kind: index, ndvi: 0.75, ndmi: 0.2 }}
    river: {{}}
    settings: {{ method: {method} }}
"""

SAYS = {0: "forest", 1: "cleared", 2: "river"}
"""What the map's codes mean where there was forest."""

POINTS, SEED = 100, 1
SIDE, ZOOM = 25, 7
"""Pixels around a point that its crops show, and how often they are enlarged."""


def name_of(method: str, before: int, after: int) -> str:
    """Of a task."""
    return f"{method}-{before}-{after}"


def project(methods: tuple[UnlabelledMethod, ...]) -> Project:
    """The project, brought up to date."""
    tasks = [
        TASK.format(name=name_of(m, a, b), before=a, after=b, method=m)
        for m in methods
        for a, b in itertools.pairwise(YEARS)
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "geossl.yaml").write_text(PROJECT.format(sensor=SENSOR, source=DATA) + "".join(tasks))
    found = Project.load(OUT)
    verbs = ["ingest", "stats", *(["pretrain"] if "embedding" in methods else []), "finetune", "map"]
    for verb in verbs:
        stage(verb)(found, silent)
    return found


def areas(found: Project, methods: tuple[UnlabelledMethod, ...]) -> Iterator[str]:
    """Markdown: hectares cleared in each period, of the forest at its begin."""
    each = (f"{m}: cleared, ha (% a year) | {m}: taken by the river, ha" for m in methods)
    yield f"| period | forest before, ha | {' | '.join(each)} |"
    yield "|---|---|" + "---|---|" * len(methods)
    for before, after in itertools.pairwise(YEARS):
        cells, forest = [], 0.0
        for method in methods:
            with rasterio.open(raster(found, method, before, after)) as file:
                hectare = abs(file.transform.a * file.transform.e) / 1e4
                cleared, river = (float((file.read(1) == code).sum()) * hectare for code in (1, 2))
            forest = _forest_area(found, name_of(method, before, after)) * hectare
            cells.append(f"{cleared:,.0f} ({100 * cleared / forest / (after - before):.2f}) | {river:,.0f}")
        yield f"| {before}–{after} | {forest:,.0f} | " + " | ".join(cells) + " |"


def _forest_area(found: Project, task: str) -> int:
    data = found.task_data(task)
    return sum(int(data.asked(tile_id).sum()) for tile_id in data.require_dates())


def raster(found: Project, method: str, before: int, after: int) -> Path:
    """The published map of a period."""
    name = name_of(method, before, after)
    return found.maps / name / "latest" / f"{name}.tif"


def draw(found: Project, method: UnlabelledMethod) -> list[tuple[float, float, str]]:
    """Points (x, y, what the map says), half in each stratum, of the last period; in one shuffled order.

    The strata are what is cleared, and the forest that is not: where there was no forest there is nothing to judge.
    """
    before, after = YEARS[-2:]
    data = found.task_data(name_of(method, before, after))
    rng = np.random.default_rng(SEED)
    points = []
    with rasterio.open(raster(found, method, before, after)) as file:
        codes = file.read(1)
        forest = np.zeros(codes.shape, bool)
        for tile_id in data.require_dates():
            tile = data.collection.tile(tile_id)
            left, top = (round(v) for v in ~file.transform @ (tile.transform.c, tile.transform.f))
            rows = range(max(top, 0), min(top + tile.shape[0], codes.shape[0]))
            cols = range(max(left, 0), min(left + tile.shape[1], codes.shape[1]))
            asked = data.asked(tile_id)
            forest[rows.start : rows.stop, cols.start : cols.stop] = asked[
                rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
            ]
        for says, stratum in (("cleared", codes == 1), ("forest", (codes == 0) & forest & (codes != NO_LABEL))):
            for flat in rng.choice(np.flatnonzero(stratum), POINTS // 2, replace=False):
                row, col = divmod(int(flat), codes.shape[1])
                x, y = file.transform @ (col + 0.5, row + 0.5)
                points.append((round(x), round(y), says))
    return [points[i] for i in rng.permutation(len(points))]


def sheets(found: Project, points: list[tuple[float, float, str]], *, columns: int = 4, rows: int = 5) -> list[Path]:
    """Contact sheets: number, the image before, the image after, the point in the middle; not what the map says."""
    crs = found.grid().crs
    paths = []
    for first in range(0, len(points), columns * rows):
        width, height = 2 * SIDE * ZOOM + 14, SIDE * ZOOM + 22
        sheet = Image.new("RGB", (columns * width, rows * height), "white")
        pen = ImageDraw.Draw(sheet)
        for k, (x, y, _) in enumerate(points[first : first + columns * rows]):
            left, top = k % columns * width, k // columns * height
            pen.text((left + 4, top + 2), f"{first + k + 1}", fill="black", font_size=15)
            for side, year in enumerate(YEARS[-2:]):
                place = left + 2 + side * (SIDE * ZOOM + 2), top + 20
                pen.text((place[0] + 60, top + 2), str(year), fill="black", font_size=15)
                sheet.paste(crop(year, x, y, crs), place)
                x0, y0 = (p + SIDE // 2 * ZOOM for p in place)
                pen.rectangle([x0 - 2, y0 - 2, x0 + ZOOM + 1, y0 + ZOOM + 1], outline="white", width=1)
        paths.append(OUT / f"points-{first // (columns * rows) + 1}.png")
        sheet.save(paths[-1])
    return paths


def crop(year: int, x: float, y: float, crs: str) -> Image.Image:
    """The source image itself around a point: short-wave infrared, near infrared, red."""
    with rasterio.open(DATA / f"{year}.tif") as file:
        lon, lat = Transformer.from_crs(crs, file.crs, always_xy=True).transform(x, y)
        row, col = file.index(lon, lat)
        window = Window(col - SIDE // 2, row - SIDE // 2, SIDE, SIDE)
        bands: NDArray[np.uint8] = file.read([1, 2, 3], window=window, boundless=True, fill_value=0)
    stretched = np.clip(bands.astype(float) * np.array([1.1, 1.0, 2.0])[:, None, None], 0, 255).astype(np.uint8)
    picture = Image.fromarray(stretched.transpose(1, 2, 0))
    return picture.resize((SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.NEAREST)


def judged(found: Project, method: str) -> Iterator[str]:
    """How many of the judged points the map has right, and those that it has not."""
    right: dict[str, list[int]] = {says: [0, 0] for says in SAYS.values()}
    misses = []
    with JUDGED.open(newline="", encoding="utf-8") as file, rasterio.open(raster(found, method, *YEARS[-2:])) as map_:
        for line in csv.DictReader(file):
            code = int(next(map_.sample([(float(line["x"]), float(line["y"]))]))[0])
            says = SAYS[code]
            hit = says == line["eye"]
            right[says][0] += hit
            right[says][1] += 1
            if not hit:
                misses.append(
                    f"{line['point']} ({line['x']}, {line['y']}): map {says}, eye {line['eye']}; {line['remark']}"
                )
    hits, seen = (sum(pair[i] for pair in right.values()) for i in (0, 1))
    yield f"{method}: {hits} of {seen} points right; " + ", ".join(
        f"{says} {hit} of {n}" for says, (hit, n) in right.items()
    )
    yield from misses


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pucallpa", description=__doc__)
    parser.add_argument("--method", choices=METHODS, nargs="*", default=["cva"])
    parser.add_argument("--draw", action="store_true", help="draw points of the first method's map, and the sheets")
    parser.add_argument("--judged", action="store_true", help="compare the map with what somebody saw")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    wanted = parser.parse_args()
    if wanted.fresh:
        shutil.rmtree(OUT, ignore_errors=True)
    found = project(tuple(wanted.method))
    print("\n".join(areas(found, tuple(wanted.method))))
    if wanted.draw:
        points = draw(found, wanted.method[0])
        with (OUT / "points.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(("point", "x", "y", "map"))
            out.writerows((n, x, y, says) for n, (x, y, says) in enumerate(points, 1))
        print(*sheets(found, points), sep="\n")
    if wanted.judged:
        for method in wanted.method:
            print("\n".join(judged(found, method)))


if __name__ == "__main__":
    main()
