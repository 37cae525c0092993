"""Cloud-optimised GeoTIFFs of a whole map from its predicted tiles."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from geossl.errors import GeosslError
from geossl.files import aside
from geossl.grid import Grid
from geossl.legend import NO_LABEL, Legend
from geossl.maps.tiles import TileFolder, TileRecord
from geossl.progress import Progress, silent

BLOCK = 512
"""Side in pixels of a raster's internal blocks."""

CONFIDENCE_SCALE = 0.01
"""Confidence is stored in percent, 0 … 100, and tagged so that readers see 0 … 1."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The rectangle of a grid's pixels that a map covers."""

    grid: Grid
    rows: range
    """Global rows."""
    cols: range

    @classmethod
    def of(cls, grid: Grid, records: Sequence[TileRecord]) -> Self:
        """The smallest one with all data.

        Raises
        ------
        GeosslError
            There is no data at all.
        """
        extents = [record.extent for record in records if record.extent is not None]
        if not extents:
            raise GeosslError(
                f"none of the {len(records)} tiles has a clear pixel", "choose another date, or ingest more scenes"
            )
        top, bottom, left, right = zip(*extents, strict=True)
        return cls(grid, range(min(top), max(bottom)), range(min(left), max(right)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return len(self.rows), len(self.cols)

    @property
    def transform(self) -> Affine:
        """From pixel (column, row) corners to CRS (x, y)."""
        (x, y), size = self.grid.origin, self.grid.resolution
        return Affine(size, 0, x + self.cols.start * size, 0, -size, y - self.rows.start * size)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top in CRS units."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ self.shape[::-1]
        return left, bottom, right, top

    def place(self, tile_id: str) -> tuple[Window, Window] | None:
        """Where a tile lies: the window of this extent, and the same pixels' window of the tile."""
        tile = self.grid.tile(tile_id)
        (top, left), (height, width) = tile.pixel_origin, tile.shape
        rows = range(max(top, self.rows.start), min(top + height, self.rows.stop))
        cols = range(max(left, self.cols.start), min(left + width, self.cols.stop))
        if not rows or not cols:
            return None
        size = len(cols), len(rows)
        return (
            Window(cols.start - self.cols.start, rows.start - self.rows.start, *size),
            Window(cols.start - left, rows.start - top, *size),
        )


def write_classes(
    path: Path,
    tiles: TileFolder,
    records: Sequence[TileRecord],
    grid: Grid,
    legend: Legend,
    progress: Progress = silent,
) -> Extent:
    """One class raster of all tiles, cropped to the data: uint8 codes, palette, class names in ``.aux.xml``.

    Overviews take the most frequent class. Memory does not grow with the area.
    """

    def describe(raster: DatasetWriter) -> None:
        raster.write_colormap(1, legend.colormap())
        raster.set_band_description(1, legend.title or "class")

    extent = Extent.of(grid, records)
    write_cog(path, extent, gathered(tiles, records, extent, _band(1), path.stem, progress), describe, "mode")
    names = dict(zip(legend.codes, legend.names, strict=True))
    entries = "".join(f"<Category>{escape(names.get(code, ''))}</Category>" for code in range(max(names) + 1))
    with aside(path.with_name(f"{path.name}.aux.xml")) as partial:
        partial.write_text(
            '<PAMDataset><PAMRasterBand band="1">'
            f"<CategoryNames>{entries}</CategoryNames></PAMRasterBand></PAMDataset>\n",
            encoding="utf-8",
        )
    return extent


def write_confidence(
    path: Path, tiles: TileFolder, records: Sequence[TileRecord], grid: Grid, progress: Progress = silent
) -> Extent:
    """One raster of the winning class's probability: uint8 percent with scale 0.01, cropped to the data."""

    def describe(raster: DatasetWriter) -> None:
        raster.scales = (CONFIDENCE_SCALE,)
        raster.set_band_description(1, "confidence")

    extent = Extent.of(grid, records)
    write_cog(path, extent, gathered(tiles, records, extent, _band(2), path.stem, progress), describe, "average")
    return extent


def gathered(
    tiles: TileFolder,
    records: Sequence[TileRecord],
    extent: Extent,
    read: Callable[[DatasetReader, Window, TileRecord], NDArray[Any]],
    what: str,
    progress: Progress,
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """What ``read`` makes of every tile, and where in the extent it lies: the parts of :func:`write_cog`.

    Parameters
    ----------
    read:
        From an opened tile, a window of it, and its record: (count, h, w).
    what:
        Name of the progress.
    """
    for done, record in enumerate(records):
        progress(what, done, len(records))
        if record.extent is not None and (place := extent.place(record.tile)) is not None:
            target, source = place
            with rasterio.open(tiles.raster(record.tile)) as tile:
                yield target, read(tile, source, record)
    progress(what, len(records), len(records))


def write_cog(
    path: Path,
    extent: Extent,
    parts: Iterable[tuple[Window, NDArray[Any]]],
    describe: Callable[[DatasetWriter], None],
    overviews: str,
    *,
    count: int = 1,
    dtype: str = "uint8",
    nodata: int = NO_LABEL,
) -> None:
    """Write a COG at ``path`` of its parts, with statistics; a working raster lies beside it.

    Parameters
    ----------
    parts:
        Windows that do not overlap, and their pixels (count, h, w).
    describe:
        Adds palette, scales and names.
    overviews:
        GDAL's name of how they are resampled.

    Raises
    ------
    OSError
        The file does not hold what was written: the disk is full.
    """
    height, width = extent.shape
    profile = {
        "driver": "GTiff",
        "dtype": dtype,
        "count": count,
        "height": height,
        "width": width,
        "crs": extent.grid.crs,
        "transform": extent.transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": 1,
        "sparse_ok": True,
        "bigtiff": "if_safer",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as work,
        aside(path) as partial,
    ):
        gathered, known = Path(work) / "gathered.tif", 0
        with rasterio.open(gathered, "w", **profile) as raster:
            describe(raster)
            for window, pixels in parts:
                raster.write(pixels, window=window)
                known += int(np.count_nonzero(pixels[0] != nodata))
        rasterio.shutil.copy(
            gathered,
            partial,
            driver="COG",
            compress="deflate",
            blocksize=BLOCK,
            overview_resampling=overviews,
            statistics="yes",
            bigtiff="if_safer",
        )
        # what GDAL cannot write when it closes a file it only reports to the terminal
        if (found := _known(partial, nodata)) != known:
            raise OSError(errno.ENOSPC, f"{path} has {found} pixels with data where {known} were written")


def _known(path: Path, nodata: int) -> int:
    """How many pixels of the first band have data; reads all of it."""
    with rasterio.open(path) as raster:
        return sum(
            int(np.count_nonzero(raster.read(1, window=window) != nodata)) for _, window in raster.block_windows(1)
        )


def _band(number: int) -> Callable[[DatasetReader, Window, TileRecord], NDArray[Any]]:
    """Reads one band of a tile as it is."""
    return lambda tile, window, _: tile.read([number], window=window)
