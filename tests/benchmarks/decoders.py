"""``python -m tests.benchmarks.decoders``: who decodes deflated GeoTIFFs with the least work?

CPU seconds per 100 million pixels of one benchmark scene, three times each, in a worker process as ingest has
them. What is not in the environment is named; it can be lent without being installed:

    uv pip install --target FOLDER --no-deps imagecodecs async-tiff obspec isal zlib-ng deflate
    PYTHONPATH=FOLDER python -m tests.benchmarks.decoders
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geossl.cluster import ClusterSettings, dask_client
from geossl.imagery.raster import GDAL_OPTIONS

from .scenes import BANDS, GRID, SIDE, TILES, aligned

TIMES = 3

Image = NDArray[np.uint16]
Decode = Callable[[list[str], Image], None]
"""(files of one band each, (C, H, W) to fill)."""


def by_rasterio(files: list[str], out: Image) -> None:
    """GDAL, tile by tile and band by band, as ingest reads."""
    size = GRID.tile_size
    with rasterio.Env(**GDAL_OPTIONS):
        datasets = [rasterio.open(file) for file in files]
        for y, x in np.ndindex(TILES, TILES):
            for dataset, band in zip(datasets, out, strict=True):
                target = band[y * size : (y + 1) * size, x * size : (x + 1) * size]
                dataset.read(1, window=Window(x * size, y * size, size, size), out=target)
        for dataset in datasets:
            dataset.close()


def by_async_tiff(files: list[str], out: Image) -> None:
    """Rust, block by block."""
    from async_tiff import TIFF, DecoderRegistry
    from async_tiff.store import LocalStore

    store, registry = LocalStore("/"), DecoderRegistry()

    async def one(file: str, band: Image) -> None:
        tiff = await TIFF.open(file.lstrip("/"), store=store)
        side = tiff.ifds[0].tile_width
        blocks = range(SIDE // side)
        for tile in await tiff.fetch_tiles([(x, y) for y in blocks for x in blocks], 0):
            x, y = tile.x * side, tile.y * side
            band[y : y + side, x : x + side] = np.asarray(tile.decode_sync(decoder_registry=registry))[..., 0]

    async def each() -> None:
        for file, band in zip(files, out, strict=True):
            await one(file, band)

    asyncio.run(each())


def by_blocks(inflate: Callable[[bytes, Image], object]) -> Decode:
    """Read each block's bytes, inflate them into a buffer, undo the predictor there, copy it to its place."""

    def decode(files: list[str], out: Image) -> None:
        import imagecodecs
        import tifffile

        for file, band in zip(files, out, strict=True):
            with tifffile.TiffFile(file) as tiff:
                page: Any = tiff.pages[0]
                side, blocks = page.tilewidth, list(zip(page.dataoffsets, page.databytecounts, strict=True))
            block = np.empty((side, side), np.uint16)
            descriptor = os.open(file, os.O_RDONLY)
            for number, (offset, size) in enumerate(blocks):
                y, x = (at * side for at in divmod(number, SIDE // side))
                inflate(os.pread(descriptor, size, offset), block)
                imagecodecs.delta_decode(block, axis=1, out=block)
                band[y : y + side, x : x + side] = block
            os.close(descriptor)

    return decode


def libdeflate(data: bytes, block: Image) -> None:
    import imagecodecs

    imagecodecs.deflate_decode(data, out=memoryview(block).cast("B"))


def isa_l(data: bytes, block: Image) -> None:
    import imagecodecs

    imagecodecs.isal_decode(data, out=memoryview(block).cast("B"))


def zlib_ng(data: bytes, block: Image) -> None:
    import imagecodecs

    imagecodecs.zlibng_decode(data, out=memoryview(block).cast("B"))


def deflate_package(data: bytes, block: Image) -> None:
    import deflate

    memoryview(block).cast("B")[:] = deflate.zlib_decompress(data, block.nbytes)


DECODERS: dict[str, Decode] = {
    "rasterio": by_rasterio,
    "async-tiff": by_async_tiff,
    "imagecodecs: libdeflate": by_blocks(libdeflate),
    "imagecodecs: ISA-L": by_blocks(isa_l),
    "imagecodecs: zlib-ng": by_blocks(zlib_ng),
    "deflate (libdeflate), imagecodecs": by_blocks(deflate_package),
}


def measure(name: str, files: list[str]) -> list[float] | str:
    """CPU seconds per 100 million pixels, of all threads of this process; or what is missing."""
    expected, out = np.empty((2, BANDS, SIDE, SIDE), np.uint16)
    by_rasterio(files, expected)
    figures = []
    try:
        DECODERS[name](files[:1], out[:1])
        for _ in range(TIMES):
            out[:] = 0
            start = time.process_time()
            DECODERS[name](files, out)
            figures.append((time.process_time() - start) * 1e8 / out.size)
    except ImportError as error:
        return str(error)
    assert (out == expected).all(), f"{name} decodes something else"
    return figures


def main() -> None:
    files = [asset.href for asset in aligned(1).items[0].assets.values()]
    with dask_client(ClusterSettings(workers=1)) as client:
        for name in DECODERS:
            found = client.submit(measure, name, files, pure=False).result()
            said = f"not here: {found}" if isinstance(found, str) else "  ".join(f"{figure:.2f}" for figure in found)
            print(f"{name:34} {said}", flush=True)


if __name__ == "__main__":
    main()
