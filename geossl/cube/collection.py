"""Read a cube: collections of scenes or composites, and labels, as one snapshot shows them.

A collection looks the same whether it holds a sensor's scenes or composites of them. Arrays are in
step order, which is the order of arrival; only :meth:`Collection.open` sorts by time.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.bands import Sensor, Statistics
from geossl.cube import layout
from geossl.cube.arrays import column
from geossl.cube.columns import read_columns
from geossl.cube.groups import BandGroup, band_groups
from geossl.cube.image import TileImage
from geossl.cube.label_report import LabelReport
from geossl.errors import StoreError
from geossl.grid import Grid, Tile
from geossl.legend import Legend

if TYPE_CHECKING:
    import xarray


class _Layer:
    """A group of tiles in a session. Pickles (read-only sessions do), and caches what it has opened."""

    def __init__(self, session: icechunk.Session, path: str) -> None:
        self._session = session
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._session, self.name)

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    @property
    def snapshot(self) -> str:
        """Id of the snapshot that this shows."""
        return self._session.snapshot_id

    @functools.cached_property
    def cube_id(self) -> str:
        """Random id of the cube: differs when it is deleted and made again at the same address."""
        return layout.cube_id(zarr.open_group(self._session.store, mode="r"))

    @functools.cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(self._session.store, path=self._path, mode="r")

    @functools.cached_property
    def _attributes(self) -> dict[str, Any]:
        return self._group.attrs.asdict()

    @functools.cached_property
    def grid(self) -> Grid:
        return Grid.from_dict(self._attributes["grid"])

    @functools.cached_property
    def tile_ids(self) -> list[str]:
        """Ids of all tiles, row by row from the north-west."""
        return layout.tile_ids(self._group)

    def tile(self, tile_id: str) -> Tile:
        return self.grid.tile(tile_id)

    def _array(self, tile_id: str, name: str) -> zarr.Array[Any]:
        try:
            return zarr.open_array(self._session.store, path=f"{self._path}/{tile_id}/{name}", mode="r")
        except FileNotFoundError:
            raise StoreError(f"{self._path} has no array {name!r} on tile {tile_id}") from None


class Collection(_Layer):
    """A sensor's scenes, or composites of them, tile by tile."""

    def __init__(self, session: icechunk.Session, name: str) -> None:
        super().__init__(session, name)
        self._loaded: dict[tuple[str, str], NDArray[Any]] = {}

    @functools.cached_property
    def sensor(self) -> Sensor:
        return Sensor.from_dict(self._attributes["sensor"])

    @property
    def kind(self) -> str:
        """``scenes`` or ``composite``."""
        return str(self._attributes["kind"])

    @property
    def statistics(self) -> Statistics | None:
        """Per-band statistics over clear pixels; None before they were computed."""
        stored = self._attributes.get("statistics")
        return None if stored is None else Statistics.from_dict(stored)

    @functools.cached_property
    def groups(self) -> tuple[BandGroup, ...]:
        """Which bands are stored together, finest first; one group unless the grid keeps bands native."""
        return band_groups(self.sensor, self.grid)

    def image(self, tile_id: str) -> TileImage:
        """(time, band, y, x) stored numbers, all bands at the grid's resolution."""
        return TileImage([(group, self._array(tile_id, group.name("image"))) for group in self.groups])

    def quality(self, tile_id: str) -> zarr.Array[Any]:
        """(time, y, x) uint8 quality flags."""
        return self._array(tile_id, "quality")

    def clear_count(self, tile_id: str) -> zarr.Array[Any]:
        """(time, y, x) uint16 number of clear observations; composites only."""
        return self._array(tile_id, "clear_count")

    def load(self, *names: str) -> None:
        """Read columns of records (by the arrays' names) of all tiles at the same time; whoever asks of one is then
        answered at once. For whoever goes through all tiles: one by one each takes milliseconds."""
        wanted = [(tile, name) for tile in self.tile_ids for name in names if (tile, name) not in self._loaded]
        shared: dict[str, str] = {}  # many tiles name the same scenes
        values = read_columns(self._session.store, [f"{self._path}/{tile}/{name}" for tile, name in wanted])
        for key, column_of_tile in zip(wanted, values, strict=True):
            if column_of_tile.dtype.kind in "OTU":
                texts = [shared.setdefault(str(value), str(value)) for value in column_of_tile.tolist()]
                column_of_tile = np.array(texts, object)
            self._loaded[key] = column_of_tile

    def _values(self, tile_id: str, name: str) -> NDArray[Any]:
        found = self._loaded.get((tile_id, name))
        return np.asarray(self._array(tile_id, name)[:]) if found is None else found

    def times(self, tile_id: str) -> NDArray[np.datetime64]:
        """(T,) acquisition times, datetime64[ns], UTC."""
        return self._values(tile_id, "time").astype("datetime64[ns]")

    def scene_ids(self, tile_id: str) -> list[str]:
        return [str(value) for value in self._values(tile_id, "scene_id")]

    def checksums(self, tile_id: str) -> list[str]:
        """What each step was made from."""
        return [str(value) for value in self._values(tile_id, "source_checksum")]

    def revisions(self, tile_id: str) -> NDArray[np.int32]:
        """(T,) how often each step was overwritten."""
        return self._values(tile_id, "revision")

    def sources(self, tile_id: str) -> list[tuple[str, str, int]]:
        """Scene, checksum and revision of each step: where they are the same, so are the pixels."""
        columns = self.scene_ids(tile_id), self.checksums(tile_id), self.revisions(tile_id).tolist()
        return list(zip(*columns, strict=True))

    def clear_fraction(self, tile_id: str) -> NDArray[np.float32]:
        """(T,) share of clear pixels on the tile."""
        return self._values(tile_id, "clear_fraction")

    def chunk_clear(self, tile_id: str) -> NDArray[np.float32]:
        """(T, cy, cx) share of clear pixels in every chunk window."""
        return np.asarray(self._array(tile_id, "chunk_clear")[:])

    def records(self, tile_ids: Sequence[str]) -> list[tuple[NDArray[np.float32], NDArray[np.datetime64]]]:
        """:meth:`chunk_clear` and :meth:`times` of many tiles, asked of the store at the same time."""
        paths = [f"{self._path}/{tile_id}/{name}" for tile_id in tile_ids for name in ("chunk_clear", "time")]
        values = iter(read_columns(self._session.store, paths))
        return [(clear, time.astype("datetime64[ns]")) for clear, time in zip(values, values, strict=True)]

    def items(self) -> dict[str, dict[str, Any]]:
        """Scene id → the STAC Item that it was ingested from."""
        ids, items = (column(self._group, f"{layout.SCENES}/{name}").tolist() for name in ("id", "item"))
        return {scene_id: json.loads(item) for scene_id, item in zip(ids, items, strict=True)}

    def open(self, tile_id: str) -> xarray.Dataset:
        """One tile as xarray sees it: lazy, sorted by time, with CRS, no-data as NaN, every group of bands by itself."""
        import xarray  # with pandas it takes a second, which workers need not wait

        self._array(tile_id, "image")
        dataset = xarray.open_zarr(
            self._session.store, group=f"{self._path}/{tile_id}", consolidated=False, chunks=None
        )
        return dataset.sortby("time")


