"""``python rslearn_process.py JOB``: rslearn's side of its benchmark, in an interpreter that has rslearn.

It imports nothing of this project. JOB is a JSON file:

| key | |
|---|---|
| folder | of the new dataset |
| scenes | name → the scene's files, one band each |
| bands | their names, in this order |
| dtype, nodata | of all |
| crs, resolution | of the windows |
| windows | name → bounds in pixels (left, top, right, bottom), rows counted southwards |
| workers | processes |
| format, tile_store | options of `GeotiffRasterFormat` and of `DefaultTileStore` |

The last line that it prints is the seconds of prepare, of ingest and of materialize: without imports, and
without making the windows.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    from rasterio.crs import CRS
    from rslearn.dataset import Dataset, Window
    from rslearn.main import IngestHandler, MaterializeHandler, PrepareHandler, apply_on_windows
    from rslearn.utils.geometry import Projection
    from upath import UPath

    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # workers that have everything imported already; by default each would import it anew at every stage
    multiprocessing.set_start_method("fork")
    folder = Path(job["folder"])
    (folder / "scenes").mkdir(parents=True)  # the source keeps its list of items there
    (folder / "config.json").write_text(json.dumps(configuration(job)), encoding="utf-8")
    dataset = Dataset(UPath(folder))
    projection = Projection(CRS.from_string(job["crs"]), job["resolution"], -job["resolution"])
    for name, bounds in job["windows"].items():
        Window(
            storage=dataset.storage,
            group="default",
            name=name,
            projection=projection,
            bounds=tuple(bounds),
            time_range=None,
            data_factory=dataset.window_data_storage_factory,
        ).save()
    seconds = []
    for handler in (PrepareHandler(force=False), IngestHandler(), MaterializeHandler()):
        start = time.perf_counter()
        # one job before all others, by itself, is of use where it makes an index
        first = isinstance(handler, PrepareHandler)
        for _ in apply_on_windows(handler, dataset, workers=job["workers"], use_initial_job=first):
            pass
        seconds.append(time.perf_counter() - start)
    print(*seconds)


def configuration(job: dict[str, Any]) -> dict[str, Any]:
    """Of a dataset in which each scene that touches a window becomes an item group of its own there."""
    items = [
        {"name": name, "fnames": files, "bands": [[band] for band in job["bands"]]}
        for name, files in job["scenes"].items()
    ]
    return {
        "layers": {
            "scenes": {
                "type": "raster",
                "band_sets": [
                    {
                        "bands": job["bands"],
                        "dtype": job["dtype"],
                        "nodata_value": job["nodata"],
                        "format": {
                            "class_path": "rslearn.utils.raster_format.GeotiffRasterFormat",
                            "init_args": job["format"],
                        },
                    }
                ],
                "data_source": {
                    "class_path": "rslearn.data_sources.local_files.LocalFiles",
                    "init_args": {"src_dir": "scenes", "raster_item_specs": items},
                    "query_config": {"space_mode": "INTERSECTS", "max_matches": len(items)},
                },
            }
        },
        "tile_store": {
            "class_path": "rslearn.tile_stores.default.DefaultTileStore",
            "init_args": job["tile_store"],
        },
    }


if __name__ == "__main__":
    main()
