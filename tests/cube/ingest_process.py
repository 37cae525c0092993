"""An ingest in a process of its own, to be killed or to compete: ``python ingest_process.py CUBE SCENES CLUSTER``.

SCENES is a pickled list; CLUSTER is the address of a scheduler, a number of own workers, or 0 for this
process alone. Every step of progress is one line of output; an error that is meant for people is one, too.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import warnings
from pathlib import Path

from geossl import bands
from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import GeosslError
from geossl.grid import Grid


def main(uri: str, scenes: str, cluster: str) -> None:
    own = cluster.isdigit()
    settings = ClusterSettings(workers=int(cluster) or None) if own else ClusterSettings(scheduler=cluster)
    with contextlib.nullcontext() if cluster == "0" else dask_client(settings) as client:
        ingest(
            Cube.open_or_create(uri),
            pickle.loads(Path(scenes).read_bytes()),
            bands.sensor("sentinel-2-l2a").subset(("red", "nir")),
            Grid("EPSG:32622", 10, 256),
            "s2",
            IngestSettings(wave=2),
            client,
            progress=lambda *step: print(*step, flush=True),
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()  # Dask logs that the connection is lost, with a traceback; so does the command line
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3])
    except GeosslError as error:
        sys.exit(f"error: {error}")