class Labels(_Layer):
    """A label layer, tile by tile."""

    def __init__(self, session: icechunk.Session, name: str) -> None:
        super().__init__(session, f"{layout.LABELS}/{name}")

    @functools.cached_property
    def legend(self) -> Legend:
        return Legend.from_dict(self._attributes["legend"])

    @property
    def task(self) -> str:
        """``landcover`` or ``change``."""
        return str(self._attributes["task"])

    @property
    def before(self) -> dt.date | None:
        """Date of the earlier state; change only."""
        return _date(self._attributes.get("before"))

    @property
    def after(self) -> dt.date | None:
        """Date of the later state; change only."""
        return _date(self._attributes.get("after"))

    @property
    def date(self) -> dt.date | None:
        """Date that dated labels of land cover are near to."""
        return _date(self._attributes.get("date"))

    @property
    def checksum(self) -> str:
        """Of all that the layer was made from; the same files and settings, the same checksum."""
        return str(self._attributes.get("checksum", ""))

    @property
    def source(self) -> str:
        """Names of the files."""
        return str(self._attributes.get("source", ""))

    @property
    def version(self) -> int | None:
        """1, 2, … for every time that a layer of this name was put in; None where an older geossl did."""
        return self._attributes.get("version")

    @property
    def report(self) -> LabelReport | None:
        """What became of the file; None where an older geossl put it in."""
        found = self._attributes.get("report")
        return None if found is None else LabelReport.from_dict(found)

    def read(self, tile_id: str) -> NDArray[np.uint8]:
        """(H, W) class codes, :data:`~geossl.legend.NO_LABEL` where there is none."""
        return np.asarray(self._array(tile_id, "label")[:])


def _date(text: str | None) -> dt.date | None:
    return None if text is None else dt.date.fromisoformat(text)
