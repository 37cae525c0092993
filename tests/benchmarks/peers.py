"""How others turn the same Items into the same store, each in the way its own documentation shows."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pystac
from distributed import Client, LocalCluster
from odc.geo.geobox import GeoBox

from .scenes import GROUND, SENSOR

CHUNKS = (2048, 1024, 256)
CLUSTERS = ((1, 2), (2, 1), (2, 2))
"""Processes × threads."""

_CORNER = GROUND[: GROUND.shape[0] // 4, : GROUND.shape[1] // 4]
"""A sixteenth of the ground."""

_HOPELESS = 3
"""Times the best so far on the corner, beyond which a setting is not tried on the whole ground."""


@dataclass(frozen=True)
class Setting:
    """What a peer leaves to its user."""

    chunk: int
    """Side of a Dask chunk in pixels."""
    workers: int
    threads: int

    def __str__(self) -> str:
        return f"chunks of {self.chunk}, {self.workers} processes × {self.threads} threads"


Write = Callable[[list[pystac.Item], int, Path, GeoBox], None]
"""(items, chunk, folder of the new store, ground): loads and writes."""


def write_odc_stac(items: list[pystac.Item], chunk: int, folder: Path, ground: GeoBox = GROUND) -> None:
    """`odc.stac.load(…)`, bands stacked, `to_zarr`."""
    import odc.stac

    loaded = odc.stac.load(
        items,
        bands=SENSOR.band_names,
        geobox=ground,
        dtype=SENSOR.radiometry.dtype,
        resampling="bilinear",
        chunks={"time": 1, "x": chunk, "y": chunk},
    )
    _to_zarr(loaded.to_array("band", name="image").transpose("time", "band", "y", "x"), folder)


def write_stackstac(items: list[pystac.Item], chunk: int, folder: Path, ground: GeoBox = GROUND) -> None:
    """`stackstac.stack(…)`, `to_zarr`."""
    import numpy as np
    import pandas
    import stackstac
    from rasterio.enums import Resampling

    to_datetime = pandas.to_datetime

    def without(*args: Any, infer_datetime_format: bool, **more: Any) -> Any:
        """Stackstac 0.5 gives pandas 3 an argument that it has dropped, and that meant nothing for long."""
        return to_datetime(*args, **more)

    with mock.patch.object(pandas, "to_datetime", without):
        stacked = stackstac.stack(
            items,
            assets=list(SENSOR.band_names),
            epsg=32612,
            resolution=30,
            bounds=tuple(ground.extent.boundingbox),
            snap_bounds=False,
            resampling=Resampling.bilinear,
            chunksize=chunk,
            dtype=np.dtype(SENSOR.radiometry.dtype),
            fill_value=np.uint16(0),
            rescale=False,
            properties=False,
            band_coords=False,
            xy_coords=False,
        )
    _to_zarr(stacked.rename("image"), folder)


def _to_zarr(image: Any, folder: Path) -> None:
    """One chunk = all bands of 256 × 256 pixels, in the cube's codecs."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    codecs = (BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
    encoding = {"image": {"chunks": (1, len(SENSOR.bands), 256, 256), "compressors": codecs}}
    dataset = image.chunk(band=-1).drop_attrs().drop_vars(list(image.coords)).to_dataset(name="image")
    dataset.to_zarr(folder, encoding=encoding, zarr_format=3, consolidated=False)


@contextlib.contextmanager
def cluster(setting: Setting) -> Iterator[Client]:
    """A local cluster as Dask makes it by default."""
    with (
        LocalCluster(
            n_workers=setting.workers,
            threads_per_worker=setting.threads,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        ) as made,
        Client(made) as client,
    ):
        yield client


_best: dict[tuple[Write, str], Setting] = {}


def best_setting(write: Write, items: list[pystac.Item], folder: Path) -> Setting:
    """The fastest of a sweep over one scene, which is printed.

    Each setting is tried on a corner of the ground first, and goes on to the whole ground unless others were
    far faster there; the better one of two runs counts. What was found for the same scene is not sought again.
    """
    if known := _best.get((write, items[0].id)):
        return known
    corner: dict[Setting, float] = {}
    whole: dict[Setting, float] = {}
    name = write.__name__.removeprefix("write_")
    runs = itertools.count()

    def seconds(chunk: int, ground: GeoBox) -> float:
        store = folder / f"sweep-{next(runs)}"
        start = time.perf_counter()
        write(items[:1], chunk, store, ground)
        took = time.perf_counter() - start
        shutil.rmtree(store)
        return took

    for workers, threads in CLUSTERS:
        with cluster(Setting(0, workers, threads)):
            seconds(CHUNKS[0], _CORNER)  # not counted: workers import what they need
            for chunk in CHUNKS:
                setting = Setting(chunk, workers, threads)
                corner[setting] = seconds(chunk, _CORNER)
                best = min(corner.values())
                if corner[setting] > _HOPELESS * best:
                    print(
                        f"  {name}: {setting}: given up, {corner[setting]:.1f} s for a sixteenth of a scene,"
                        f" where the best took {best:.1f} s",
                        flush=True,
                    )
                    continue
                whole[setting] = min(seconds(chunk, GROUND) for _ in range(2))
                print(f"  {name}: {setting}: {whole[setting]:.1f} s a scene", flush=True)
    _best[write, items[0].id] = min(whole, key=lambda setting: whole[setting])
    return _best[write, items[0].id]
