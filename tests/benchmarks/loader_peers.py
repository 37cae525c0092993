"""How fast chips of 13 bands × 256 pixels come in beside torchgeo and LitData.

Both sides use two workers (theirs: processes, as their loaders have it; ours: threads) and the same batch
size, and files are in the page cache, compressed. GDAL would keep the few decoded blocks of a benchmark in its own
cache, which real scenes outgrow a thousand times; so it may keep a seventh of them. What counts is a batch of host
tensors; torchgeo's has pixels alone, ours also says which of them were seen, when and where.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._env import get_gdal_config, set_gdal_config  # its public Env ends with its block
from rasterio.shutil import copy as rasterio_copy

from .harness import Sides, Skipped, bench, rate
from .loader import BATCH, EPOCHS, SIZE, WORKERS, exhaust, ours
from .pixels import GRID, TILES, landscape, tile, write_cube

CHIPS = 96
"""A round of torchgeo."""

CACHE = 16 * 2**20
"""Bytes of decoded blocks that GDAL keeps in each process, of 109 MB."""


@bench(
    "loader-vs-torchgeo",
    unit="chips/s",
    reference="torchgeo RasterDataset + RandomGeoSampler on tiled deflate COGs on the grid, 2 processes",
    better="higher",
    goal=15,
)
def loader_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """COGs as they are usually written, chips anywhere: what a user of torchgeo has."""
    yield _beside_torchgeo(folder, {"compress": "deflate", "predictor": 2})


@bench(
    "loader-vs-torchgeo-best-case",
    unit="chips/s",
    reference="torchgeo RasterDataset + GridGeoSampler, chips = blocks of fast-coded COGs on the grid, 2 processes",
    better="higher",
)
def loader_vs_torchgeo_best_case(folder: Path) -> Iterator[Sides]:
    """COGs made for this: a chip is a block, in the fastest codec that GDAL's COGs have, read in order."""
    yield _beside_torchgeo(folder, {"compress": "zstd", "level": 1, "predictor": 2}, aligned=True)


@bench(
    "loader-vs-torchgeo-warped",
    unit="chips/s",
    reference="torchgeo RasterDataset + RandomGeoSampler on tiled deflate COGs of the next UTM zone, 2 processes",
    better="higher",
    goal=20,
)
def loader_vs_torchgeo_warped(folder: Path) -> Iterator[Sides]:
    """Scenes of another zone, which torchgeo warps chip by chip and we once, at ingest."""
    yield _beside_torchgeo(folder, {"compress": "deflate", "predictor": 2}, zone="EPSG:32621")


@bench(
    "loader-vs-litdata",
    unit="chips/s",
    reference="LitData StreamingDataLoader, shuffled, on a copy of the same chips, 2 processes",
    better="higher",
    goal=1.0,
)
def loader_vs_litdata(folder: Path) -> Iterator[Sides]:
    """A copy of every chip, uncompressed in LitData's own format, which is its fastest where the disk holds it."""
    try:
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        raise Skipped("litdata is not installed") from None

    image = landscape(GRID.tile_size * TILES)
    (folder / "copy").mkdir()
    writer = BinaryWriter(str(folder / "copy"), chunk_bytes="64MB")
    windows = [(y, x) for y in range(0, image.shape[1], SIZE) for x in range(0, image.shape[2], SIZE)]
    for number, (y, x) in enumerate(windows):
        chip = np.ascontiguousarray(image[:, y : y + SIZE, x : x + SIZE])
        writer[number] = {"image": chip, "valid": np.ones((SIZE, SIZE), np.bool_)}
    writer.done()
    writer.merge()
    loader = StreamingDataLoader(
        StreamingDataset(str(folder / "copy"), shuffle=True),
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
    )

    def epochs() -> None:
        for _ in range(EPOCHS):
            exhaust(loader)

    yield Sides(ours=ours(folder, write_cube(folder, image)), reference=lambda: rate(EPOCHS * len(windows), epochs))


def _beside_torchgeo(
    folder: Path, creation: dict[str, Any], *, aligned: bool = False, zone: str | None = None
) -> Sides:
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

    image = landscape(GRID.tile_size * TILES)
    for y in range(TILES):
        for x in range(TILES):
            _write_cog(folder / f"scene-{x}-{y}.tif", image, x, y, creation, zone)
    dataset = RasterDataset(
        [str(path) for path in sorted(folder.glob("scene-*.tif"))], crs=GRID.crs, res=GRID.resolution
    )
    sampler: Any
    if aligned:
        sampler = GridGeoSampler(dataset, size=SIZE, stride=SIZE)
    else:
        sampler = RandomGeoSampler(dataset, size=SIZE, length=CHIPS)
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=sampler,
        num_workers=WORKERS,
        persistent_workers=True,
        worker_init_fn=_limit_cache,
    )
    assert next(iter(loader))["image"].shape == (BATCH, 13, SIZE, SIZE)
    return Sides(
        ours=ours(folder, write_cube(folder, image)), reference=lambda: rate(len(sampler), lambda: exhaust(loader))
    )


def _limit_cache(_: int) -> None:
    set_gdal_config("GDAL_CACHEMAX", CACHE)
    assert get_gdal_config("GDAL_CACHEMAX") == CACHE


def _write_cog(
    path: Path, image: NDArray[np.int16], x: int, y: int, creation: dict[str, Any], zone: str | None
) -> None:
    """One tile of the image as a scene of its own: on the grid, or as large in another zone, around the same place."""
    size = GRID.tile_size
    window = image[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
    crs, transform = GRID.crs, tile(x, y).transform
    if zone is not None:
        (east, north), crs = tile(x, y).geobox.extent.centroid.to_crs(zone).coords[0], zone
        transform = Affine(10, 0, round(east) - 5 * size, 0, -10, round(north) + 5 * size)
    profile: dict[str, Any] = {"driver": "MEM", "dtype": image.dtype, "count": image.shape[0]}
    with rasterio.open("", "w+", crs=crs, transform=transform, height=size, width=size, **profile) as memory:
        memory.write(window)
        rasterio_copy(memory, path, driver="COG", blocksize=SIZE, num_threads="all_cpus", **creation)
