"""How fast scenes become a chunked store of all bands: beside odc-stac, Dask and Zarr.

Both sides start from the same STAC Items of COGs that lie on the grid, work on the same two Dask
processes, and write chunks of all bands × 256 × 256 pixels with the same codecs. Ours also records
quality, per-chunk clear shares and checksums, and commits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import rasterio
import shapely
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.imagery.scene import Scene

from .harness import Sides, bench, rate
from .pixels import GRID, SENSOR, TILES, landscape, tile

SCENES = 2
SIDE = GRID.tile_size * TILES
GROUND = GeoBox((SIDE, SIDE), tile(0, 0).transform, GRID.crs)


@bench(
    "ingest-vs-odc-stac",
    unit="million band pixels/s",
    reference="odc.stac.load(…).to_zarr, same codecs, 2 processes",
    better="higher",
)
def ingest_vs_odc_stac(folder: Path) -> Iterator[Sides]:
    """From Items of COGs to a store on local disk; the last round's stores are compared."""
    import odc.stac
    from zarr.codecs import BloscCodec, Crc32cCodec

    items = [write_scene(folder, number) for number in range(SCENES)]
    million = SCENES * len(SENSOR.bands) * SIDE * SIDE / 1e6

    with dask_client(ClusterSettings(workers=2)) as client:

        def ours() -> None:
            cube = Cube.create(str(folder / "cube"))
            scenes = [Scene.from_item(item, SENSOR) for item in items]
            report = ingest(cube, scenes, SENSOR, GRID, "scenes", IngestSettings(), client)
            assert report.tiles == SCENES * TILES**2, report.set_aside

        def reference() -> None:
            loaded = odc.stac.load(
                items,
                bands=SENSOR.band_names,
                geobox=GROUND,
                dtype=SENSOR.radiometry.dtype,
                chunks={"time": 1, "x": GRID.tile_size, "y": GRID.tile_size},
            )
            image = loaded.to_array("band", name="image").transpose("time", "band", "y", "x").chunk(band=-1)
            codecs = (BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
            encoding = {"image": {"chunks": (1, len(SENSOR.bands), 256, 256), "compressors": codecs}}
            image.drop_attrs().to_dataset().to_zarr(
                folder / "zarr", encoding=encoding, zarr_format=3, consolidated=False
            )

        def fresh(work: str) -> None:
            shutil.rmtree(folder / work, ignore_errors=True)

        def measure_ours() -> float:
            fresh("cube")
            return rate(million, ours)

        def measure_reference() -> float:
            fresh("zarr")
            return rate(million, reference)

        yield Sides(measure_ours, measure_reference)
    stored = Cube.open(str(folder / "cube")).view().collection("scenes").image(tile(1, 1).id)[:]
    theirs = zarr.open_array(folder / "zarr", path="image", mode="r")
    size = GRID.tile_size
    np.testing.assert_array_equal(stored, theirs[:, :, size:, size:])


def write_scene(folder: Path, number: int) -> pystac.Item:
    """One scene of COGs, one file a band, and the Item that describes it."""
    image = landscape(SIDE, seed=number)
    outline = GROUND.geographic_extent.geom
    item = pystac.Item(
        f"scene-{number}",
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        datetime(2024, 6, 1, tzinfo=UTC) + timedelta(days=number),
        {"proj:code": GRID.crs, "proj:shape": [SIDE, SIDE], "proj:transform": list(GROUND.affine)[:6]},
        stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
    )
    for band, pixels in zip(SENSOR.bands, image, strict=True):
        path = folder / f"{item.id}-{band.name}.tif"
        write_cog(path, pixels)
        item.add_asset(band.name, pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"]))
    return item


def write_cog(path: Path, pixels: NDArray[np.int16]) -> None:
    """One band as providers publish it: tiled, deflated, with overviews."""
    profile = {
        "driver": "COG",
        "dtype": pixels.dtype,
        "count": 1,
        "height": SIDE,
        "width": SIDE,
        "crs": GRID.crs,
        "transform": GROUND.affine,
        "nodata": SENSOR.radiometry.nodata,
        "compress": "deflate",
        "predictor": "yes",
        "num_threads": "all_cpus",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels, 1)
