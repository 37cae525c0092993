"""How many decoded blocks GDAL keeps while neighbouring tiles of a scene are read.

GDAL decodes whole blocks and keeps the latest. Tiles are read eastwards, each band by band, so a block that
two tiles share is met again only when all other blocks of a tile have been met in between: a cache that holds
less than all of them has lost every single one by then. So the cache is as large as a tile's blocks where some
are shared, and small where none are or where they are too many: workers add up.
"""

from __future__ import annotations

from collections.abc import Sequence

from rasterio.enums import Interleaving, Resampling
from rasterio.env import getenv, setenv

from geossl.grid import Tile
from geossl.imagery.raster import GDAL_OPTIONS
from geossl.imagery.resample import OpenBand, source_window

LEAST: int = GDAL_OPTIONS["GDAL_CACHEMAX"]
"""Bytes that the cache may take in any case."""

MOST = 128 * 2**20
"""Bytes of blocks beyond which none are kept: 13 bands of Sentinel-2, in blocks of 1024 pixels, take 90 MiB."""

_OVERHEAD = 1.02
"""GDAL counts its own records and alignment with each block."""


def keep_blocks(bands: Sequence[OpenBand], tile: Tile, resampling: Resampling) -> None:
    """Make room for what this tile and its eastern neighbour share, until the bands' files are closed."""
    # never less than before: GDAL would drop the oldest blocks at once, which the next tile begins with
    setenv(GDAL_CACHEMAX=max(cache_size(bands, tile, resampling), getenv()["GDAL_CACHEMAX"]))


def cache_size(bands: Sequence[OpenBand], tile: Tile, resampling: Resampling) -> int:
    """Bytes of blocks that are worth holding while this tile and its eastern neighbour are read."""
    least, kept = LEAST, 0
    seen = set()
    for band in bands:
        dataset = band.dataset
        height, width = dataset.block_shapes[band.index - 1]
        block = height * width * band.dtype.itemsize
        # a block then holds all bands, which are decoded at once and read in several goes
        together = dataset.interleaving == Interleaving.pixel and dataset.count > 1
        if together:
            block *= dataset.count
            least = max(least, 2 * block)
        window = source_window(band, tile, resampling)
        if window is None or (together and dataset.name in seen):
            continue
        seen.add(dataset.name)
        right, bottom = window.col_off + window.width, window.row_off + window.height
        # what is resampled reaches beyond its tile
        if together or right % width or not tile.grid.is_aligned(band.box):
            columns, rows = (
                -(-right // width) - window.col_off // width,
                -(-bottom // height) - window.row_off // height,
            )
            kept += columns * rows * block
    kept = round(kept * _OVERHEAD)
    return max(least, kept) if kept <= MOST else least
