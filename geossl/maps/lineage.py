"""Where one pixel of a published map comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio
from pyproj import Transformer
from rasterio.windows import Window

from geossl.errors import GeosslError, StoreError
from geossl.grid import Grid
from geossl.legend import NO_LABEL
from geossl.maps.blend import Lattice
from geossl.maps.cog import CONFIDENCE_SCALE
from geossl.maps.tiles import Source, TileRecord


@dataclass(frozen=True, slots=True)
class PixelLineage:
    """What a pixel shows and everything that it was made from."""

    map: str
    release: str
    tile: str
    row: int
    """In the grid's global pixels."""
    col: int
    code: int | None
    """The class; None where the map has no data."""
    name: str | None
    confidence: float | None
    """0 … 1."""
    model: str
    encoder: str | None
    collection: str
    snapshot: str
    """Of the cube, when the tile was predicted."""
    windows: int
    """How many overlapping windows the pixel was blended from."""
    reach: tuple[int, int, int, int]
    """First and last-plus-one row and column of the pixels that those windows saw."""
    sources: tuple[Source, ...]
    """Scenes (or composites) of the pixel's own tile, in date order."""
    neighbours: tuple[Source, ...]
    """Those of other tiles that the windows reach into."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def pixel_lineage(folder: Path, name: str, lon: float, lat: float) -> PixelLineage:
    """Trace the pixel at a longitude and latitude (degrees, WGS 84) of a release.

    Parameters
    ----------
    folder:
        Of the release; ``latest`` will do.
    name:
        Of the map.

    Raises
    ------
    StoreError
        There is no such release, or it was written before pixels could be traced.
    GeosslError
        The point is not on the map.
    """
    path = folder / f"{name}-lineage.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"there is no {path}", "run `geossl map` first, or name another map") from error
    if "grid" not in content:
        raise StoreError(f"{path} does not say on which grid the map lies", "publish the map again with this geossl")
    grid = Grid.from_dict(content["grid"])
    row, col = _pixel(grid, lon, lat)
    tile = grid[col // grid.tile_size, row // grid.tile_size]
    records = {found["tile"]: found for found in content["tiles"]}
    if tile.id not in records:
        raise GeosslError(
            f"{lon:g}, {lat:g} is not on the map {name}: it would be on tile {tile.id}, and the map has "
            f"{', '.join(sorted(records)[:8])}{' …' if len(records) > 8 else ''}",
            "give longitude before latitude, in degrees; `proj:bbox` in the map's STAC Item says where it lies",
        )
    record = TileRecord.from_dict(records[tile.id])
    lattice = Lattice(*record.windows)
    spans = [lattice.reach(range(at, at + 1)) for at in (row, col)]
    seen = _tiles(grid, *spans)
    counted = [len(lattice.over(range(at, at + 1))) for at in (row, col)]
    code, percent = (_value(folder / f"{name}{ending}.tif", lon, lat) for ending in ("", "-confidence"))
    item = json.loads((folder / f"{folder.resolve().name}.json").read_text(encoding="utf-8"))
    titles = {found["value"]: found["title"] for found in item["assets"]["map"]["classification:classes"]}
    return PixelLineage(
        map=name,
        release=folder.resolve().name,
        tile=tile.id,
        row=row,
        col=col,
        code=code,
        name=None if code is None else titles[code],
        confidence=None if percent is None else round(percent * CONFIDENCE_SCALE, 2),
        model=record.task,
        encoder=content["encoder"],
        collection=record.collection,
        snapshot=record.snapshot,
        windows=counted[0] * counted[1],
        reach=(spans[0].start, spans[0].stop, spans[1].start, spans[1].stop),
        sources=record.own,
        neighbours=tuple(source for source in record.sources if source.tile != tile.id and source.tile in seen),
    )


def _pixel(grid: Grid, lon: float, lat: float) -> tuple[int, int]:
    """Global row and column."""
    x, y = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform(lon, lat)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise GeosslError(
            f"{lon:g}, {lat:g} lies outside of what {grid.crs} can show", "give longitude before latitude"
        )
    return math.floor((grid.origin[1] - y) / grid.resolution), math.floor((x - grid.origin[0]) / grid.resolution)


def _tiles(grid: Grid, rows: range, cols: range) -> set[str]:
    """Ids of all tiles that a rectangle touches."""
    size = grid.tile_size
    return {
        grid[ix, iy].id
        for iy in range(rows.start // size, (rows.stop - 1) // size + 1)
        for ix in range(cols.start // size, (cols.stop - 1) // size + 1)
    }


def _value(path: Path, lon: float, lat: float) -> int | None:
    """The stored number of a raster at a point; None for no-data, and beyond its border."""
    with rasterio.open(path) as raster:
        x, y = Transformer.from_crs("EPSG:4326", raster.crs.to_wkt(), always_xy=True).transform(lon, lat)
        row, col = raster.index(x, y)
        if not (0 <= row < raster.height and 0 <= col < raster.width):
            return None
        value = int(raster.read(1, window=Window(col, row, 1, 1))[0, 0])
    return None if value == NO_LABEL else value


def lineage_lines(found: PixelLineage, scenes: Sequence[Sequence[str]] = ()) -> list[str]:
    """For people.

    Parameters
    ----------
    scenes:
        For each of ``sources``, the scenes that a composite was made from.
    """
    shown = "no data" if found.code is None else f"{found.name} (code {found.code}), confidence {found.confidence:.2f}"
    top, bottom, left, right = found.reach
    lines = [
        f"map       {found.map}, release {found.release}",
        f"pixel     row {found.row}, column {found.col} of tile {found.tile}: {shown}",
        f"model     {found.model}",
        f"encoder   {found.encoder or 'none'}",
        f"snapshot  {found.snapshot} of the cube, collection {found.collection}",
        f"windows   {found.windows} blended, which saw rows {top} to {bottom - 1}, columns {left} to {right - 1}",
    ]
    for number, source in enumerate(found.sources):
        lines.append(f"scene     {_source(source)}")
        lines += [f"          made from {scene}" for scene in (scenes[number] if scenes else ())]
    lines += [f"nearby    {_source(source)} (tile {source.tile})" for source in found.neighbours]
    return lines


def _source(source: Source) -> str:
    days = source.first if source.first == source.last else f"{source.first} to {source.last}"
    return f"{source.scene}, {days}, revision {source.revision}, checksum {source.checksum}"
