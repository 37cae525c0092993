"""Embeddings on disk: a folder of GeoParquet files, one a scene, that GeoPandas, DuckDB and GDAL read as one table.

========================  ============================================================================
scene, time               id of the scene and when it was acquired (UTC)
tile, row, col            where the chip lies: its first pixel in a tile of the grid
clear_fraction            share of its pixels that are clear, 0 … 1
encoder, snapshot         which encoder saw it, in which snapshot of the cube
embedding                 D float32, as the encoder gives them
geometry                  outline of the chip in EPSG:4326 (WKB)
========================  ============================================================================

Each file carries the encoder's card in its metadata and appears in one move, so that a run that is
cut off loses one scene at most, and a new scene touches no other. ``_about.json`` says what they share.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geossl.errors import StoreError
from geossl.files import aside, file_name, read_json, write_json
from geossl.search.places import LONLAT, Corners, Lattice

FORMAT = 1

ROWS = 1024
"""Rows in one group of a file: what is in memory at a time, and what a search of one place reads at least."""

_ABOUT = "_about.json"  # readers of folders of Parquet pass over what begins with _ or a dot
_KEY = b"geossl"
_WORDS = ["scene", "tile", "encoder", "snapshot"]
_UTC = pa.timestamp("us", "UTC")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class About:
    """What all embeddings of a folder share."""

    encoder: str
    """Id of the encoder."""
    collection: str
    """Of the cube, that the chips are from."""
    lattice: Lattice
    dim: int
    """Length of an embedding."""
    centre: Floats | None = None
    """(dim,) mean of the first embeddings. Likeness is told by the angle seen from there, for most of what
    an encoder says is the same of all chips; it never moves, so that figures of two searches compare."""

    def to_dict(self) -> dict[str, Any]:
        own = {"encoder": self.encoder, "collection": self.collection, "dim": self.dim, "format": FORMAT}
        return own | self.lattice.to_dict() | {"centre": None if self.centre is None else self.centre.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        centre = data["centre"]
        return cls(
            data["encoder"],
            data["collection"],
            Lattice.from_dict(dict(data)),
            data["dim"],
            None if centre is None else np.array(centre, np.float32),
        )


@dataclass(frozen=True)
class Rows:
    """Some chips of one scene, as parallel arrays of length N."""

    tile: Sequence[str]
    row: NDArray[np.integer[Any]]
    col: NDArray[np.integer[Any]]
    clear: NDArray[np.float32]
    time: NDArray[np.datetime64]
    vectors: Floats
    """(N, dim)."""


@dataclass(frozen=True)
class Where:
    """Which chips are looked at."""

    since: dt.date | None = None
    until: dt.date | None = None
    """The last day, included."""
    clear: float = 0.0
    """Smallest share of clear pixels."""

    def span(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """From (included) and to (excluded), UTC."""

        def midnight(day: dt.date) -> dt.datetime:
            return dt.datetime.combine(day, dt.time(), dt.UTC)

        return (
            None if self.since is None else midnight(self.since),
            None if self.until is None else midnight(self.until + dt.timedelta(days=1)),
        )

    def __str__(self) -> str:
        """Such as ``from 2024-01-01 to 2024-03-31, at least 90 % clear``; empty where all chips are."""
        days = [f"{word} {day}" for word, day in (("from", self.since), ("to", self.until)) if day is not None]
        clear = [f"at least {self.clear:.0%} clear"] if self.clear else []
        return ", ".join([*([" ".join(days)] if days else []), *clear])

    def expression(self) -> ds.Expression:
        """The same for pyarrow."""
        start, stop = self.span()
        wanted = ds.field("clear_fraction") >= pa.scalar(self.clear, pa.float32())
        if start is not None:
            wanted &= ds.field("time") >= pa.scalar(start, _UTC)
        if stop is not None:
            wanted &= ds.field("time") < pa.scalar(stop, _UTC)
        return wanted


EVERYTHING = Where()


class Embeddings:
    """The embeddings of one encoder, chip size and cube.

    Raises
    ------
    StoreError
        The folder holds none, or a newer geossl wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = read_json(folder / _ABOUT)
        if data is None:
            raise StoreError(f"there are no embeddings at {folder}", "run `geossl embed`")
        if data["format"] > FORMAT:
            raise StoreError(f"{folder} has format {data['format']}; this geossl reads up to {FORMAT}", "update geossl")
        self.about = About.from_dict(data)

    @classmethod
    def create(cls, folder: Path, about: About) -> Self:
        """Open the folder, which may be new: ``about`` then describes it."""
        if not (folder / _ABOUT).exists():
            write_json(folder / _ABOUT, about.to_dict())
        return cls(folder)

    @staticmethod
    def lie_in(folder: Path) -> bool:
        """Whether a folder holds embeddings."""
        return (folder / _ABOUT).is_file()

    def keys(self) -> dict[str, str]:
        """Scene → the key that its embeddings were written under. A damaged file is as good as none."""
        found = {}
        for path in self._files():
            try:
                notes = json.loads(pq.read_schema(path).metadata[_KEY])
            except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):
                continue
            found[str(notes["scene"])] = str(notes["key"])
        return found

    def write(self, scene: str, key: str, snapshot: str, card: Mapping[str, Any], parts: Iterable[Rows]) -> int:
        """Write a scene's embeddings in place of what there is of it; returns how many they are."""
        notes = {"scene": scene, "key": key, "snapshot": snapshot, "format": FORMAT, "card": dict(card)}
        schema = self._schema().with_metadata({b"geo": json.dumps(_geo()), _KEY: json.dumps(notes)})
        count = 0
        with (
            aside(self._path(scene)) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=_WORDS) as writer,
        ):
            for table in _groups(self._table(scene, snapshot, rows) for rows in parts):
                writer.write_table(table)
                count += len(table)
        return count

    def remove(self, scene: str) -> None:
        self._path(scene).unlink(missing_ok=True)

    def scan(
        self,
        columns: Sequence[str],
        where: Where = EVERYTHING,
        *,
        scene: str | None = None,
        tiles: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """These columns of all chips, or of those that are wanted, a few rows at a time.

        Parameters
        ----------
        scene, tiles:
            Only of this scene, on these tiles.

        Raises
        ------
        StoreError
            A file is damaged.
        """
        files = self._files() if scene is None else [self._path(scene)]
        if not files:
            return
        dataset = ds.dataset(list(map(str, files)), schema=self._schema(), format="parquet")
        wanted = where.expression()
        if tiles is not None:
            wanted &= ds.field("tile").isin(list(tiles))
        try:
            for batch in dataset.to_batches(columns=list(columns), filter=wanted, batch_size=ROWS):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{self.folder} is damaged: {error}", "run `geossl embed` again") from error

    def vectors(self, table: pa.Table) -> Floats:
        """(N, dim) directions from the centre, of length 1."""
        assert self.about.centre is not None, "searched before `settle`"
        stored = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, self.about.dim)
        return unit(stored - self.about.centre)

    def corners(self, table: pa.Table) -> Corners:
        """(N, 2) places."""
        tile = table["tile"].combine_chunks().dictionary_encode()
        origins = self.about.lattice.origins(tile.dictionary.to_pylist())
        return origins[tile.indices.to_numpy()] + np.stack([table["row"].to_numpy(), table["col"].to_numpy()], axis=1)

    def count(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self._files())

    def settle(self) -> None:
        """Take the mean of what there is for the centre, unless there is one.

        Raises
        ------
        StoreError
            There is not a single embedding.
        """
        if self.about.centre is not None:
            return
        total, count = np.zeros(self.about.dim), 0
        for table in self.scan(["embedding"]):
            stored = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, self.about.dim)
            total += stored.sum(axis=0, dtype=np.float64)
            count += len(stored)
        if not count:
            raise StoreError("not a single chip is clear enough for an embedding", "lower search.min_clear")
        self.about = dataclasses.replace(self.about, centre=(total / count).astype(np.float32))
        write_json(self.folder / _ABOUT, self.about.to_dict())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.parquet"))

    def _path(self, scene: str) -> Path:
        return self.folder / file_name(scene, ".parquet")

    def _schema(self) -> pa.Schema:
        return pa.schema(
            [
                ("scene", pa.string()),
                ("time", _UTC),
                ("tile", pa.string()),
                ("row", pa.int32()),
                ("col", pa.int32()),
                ("clear_fraction", pa.float32()),
                ("encoder", pa.string()),
                ("snapshot", pa.string()),
                ("embedding", pa.list_(pa.float32(), self.about.dim)),
                ("geometry", pa.binary()),
            ]
        )

    def _table(self, scene: str, snapshot: str, rows: Rows) -> pa.Table:
        outlines = self.about.lattice.footprints(self.about.lattice.corners(rows.tile, rows.row, rows.col))
        count = len(rows.tile)
        columns: list[Any] = [
            [scene] * count,
            rows.time.astype("datetime64[us]"),
            list(rows.tile),
            rows.row,
            rows.col,
            rows.clear,
            [self.about.encoder] * count,
            [snapshot] * count,
            pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.ravel(), pa.float32()), self.about.dim),
            shapely.to_wkb(outlines),
        ]
        schema = self._schema()
        return pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema)


def unit(vectors: Floats) -> Floats:
    """(…, D) the same directions, of length 1; nothing stays nothing."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least :data:`ROWS` rows, but for the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _geo() -> dict[str, Any]:
    """The file metadata that makes Parquet GeoParquet 1.1."""
    crs = CRS.from_user_input(LONLAT).to_json_dict()
    column = {"encoding": "WKB", "geometry_types": ["MultiPolygon", "Polygon"], "crs": crs}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
