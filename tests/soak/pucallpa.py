"""``python -m tests.soak.pucallpa``: Pucallpa, year by year; maps and cleared area renew themselves.

Eight Landsat composites of the Peruvian Amazon, 1985 to 2020, arrive in a landing folder one after the other. After
each the loop goes round: in this process, or with ``--flows`` by the deployed flows of a Prefect server on the full
local stack. A timeline is printed: what each image added, which tiles were mapped again, and how long that took.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
from rich.console import Console
from rich.table import Table

from geossl.project.project import Project
from tests.benchmarks.pucallpa import DATA, SENSOR
from tests.soak.loop import go_round

HISTORY = 3
"""Images that are there from the beginning: 1985, 1990 and 1995."""

PROJECT = f"""\
name: pucallpa
{SENSOR}grid: {{ resolution: 90, tile: 256 }}
cluster: {{ workers: 1 }}
sources:
  - {{ kind: folder, path: landing, pattern: "{{date:%Y}}.tif", bands: [swir1, nir, red, green], scene: pucallpa }}
composite: null
pretrain: {{ encoder: {{ name: unet-tiny }}, epochs: 1, chip: 64, batch_size: 32 }}
evaluate: {{ labels: [100], draws: 1, every: 4, floors: false }}
tasks:
  clearing: {{ kind: change, before: 1995-01-01, after: 2030-01-01 }}  # the nearest: always the newest image
map: {{ minimum_ha: 5 }}
alerts:
  forest: {{ since: 1996-01-01, expire_days: 4000, minimum_ha: 5 }}
retrain: {{ hours: 2, new_pixels: 0.5 }}
deploy: {{ pool: soak, schedules: {{ watch: 1m }} }}
"""


@dataclass(frozen=True)
class Line:
    """One image, and what became of it."""

    year: int
    scenes: int
    cleared: float
    """Hectares of alerts that this image was the first to see."""
    confirmed: float
    """Hectares of all alerts so far that a later image has confirmed."""
    changed: float
    """Hectares that the newest map calls cleared since 1995."""
    tiles: int
    """Tiles mapped again."""
    models: int
    """Versions of the task's model so far."""
    seconds: float


def timeline(folder: Path, arrived: Callable[[], None]) -> list[Line]:
    """Let the images arrive; ``arrived`` returns when the loop has come to rest."""
    images = sorted(DATA.glob("*.tif"))
    (folder / "landing").mkdir(parents=True)
    (folder / "geossl.yaml").write_text(PROJECT)
    lines = []
    for number, image in enumerate(images, start=1):
        (folder / "landing" / image.name).symlink_to(image)
        if number < HISTORY + 1:
            continue
        begun = time.monotonic()
        arrived()
        lines.append(_line(Project.load(folder), int(image.stem), time.monotonic() - begun))
    return lines


def _line(project: Project, year: int, seconds: float) -> Line:
    alerts = gpd.read_file(project.store / "alerts/forest/latest/forest.gpkg")
    polygons = gpd.read_file(project.maps / "clearing/latest/clearing-polygons.gpkg")
    images = project.scenes()
    record = project.state.get("map.clearing")
    assert record is not None
    return Line(
        year,
        len({scene for tile_id in images.tile_ids for scene in images.scene_ids(tile_id)}),
        float(alerts[alerts["first_date"].dt.year == year]["area_ha"].sum()),
        float(alerts[alerts["confirmed_date"].notna()]["area_ha"].sum()),
        float(polygons["area_ha"].sum()),
        len(record.result["computed"]),
        len(project.registry.versions("clearing")),
        seconds,
    )


def by_flows(folder: Path) -> list[Line]:
    """By the deployed flows of the local stack."""
    from tests.infra import stack as local
    from tests.soak.stack import Stack

    deployed = False

    def arrived() -> None:
        nonlocal deployed
        if not deployed:
            stack.geossl("deploy", "--project", str(folder))
            deployed = True
        stack.await_rest("pucallpa")

    with local.folder() as home:
        stack = Stack(home, lambda *what: print(*what, file=sys.stderr))
        stack.up()
        return timeline(folder, arrived)


def table(lines: list[Line], how: str) -> Table:
    out = Table(title=f"Pucallpa, year by year, {how}")
    for heading in (
        "year", "scenes", "ha new in this image", "ha confirmed so far", "ha cleared on the map", "tiles mapped again",
        "models", "seconds",
    ):  # fmt: skip
        out.add_column(heading, justify="right")
    for line in lines:
        areas = (f"{area:,.0f}" for area in (line.cleared, line.confirmed, line.changed))
        out.add_row(str(line.year), str(line.scenes), *areas, str(line.tiles), str(line.models), f"{line.seconds:.0f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", action="store_true", help="by the deployed flows of the local stack")
    asked = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the imagery is not there: {DATA}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        lines = by_flows(folder) if asked.flows else timeline(folder, lambda: _print(go_round(folder)))
    Console(width=120).print(table(lines, "by deployed flows" if asked.flows else "in one process"))


def _print(results: list) -> None:
    for result in results:
        if not result.skipped:
            print(f"{result.stage}:", *result.lines[:2], sep="\n    ", file=sys.stderr)


if __name__ == "__main__":
    main()
