"""How near ingest comes to what the machine can do, and how it grows."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import google_crc32c
import numpy as np
import rasterio
from numcodecs import blosc
from rasterio.windows import Window

from geossl.cluster import ClusterSettings, dask_client
from geossl.grid import CHUNK

from .harness import Sides, bench, rate
from .ingest import UNIT, measure
from .scenes import BANDS, GRID, SENSOR, TILES, SceneSet, aligned, to_be_warped

WORKERS = 2


@bench(
    "ingest-vs-limit",
    unit=UNIT,
    reference="decoding the same files, encoding and writing the same chunks, nothing else",
    better="higher",
    goal=0.85,
    rounds=3,
)
def ingest_vs_limit(folder: Path) -> Iterator[Sides]:
    """The limit: GDAL's decoder and Blosc in as many processes, plain files, no Zarr, no commit, no Dask; 3.2 GB."""
    scenes = aligned()
    jobs = [[asset.href for asset in item.assets.values()] for item in scenes.items]
    rows = [(files, row) for files in jobs for row in range(TILES)]
    with (
        dask_client(ClusterSettings(workers=WORKERS)) as client,
        ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool,
    ):

        def limit() -> float:
            shutil.rmtree(folder / "plain", ignore_errors=True)
            (folder / "plain").mkdir()
            work = functools.partial(decode_and_encode, folder=folder / "plain")
            return rate(scenes.megapixels, lambda: list(pool.map(work, rows)))

        yield Sides(lambda: measure(scenes, folder / "cube", client), limit)


_image = np.empty((BANDS, GRID.tile_size, GRID.tile_size), SENSOR.radiometry.dtype)
_chunk = np.empty((BANDS, CHUNK, CHUNK), SENSOR.radiometry.dtype)


def decode_and_encode(job: tuple[list[str], int], folder: Path) -> None:
    """One row of tiles of one scene, through buffers that are made once."""
    files, row = job
    blosc.set_nthreads(1)
    size = GRID.tile_size
    datasets = [rasterio.open(file) for file in files]
    for column in range(TILES):
        for band, dataset in zip(_image, datasets, strict=True):
            dataset.read(1, window=Window(column * size, row * size, size, size), out=band)
        for y, x in np.ndindex(size // CHUNK, size // CHUNK):
            np.copyto(_chunk, _image[:, y * CHUNK : (y + 1) * CHUNK, x * CHUNK : (x + 1) * CHUNK])
            data = blosc.compress(_chunk, b"lz4", 5, blosc.BITSHUFFLE)
            name = f"{Path(files[0]).stem}-{row}-{column}-{y}-{x}"
            (folder / name).write_bytes(data + google_crc32c.value(data).to_bytes(4, "little"))
    for dataset in datasets:
        dataset.close()


@bench(
    "ingest-aligned-vs-warped",
    unit=UNIT,
    reference="the same ingest, scenes to be warped",
    better="higher",
    goal=3,
    rounds=3,
)
def ingest_aligned_vs_warped(folder: Path) -> Iterator[Sides]:
    """What it is worth that scenes lie on the grid."""
    on_grid, off_grid = aligned(2), to_be_warped()
    with dask_client(ClusterSettings(workers=WORKERS)) as client:
        yield Sides(
            lambda: measure(on_grid, folder / "aligned", client), lambda: measure(off_grid, folder / "warped", client)
        )


@bench("ingest-two-workers", unit=UNIT, reference="the same ingest on one worker", better="higher", goal=1.7, rounds=3)
def ingest_two_workers(folder: Path) -> Iterator[Sides]:
    """What the second processor brings."""
    scenes = aligned(4)
    with dask_client(ClusterSettings(workers=1)) as one, dask_client(ClusterSettings(workers=2)) as two:
        yield Sides(lambda: measure(scenes, folder / "two", two), lambda: measure(scenes, folder / "one", one))


@bench(
    "ingest-growth",
    unit="s a scene",
    reference="the same ingest of a quarter of the scenes",
    better="alike",
    goal=(0.85, 1.15),
    rounds=3,
)
def ingest_growth(folder: Path) -> Iterator[Sides]:
    """Whether four times the scenes take four times as long."""
    many = aligned()
    few = SceneSet(many.items[: len(many.items) // 4])
    with dask_client(ClusterSettings(workers=WORKERS)) as client:

        def seconds(scenes: SceneSet, name: str) -> float:
            return scenes.megapixels / len(scenes.items) / measure(scenes, folder / name, client)

        yield Sides(lambda: seconds(many, "many"), lambda: seconds(few, "few"))
