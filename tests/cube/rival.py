"""One of two ingests at once: ``python rival.py CUBE SCENES``.

SCENES is a pickled list. Ingests the scene whose number a line of the input names, and answers with a line.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

from geossl import bands
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.grid import Grid


def main(uri: str, scenes: str) -> None:
    every = pickle.loads(Path(scenes).read_bytes())
    sensor, grid = bands.sensor("sentinel-2-l2a").subset(("red", "nir")), Grid("EPSG:32622", 10, 256)
    print("ready", flush=True)
    for line in sys.stdin:
        cube = Cube.open_or_create(uri)
        report = ingest(cube, [every[int(line)]], sensor, grid, "s2", IngestSettings())
        print(len(report.ingested), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2])
