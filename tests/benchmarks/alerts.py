"""``python -m tests.benchmarks.alerts``: how good alerts are where the truth is known, and how late.

A generated landscape is seen every so many days under its clouds, ingested, and followed by a monitor that knows
neither a label nor an encoder. Printed: F1, commission, omission and error of the area, days from clearing to
detection and confirmation (the clouds' part and the method's), the error of the date, and the seconds of
processor time that a scene takes. Runs in ``out/alerts``, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
import warnings
from pathlib import Path

from rich.console import Console

from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.alerts_score import scores, tables
from geossl.project.stages.run import stage

OUT = Path("out/alerts")

FILE = """\
name: alerts
store: store
grid: {{ tile: 512 }}
cluster: {{ workers: 2 }}
sensor: {{ name: sentinel-2-l2a, bands: [B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12] }}
sources: [{{ kind: folder, path: imagery/scenes }}]
composite: {{ months: 6 }}
alerts:
  seed-{seed}:
    since: 2022-01-01
    reference: {{ path: imagery/labels/clearings.gpkg, date_column: date }}
"""


def measure(seed: int, size: int, every: int, console: Console) -> None:
    """One landscape, from its first scene in 2021 to the last in 2023."""
    folder = OUT / f"seed-{seed}-{size}-every-{every}"
    first, last = dt.date(2021, 1, 10), dt.date(2023, 6, 1)
    days = tuple(first + dt.timedelta(days=n) for n in range(0, (last - first).days, every))
    write_landscape(folder / "imagery", LandscapeSettings(size=size, seed=seed, dates=days))
    (folder / "geossl.yaml").write_text(FILE.format(seed=seed), encoding="utf-8")
    project = Project.load(folder)
    for verb in ("ingest", "stats"):
        stage(verb)(project, silent)
    start = time.process_time()
    result = stage("alerts")(project, silent)
    if not result.skipped:
        spent = (time.process_time() - start) / len(days)
        console.print(f"{spent:.2f} s of processor time a scene of {size} × {size} pixels", highlight=False)
    for name, found in scores(project, silent).items():
        for part in tables(name, found):
            console.print(part, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.alerts", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--size", type=int, default=512, help="of the landscape in pixels of 10 m")
    parser.add_argument("--every", type=int, default=16, help="days between two scenes")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    for seed in wanted.seeds:
        measure(seed, wanted.size, wanted.every, Console(width=120))


if __name__ == "__main__":
    main()
