"""A change map's predicted tiles, within the forest that was there before, without patches too small to map, and
with what a river took as a class of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geossl.grid import Grid, Tile
from geossl.legend import NO_LABEL, Legend
from geossl.maps.predict import MapReport
from geossl.maps.tiles import TileFolder, TileRecord
from geossl.progress import Progress, silent

Forest = Callable[[str], NDArray[np.bool_]]
"""From a tile's id to where change may be (H, W)."""

Bed = Callable[[str], NDArray[np.uint8]]
"""From a tile's id to (H, W): 2 open water after, 1 as wet or sandy as its banks, 0 neither."""

REACH = 1_000
"""Metres from open water, along banks, within which ground can be a river's bed."""


def refine_change(
    report: MapReport,
    source: Path,
    target: Path,
    *,
    grid: Grid,
    legend: Legend,
    forest: Forest | None,
    smallest: int,
    bed: Bed | None = None,
    progress: Progress = silent,
) -> MapReport:
    """Write the tiles of a change map again, with change only where it may be and large enough.

    Outside the forest, and in patches of fewer than ``smallest`` pixels, the class becomes the legend's first, no
    change. A patch is what change of any class connects over edges; across tiles it is one. Change in a river's bed
    becomes the legend's last class.

    Parameters
    ----------
    source, target:
        Folders of the predicted tiles, and of what comes out.
    bed:
        What may be a river's bed: open water, and banks that lead to it within :data:`REACH`. None: no river is told.

    Returns
    -------
    The report with the records of the new tiles.
    """
    tiles = _Tiles(TileFolder(source), {record.tile for record in report.records}, grid, legend, forest, bed)
    out = TileFolder(target)
    records: list[TileRecord] = []
    nothing, *change = legend.codes
    # a patch that is too small and touches a tile lies wholly within as many pixels around it
    halo = min(smallest - 1, grid.tile_size)
    reach = min(max(1, round(REACH / grid.resolution)), grid.tile_size)
    for done, record in enumerate(report.records):
        progress("refine", done, len(report.records))
        tile = grid.tile(record.tile)
        codes = tiles.read(tile, halo)
        if smallest > 1:
            patches, _ = ndimage.label(np.isin(codes, change))
            small = np.bincount(patches.ravel()) < smallest
            small[0] = False
            codes[small[patches]] = nothing
        height, width = tile.shape
        codes = codes[halo : halo + height, halo : halo + width]
        changed = np.isin(codes, change)
        if bed is not None and changed.any():
            codes[changed & tiles.river(tile, reach)] = change[-1]
        out.write(tile, np.stack([codes, tiles.confidence(tile)]))
        counts = np.bincount(codes.ravel(), minlength=NO_LABEL + 1)
        records.append(dataclasses.replace(record, counts={code: int(counts[code]) for code in legend.codes}))
        out.save(records[-1])
    progress("refine", len(report.records), len(report.records))
    return dataclasses.replace(report, records=tuple(records))


class _Tiles:
    """Predicted tiles as one raster, with no change outside the forest."""

    def __init__(
        self,
        folder: TileFolder,
        there: set[str],
        grid: Grid,
        legend: Legend,
        forest: Forest | None,
        bed: Bed | None,
    ) -> None:
        self.folder, self.there, self.grid, self.legend = folder, there, grid, legend
        self.forest, self.bed = forest, bed

    def read(self, tile: Tile, halo: int) -> NDArray[np.uint8]:
        """Class codes of a tile with so many pixels around it, no-data where there is no tile."""
        return self._around(tile, halo, self._one, NO_LABEL)

    def river(self, tile: Tile, reach: int) -> NDArray[np.bool_]:
        """(H, W) where a tile is a river's bed: open water, or banks that lead to it within so many pixels."""
        bed = self.bed
        assert bed is not None

        def part(other: Tile, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
            return bed(other.id)[top:bottom, left:right]

        found = self._around(tile, reach, part, 0)
        wet = found == 2
        if wet.any():
            wet = ndimage.binary_dilation(wet, iterations=reach, mask=found > 0)
        return wet[reach : reach + self.grid.tile_size, reach : reach + self.grid.tile_size]

    def _around(
        self, tile: Tile, halo: int, part: Callable[[Tile, int, int, int, int], NDArray[np.uint8]], fill: int
    ) -> NDArray[np.uint8]:
        """Parts of a tile and its neighbours, put together."""
        size = self.grid.tile_size
        side = size + 2 * halo
        codes = np.full((side, side), fill, np.uint8)
        for dy in (-1, 0, 1) if halo else (0,):
            for dx in (-1, 0, 1) if halo else (0,):
                other = self.grid[tile.ix + dx, tile.iy + dy]
                if other.id not in self.there:
                    continue
                rows, cols = _overlap(dy, size, halo), _overlap(dx, size, halo)
                inside = rows[1].start, rows[1].stop, cols[1].start, cols[1].stop
                codes[rows[0], cols[0]] = part(other, *inside)
        return codes

    def _one(self, tile: Tile, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
        with rasterio.open(self.folder.raster(tile.id)) as raster:
            codes = raster.read(1, window=Window(left, top, right - left, bottom - top))
        if self.forest is not None:
            outside = ~self.forest(tile.id)[top:bottom, left:right]
            codes[outside & (codes != NO_LABEL)] = self.legend.codes[0]
        return codes

    def confidence(self, tile: Tile) -> NDArray[np.uint8]:
        return self.folder.read(tile.id)[1]


def _overlap(step: int, size: int, halo: int) -> tuple[slice, slice]:
    """Where a neighbour lies along one axis: in the tile with its halo, and in the neighbour itself."""
    if step < 0:
        return slice(0, halo), slice(size - halo, size)
    if step > 0:
        return slice(size + halo, size + 2 * halo), slice(0, halo)
    return slice(halo, halo + size), slice(0, size)
