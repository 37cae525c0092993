"""When a change happened: a COG of the days between which every changed pixel did."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from geossl.grid import Grid
from geossl.maps.cog import Extent, gathered, write_cog
from geossl.maps.tiles import TileFolder, TileRecord
from geossl.progress import Progress, silent

NO_DATE = 0
"""Where nothing changed."""


def knows_dates(records: Sequence[TileRecord]) -> bool:
    """Whether a map compares two images, hence says between which days something changed."""
    return all(len(record.own) == 2 for record in records)


def write_dates(
    path: Path,
    tiles: TileFolder,
    records: Sequence[TileRecord],
    grid: Grid,
    codes: Collection[int],
    progress: Progress = silent,
) -> Extent:
    """Two int32 bands of days as numbers like 20240131, 0 where nothing changed.

    ``date_from`` is the first day of the earlier image (of a composite: of its period), ``date_to`` the
    last day of the later one: the change lies between. Overviews take the most frequent day.

    Parameters
    ----------
    codes:
        The classes of the map that are a change.
    """

    def read(tile: DatasetReader, window: Window, record: TileRecord) -> NDArray[Any]:
        changed = np.isin(tile.read(1, window=window), list(codes))
        return np.stack([np.where(changed, to_number(day), NO_DATE) for day in record.dates]).astype(np.int32)

    def describe(raster: DatasetWriter) -> None:
        for band, name in enumerate(("date_from", "date_to"), 1):
            raster.set_band_description(band, name)

    extent = Extent.of(grid, records)
    parts = gathered(tiles, records, extent, read, path.stem, progress)
    write_cog(path, extent, parts, describe, "mode", count=2, dtype="int32", nodata=NO_DATE)
    return extent


def to_number(day: dt.date) -> int:
    """31 January 2024 is 20240131."""
    return day.year * 10_000 + day.month * 100 + day.day
