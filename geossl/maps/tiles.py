"""Predicted tiles on disk: a two-band raster each, and a record of what it was made from."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetWriter, MemoryFile

from geossl.files import write_bytes, write_json
from geossl.grid import Tile
from geossl.legend import NO_LABEL


@dataclass(frozen=True, slots=True)
class Source:
    """One scene (or composite) that a tile's prediction read."""

    tile: str
    scene: str
    revision: int
    checksum: str
    first: str
    """Day of acquisition, or the first day of the composite's period; ISO 8601."""
    last: str


@dataclass(frozen=True, slots=True)
class TileRecord:
    """Where every pixel of one predicted tile comes from."""

    tile: str
    task: str
    """Id of the model."""
    collection: str
    snapshot: str
    """Of the cube, when the tile was predicted."""
    windows: tuple[int, int, int]
    """Window, margin and overlap in pixels."""
    sources: tuple[Source, ...]
    """In date order for the tile itself, then those of neighbours that its windows reach into."""
    extent: tuple[int, int, int, int] | None
    """First and last-plus-one row and column with data, in the grid's global pixels; None: no data at all."""
    counts: dict[int, int] = field(default_factory=dict)
    """Pixels of each class code."""
    flips: bool = False
    """Whether it is the mean over flipped and turned views."""

    def same_inputs(self, other: TileRecord) -> bool:
        """Whether both were made by one model from the same pixels, hence are equal."""
        what = ("tile", "task", "collection", "windows", "flips", "sources")
        return all(getattr(self, name) == getattr(other, name) for name in what)

    def by_tile(self) -> dict[str, tuple[Source, ...]]:
        """The sources by the tile that they are of, in date order."""
        return {name: tuple(s for s in self.sources if s.tile == name) for name in {s.tile for s in self.sources}}

    @property
    def own(self) -> tuple[Source, ...]:
        """The sources of the tile itself."""
        return tuple(source for source in self.sources if source.tile == self.tile)

    @property
    def dates(self) -> tuple[dt.date, dt.date]:
        """First and last day of the sources of the tile itself."""
        return (
            min(dt.date.fromisoformat(source.first) for source in self.own),
            max(dt.date.fromisoformat(source.last) for source in self.own),
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        extent = data["extent"]
        return cls(
            **{name: data[name] for name in ("tile", "task", "collection", "snapshot")},
            windows=tuple(data["windows"]),
            sources=tuple(Source(**source) for source in data["sources"]),
            extent=None if extent is None else tuple(extent),
            counts={int(code): count for code, count in data["counts"].items()},
            flips=data.get("flips", False),
        )


class TileFolder:
    """A folder of predicted tiles. Band 1 holds class codes, band 2 confidence in percent; 255 is no-data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raster(self, tile_id: str) -> Path:
        return self.folder / f"{tile_id}.tif"

    def record(self, tile_id: str) -> TileRecord | None:
        """What the tile on disk was made from; None where there is no usable tile."""
        if (content := self.note(tile_id)) is None or not self.raster(tile_id).is_file():
            return None
        try:
            return TileRecord.from_dict(content)
        except (KeyError, TypeError):  # of another version: predicted again
            return None

    def size(self, tile_id: str) -> int:
        """Bytes on disk; 0 where it was not predicted."""
        return self.raster(tile_id).stat().st_size if self.raster(tile_id).is_file() else 0

    def read(self, tile_id: str) -> NDArray[np.uint8]:
        """(2, H, W): class codes and confidence in percent."""
        with rasterio.open(self.raster(tile_id)) as source:
            return source.read()

    def write(self, tile: Tile, bands: NDArray[np.uint8]) -> None:
        """Write a tile: (2, H, W), class codes and confidence in percent."""
        # a record never outlives its raster: without it the tile counts as not predicted
        (self.folder / f"{tile.id}.json").unlink(missing_ok=True)
        with tile_raster(self.raster(tile.id), tile, count=2, dtype="uint8", nodata=NO_LABEL) as target:
            target.write(bands)

    def save(self, record: TileRecord) -> None:
        """Note what the tile on disk was made from."""
        self.save_note(record.tile, record.to_dict())

    def note(self, name: str) -> dict[str, Any] | None:
        """A JSON note beside the tiles; None where there is none."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def save_note(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.folder / f"{name}.json", content)


@contextmanager
def tile_raster(path: Path, tile: Tile, **profile: Any) -> Iterator[DatasetWriter]:
    """A GeoTIFF of one tile to be written to; it is on the disk, and whole, when the block ends."""
    height, width = tile.shape
    # in memory, since GDAL closes a file on a full disk without an error
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            crs=tile.grid.crs,
            transform=tile.transform,
            compress="deflate",
            zlevel=1,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            **profile,
        ) as target:
            yield target
        write_bytes(path, memory.getbuffer())
