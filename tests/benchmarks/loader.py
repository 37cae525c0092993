"""How fast chips of 13 bands × 256 pixels come in beside nothing but decoding them, and what a training feels of it.

Decoding: two threads on either side, the same batch size, files in the page cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import batched, islice
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
from .pixels import GRID, SENSOR, TILES, landscape, write_cube

SIZE = 256
WORKERS = 2
BATCH = 8
EPOCHS = 8


def ours(folder: Path, collection: Collection) -> Callable[[], float]:
    """Epochs of our loader out of the chunk cache; the first of the uncounted round, which fills it, is printed."""
    from geossl.chips.loader import ChipLoader
    from geossl.chips.reader import ChipReader

    index = build_index(collection, SIZE)
    loader = ChipLoader(ChipReader(collection, ChunkCache(folder / "cache"), WORKERS), index, BATCH)

    def epochs() -> None:
        for _ in range(EPOCHS):
            exhaust(loader)

    def measure() -> float:
        if not (folder / "cache").exists():
            print(f"  our first epoch, from the store: {rate(len(index), lambda: exhaust(loader)):,.0f} chips/s")
        return rate(EPOCHS * len(index), epochs)

    return measure


def exhaust(batches: Iterable[Any]) -> None:
    """Take everything."""
    for _ in batches:
        pass


@bench(
    "loader-vs-decode",
    unit="chips/s",
    reference="read and decode the same compressed bytes from plain files, 2 threads",
    better="higher",
    goal=0.8,
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

    yield Sides(ours=ours(folder, collection), reference=lambda: rate(EPOCHS * len(files), epochs))
    threads.shutdown()


@bench(
    "loader-in-the-loop",
    unit="steps/s",
    reference="the same steps on one batch that stays in memory",
    better="higher",
    goal=0.95,
)
def loader_in_the_loop(folder: Path) -> Iterator[Sides]:
    """What a training loses by being fed: SimCLR, ResNet-18, batches of 32 chips of 128 px, as it is in `pretrain`."""
    import torch

    from geossl.augment import Normalize
    from geossl.chips.loader import ChipLoader
    from geossl.chips.reader import ChipReader
    from geossl.methods.registry import build_method
    from geossl.methods.settings import SimclrSettings
    from geossl.nets.encoder import build_encoder
    from geossl.nets.settings import EncoderSettings

    steps = 6
    collection = write_cube(folder, landscape(GRID.tile_size * TILES))
    index = build_index(collection, 128)
    loader = ChipLoader(ChipReader(collection, ChunkCache(folder / "cache"), WORKERS), index, 32)
    exhaust(loader)
    torch.manual_seed(0)
    method = build_method(SimclrSettings(), build_encoder(EncoderSettings(name="resnet18"), len(SENSOR.bands)))
    method = method.to(memory_format=torch.channels_last)
    normalize = Normalize([2000.0] * len(SENSOR.bands), [1000.0] * len(SENSOR.bands))
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3, fused=True)
    resident = next(iter(loader))

    def train(batches: Iterable[dict[str, Any]]) -> None:
        for batch in batches:
            ready = batch | {"image": normalize(batch["image"], batch["valid"])}
            optimizer.zero_grad()
            method(ready).total.backward()
            optimizer.step()

    yield Sides(
        ours=lambda: rate(steps, lambda: train(islice(loader, steps))),
        reference=lambda: rate(steps, lambda: train([resident] * steps)),
    )


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
