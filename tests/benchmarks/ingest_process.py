"""``python -m tests.benchmarks.ingest_process ITEMS FOLDER [CHUNK WORKERS THREADS]``: one side of the memory benchmark.

Prints ``ready`` when everything is imported and the cluster stands, waits for a line, ingests, prints ``done``.
With a chunk size it is odc-stac's side, else ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pystac

from geossl.cluster import ClusterSettings, dask_client

from .ingest import measure
from .peers import Setting, cluster, write_odc_stac
from .scenes import SceneSet


def warm() -> None:
    """What workers import for either side."""
    import odc.stac  # noqa: F401

    import geossl.cube.wave  # noqa: F401


def main() -> None:
    items, folder = list(pystac.ItemCollection.from_file(sys.argv[1])), Path(sys.argv[2])
    chosen = [int(text) for text in sys.argv[3:]]
    warm()
    with cluster(Setting(*chosen)) if chosen else dask_client(ClusterSettings(workers=2)) as client:
        client.run(warm)
        print("ready", flush=True)
        sys.stdin.readline()
        if chosen:
            write_odc_stac(items, chosen[0], folder)
        else:
            measure(SceneSet(items), folder, client)
        print("done", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
