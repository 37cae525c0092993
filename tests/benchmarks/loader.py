"""How fast chips of 13 bands × 256 pixels come in: beside torchgeo, and beside nothing but decoding them.

Both sides use two workers (torchgeo: processes; we and the bare decoder: threads) and the same batch
size, and files are in the page cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]  # ships no types

from geossl.chips.cache import ChunkCache
from geossl.chips.index import ChipIndex, build_index
from geossl.cube.chunks import StoredArray
from geossl.cube.collection import Collection

from .harness import Sides, bench, rate
from .pixels import GRID, SENSOR, TILES, landscape, write_cube, write_geotiff

SIZE = 256
WORKERS = 2
BATCH = 8
EPOCHS = 8


@bench(
    "loader-vs-torchgeo",
    unit="chips/s",
    reference="torchgeo RasterDataset + RandomGeoSampler on one tiled deflate GeoTIFF, 2 processes",
    better="higher",
)
def loader_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """The same pixels through either library, as tensors on the host."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import RandomGeoSampler

    image = landscape(GRID.tile_size * TILES)
    write_geotiff(folder / "scene.tif", image)
    dataset = RasterDataset(str(folder / "scene.tif"))
    chips = 96
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=RandomGeoSampler(dataset, size=SIZE, length=chips),
        num_workers=WORKERS,
        persistent_workers=True,
    )
    yield Sides(ours=_ours(folder, write_cube(folder, image)), reference=lambda: rate(chips, lambda: _exhaust(loader)))


@bench(
    "loader-vs-decode",
    unit="chips/s",
    reference="read and decode the same compressed bytes from plain files, 2 threads",
    better="higher",
)
def loader_vs_decode(folder: Path) -> Iterator[Sides]:
    """What planning, shuffling, masks and prefetching cost on top of reading and decoding."""
    collection = write_cube(folder, landscape(GRID.tile_size * TILES))
    index = build_index(collection, SIZE)
    files = _chunk_files(folder, collection, index)
    images = np.empty((BATCH, len(SENSOR.bands), SIZE, SIZE), SENSOR.radiometry.dtype)
    qualities = np.empty((BATCH, SIZE, SIZE), np.uint8)
    threads = ThreadPoolExecutor(WORKERS)
    rng = np.random.default_rng(0)

    def decode(pair: tuple[Path, Path], image: np.ndarray, quality: np.ndarray) -> None:
        for path, out in zip(pair, (image, quality), strict=True):
            data = np.frombuffer(path.read_bytes(), np.uint8)
            assert google_crc32c.value(data[:-4]).to_bytes(4, "little") == data[-4:].tobytes()
            blosc.decompress(data[:-4], out)

    def epochs() -> None:
        for _ in range(EPOCHS):
            for batch in batched(rng.permutation(len(files)), BATCH):
                list(threads.map(decode, [files[n] for n in batch], images, qualities))

    yield Sides(ours=_ours(folder, collection), reference=lambda: rate(EPOCHS * len(files), epochs))
    threads.shutdown()


def _ours(folder: Path, collection: Collection) -> Callable[[], float]:
    """Epochs of our loader; the first, uncounted round fills the chunk cache."""
    from geossl.chips.loader import ChipLoader
    from geossl.chips.reader import ChipReader

    index = build_index(collection, SIZE)
    loader = ChipLoader(ChipReader(collection, ChunkCache(folder / "cache"), WORKERS), index, BATCH)

    def epochs() -> None:
        for _ in range(EPOCHS):
            _exhaust(loader)

    return lambda: rate(EPOCHS * len(index), epochs)


def _exhaust(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def _chunk_files(folder: Path, collection: Collection, index: ChipIndex) -> list[tuple[Path, Path]]:
    """The compressed image and quality chunk of every chip, each as a plain file."""
    files = []
    for chip in range(len(index)):
        tile_id = index.tile_ids[index.tile[chip]]
        cy, cx = int(index.row[chip]) // SIZE, int(index.col[chip]) // SIZE
        paths: list[Path] = []
        ((_, image),) = collection.image(tile_id).parts
        for array, chunk in ((image, (0, 0, cy, cx)), (collection.quality(tile_id), (0, cy, cx))):
            stored = StoredArray.of(array)
            data = asyncio.run(stored.get(stored.key(*chunk)))
            assert data is not None, "a chunk of nothing but the fill value"
            path = folder / f"{tile_id}-{cy}-{cx}-{len(paths)}"
            path.write_bytes(data)
            paths.append(path)
        files.append((paths[0], paths[1]))
    return files
