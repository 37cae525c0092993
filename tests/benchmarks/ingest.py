"""How fast scenes become a chunked store of all bands, beside what others do with the same Items.

Every side works on the same machine's processors and writes chunks of all bands × 256 × 256 pixels with the
same codecs; files are in the page cache. Ours also records quality, clear shares and the scene table, and
commits. The peer runs at its best setting of a sweep, which is printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr
from distributed import Client

from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings

from .harness import Sides, bench, rate
from .peers import Write, best_setting, cluster, write_odc_stac, write_stackstac
from .scenes import GRID, GROUND, SENSOR, TILES, SceneSet, aligned, to_be_warped

UNIT = "million band pixels/s"


@bench(
    "ingest-vs-odc-stac",
    unit=UNIT,
    reference="odc.stac.load(…).to_zarr, the best of its sweep",
    better="higher",
    goal=1.2,
    rounds=3,
)
def ingest_vs_odc_stac(folder: Path) -> Iterator[Sides]:
    """3.2 GB of pixels that lie on the grid."""
    yield from beside(write_odc_stac, aligned(), folder)


@bench(
    "ingest-warped-vs-odc-stac",
    unit=UNIT,
    reference="odc.stac.load(…).to_zarr, the best of its sweep",
    better="higher",
    goal=1.5,
    rounds=3,
)
def ingest_warped_vs_odc_stac(folder: Path) -> Iterator[Sides]:
    """Scenes of the neighbouring zone, bilinear on both sides."""
    yield from beside(write_odc_stac, to_be_warped(), folder, warped=True)


@bench(
    "ingest-vs-stackstac",
    unit=UNIT,
    reference="stackstac.stack(…).to_zarr, the best of its sweep",
    better="higher",
    goal=1.2,
    rounds=3,
)
def ingest_vs_stackstac(folder: Path) -> Iterator[Sides]:
    """Scenes that lie on the grid."""
    yield from beside(write_stackstac, aligned(4), folder)


def beside(write: Write, scenes: SceneSet, folder: Path, *, warped: bool = False) -> Iterator[Sides]:
    """Our ingest and a peer's on the same scenes; the last round's stores are compared."""
    setting = best_setting(write, scenes.items, folder)
    store = folder / "zarr"
    # clusters take turns too, so that one side's idle processes never weigh on the other
    with dask_client(ClusterSettings(workers=2)) as ours, cluster(setting):

        def measure_reference() -> float:
            shutil.rmtree(store, ignore_errors=True)
            return rate(scenes.megapixels, lambda: write(scenes.items, setting.chunk, store, GROUND))

        yield Sides(lambda: measure(scenes, folder / "cube", ours), measure_reference)
    cube = Cube.open(str(folder / "cube")).view().collection("scenes")
    theirs = zarr.open_array(store, path="image", mode="r")
    size = GRID.tile_size
    for tile_id in ("x0y0", "x2y1"):
        tile = cube.tile(tile_id)
        here = np.s_[:, :, tile.iy * size : (tile.iy + 1) * size, tile.ix * size : (tile.ix + 1) * size]
        mine, other = (np.asarray(image).astype(int) for image in (cube.image(tile_id)[:], theirs[here]))
        apart = np.abs(mine - other)
        # others resample to GDAL's eighth of a pixel, with a kernel that it widens where grids are turned
        alike = apart.mean() < 0.003 * mine.mean() if warped else (apart == 0).all()
        assert alike, f"the two stores differ on tile {tile_id}: {np.bincount(apart.ravel())[:9]}"


def measure(scenes: SceneSet, folder: Path, client: Client | None) -> float:
    """Ingest into a new cube; returns million band pixels a second."""
    shutil.rmtree(folder, ignore_errors=True)
    cube = Cube.create(str(folder))

    def work() -> None:
        found = scenes.scenes()
        report = ingest(cube, found, SENSOR, GRID, "scenes", IngestSettings(), client, area=GROUND.extent)
        assert report.tiles == len(found) * TILES**2, report.set_aside

    return rate(scenes.megapixels, work)
