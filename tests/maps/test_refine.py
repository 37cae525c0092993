"""Change within the forest and above the minimum mapping unit, beside one raster without tile borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from geossl.grid import Grid
from geossl.legend import NO_LABEL, LandClass, Legend
from geossl.maps.predict import MapReport
from geossl.maps.refine import refine_change
from geossl.maps.tiles import TileFolder, TileRecord

SIZE = 256
GRID = Grid("EPSG:32722", 10, SIZE, (500_000, 9_500_000))
LEGEND = Legend(tuple(LandClass(c, n, "#00ff00") for c, n in ((0, "no change"), (3, "to field"), (5, "to town"))))


def _mosaic(seed: int) -> NDArray[np.uint8]:
    """(512, 512) class codes with patches of all sizes, some over the borders of 2 × 2 tiles, and a hole of no-data."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2 * SIZE, 2 * SIZE)), 2)
    codes = np.where(field > 0.04, np.where(rng.random(field.shape) > 0.3, 3, 5), 0).astype(np.uint8)
    codes[300:330, 100:400] = NO_LABEL
    return codes


def _tiles(folder: Path, mosaic: NDArray[np.uint8]) -> MapReport:
    store, records = TileFolder(folder), []
    for iy in (0, 1):
        for ix in (0, 1):
            tile = GRID[ix, iy]
            part = mosaic[iy * SIZE : (iy + 1) * SIZE, ix * SIZE : (ix + 1) * SIZE]
            store.write(tile, np.stack([part, np.full_like(part, 80)]))
            extent = (iy * SIZE, (iy + 1) * SIZE, ix * SIZE, (ix + 1) * SIZE)
            records.append(TileRecord(tile.id, "t", "c", "s", (64, 0, 0), (), extent))
    return MapReport(tuple(records), (), 0, None)


def test_what_lies_in_a_bed_that_leads_to_water_is_the_rivers(tmp_path: Path) -> None:
    # 100 m pixels: ten of them are as far as a bank may reach
    grid = Grid("EPSG:32722", 100, SIZE, (500_000, 9_500_000))
    mosaic = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    mosaic[100:150, 200:300] = 3
    bed = np.zeros(mosaic.shape, np.uint8)
    bed[100:110, 190:250] = 1  # a bank over the border of tiles, whose water lies in the left one
    bed[100:110, 235:240] = 2
    bed[120:130, 200:300] = 1  # as bright, and nowhere near water
    expected = mosaic.copy()
    expected[100:110, 225:250] = 5

    def of(tile_id: str) -> NDArray[np.uint8]:
        tile = grid.tile(tile_id)
        return bed[tile.iy * SIZE : (tile.iy + 1) * SIZE, tile.ix * SIZE : (tile.ix + 1) * SIZE]

    report = _tiles(tmp_path / "tiles", mosaic)
    refine_change(
        report, tmp_path / "tiles", tmp_path / "out", grid=grid, legend=LEGEND, forest=None, smallest=12, bed=of
    )
    out = TileFolder(tmp_path / "out")
    found = np.block([[out.read(GRID[ix, iy].id)[0] for ix in (0, 1)] for iy in (0, 1)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("smallest", [1, 12, 300])
@pytest.mark.parametrize("masked", [True, False])
def test_tiles_are_refined_as_one_raster_would_be(tmp_path: Path, smallest: int, masked: bool) -> None:
    mosaic = _mosaic(3)
    forest = np.random.default_rng(0).random(mosaic.shape) > 0.02

    def of_tile(tile_id: str) -> NDArray[np.bool_]:
        tile = GRID.tile(tile_id)
        return forest[tile.iy * SIZE : (tile.iy + 1) * SIZE, tile.ix * SIZE : (tile.ix + 1) * SIZE]

    expected = mosaic.copy()
    if masked:
        expected[~forest & (mosaic != NO_LABEL)] = 0
    patches, count = ndimage.label(np.isin(expected, (3, 5)))
    sizes = ndimage.sum_labels(np.ones_like(patches), patches, np.arange(count + 1))
    expected[(patches > 0) & (sizes[patches] < smallest)] = 0
    report = refine_change(
        _tiles(tmp_path / "tiles", mosaic),
        tmp_path / "tiles",
        tmp_path / "refined",
        grid=GRID,
        legend=LEGEND,
        forest=of_tile if masked else None,
        smallest=smallest,
    )
    out = TileFolder(tmp_path / "refined")
    found = np.block([[out.read(GRID[ix, iy].id)[0] for ix in (0, 1)] for iy in (0, 1)])
    np.testing.assert_array_equal(found, expected)
    assert (out.read(GRID[0, 0].id)[1] == 80).all()
    counts = {code: sum(record.counts[code] for record in report.records) for code in LEGEND.codes}
    assert counts == {code: int((expected == code).sum()) for code in LEGEND.codes}
    if smallest > 1:
        assert 0 < (expected == 3).sum() < (mosaic == 3).sum()
