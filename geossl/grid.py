"""The grid that all pixels of a project lie on, and its tiles.

A thin layer over odc-geo's ``GridSpec`` and ``GeoBox`` that adds what a store needs: a stable
string id for every tile, and a description that can be written down and read back.
Tile indices and points are always in the order x, y; arrays are always in the order y, x.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry
from odc.geo.gridspec import GridSpec
from odc.geo.types import ixy_, resyx_, xy_
from pyproj import Proj

from geossl.errors import SettingsError

CHUNK = 256
"""Side in pixels of one stored window; tile sizes are multiples of it."""

AREA_TOLERANCE = 0.02
"""How far the area of a grid's pixels may be from the truth; a UTM zone keeps to it for 8° to each side."""

Bands = Literal["one", "native"]
"""How a grid keeps bands of several pixel sizes: all at its own, or each close to how it was measured."""

_TILE_ID = re.compile(r"x(-?\d+)y(-?\d+)")


@dataclass(frozen=True, slots=True)
class Grid:
    """Square tiles of square, north-up pixels in one projected coordinate system."""

    crs: str
    """A projected CRS, as ``EPSG:32622`` or WKT."""
    resolution: float
    """Pixel size in CRS units (metres)."""
    tile_size: int = 1024
    """Side of a tile in pixels, a multiple of :data:`CHUNK`."""
    origin: tuple[float, float] = (0.0, 0.0)
    """x, y of the north-west corner of tile (0, 0), in CRS units."""
    bands: Bands = "one"
    """Whether bands are stored at one resolution, or coarser ones in coarser pixels; readers see one either way."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise SettingsError(f"grid resolution {self.resolution!r} must be a positive number of metres")
        if self.tile_size <= 0 or self.tile_size % CHUNK:
            raise SettingsError(f"grid tile size {self.tile_size!r} must be a positive multiple of {CHUNK} pixels")
        if not CRS(self.crs).projected:
            raise SettingsError(f"grid CRS {self.crs!r} is not projected", "choose a UTM zone or another CRS in metres")
        if self.bands not in get_args(Bands):
            raise SettingsError(f"grid bands {self.bands!r} are not known", f"choose {' or '.join(get_args(Bands))}")

    @property
    def spec(self) -> GridSpec:
        """The same grid as odc-geo's object. Its y index counts *downwards*, as ours does."""
        return _spec(self)

    @property
    def plain(self) -> Self:
        """The same pixels, whatever the resolution that bands are kept at."""
        return replace(self, bands="one")

    def __getitem__(self, index: tuple[int, int]) -> Tile:
        """The tile at ``ix, iy``; ix grows eastwards, iy southwards."""
        ix, iy = index
        return Tile(self, int(ix), int(iy))

    def tile(self, tile_id: str) -> Tile:
        """The tile with that id (inverse of :attr:`Tile.id`)."""
        if not (match := _TILE_ID.fullmatch(tile_id)):
            raise SettingsError(f"{tile_id!r} is not a tile id", "tile ids look like x3y-2")
        return self[int(match[1]), int(match[2])]

    def tiles(self, area: Geometry) -> Iterator[Tile]:
        """All tiles that an area (in any CRS) touches, row by row from the north-west."""
        for index, _ in sorted(self.spec.tiles_from_geopolygon(area), key=lambda found: found[0][::-1]):
            yield self[index]

    def is_aligned(self, box: GeoBox, factor: int = 1, *, tolerance: float = 1e-3) -> bool:
        """Whether a raster's pixels coincide with this grid's (or with ``factor`` × ``factor`` of them), to a
        fraction of a pixel."""
        if box.crs is None or box.crs != CRS(self.crs):
            return False
        a, resolution = box.affine, self.resolution * factor
        if not (
            math.isclose(a.a, resolution, rel_tol=1e-9)
            and math.isclose(a.e, -resolution, rel_tol=1e-9)
            and a.b == 0
            and a.d == 0
        ):
            return False
        shift = [(a.c - self.origin[0]) / resolution, (a.f - self.origin[1]) / resolution]
        return all(abs(s - round(s)) <= tolerance for s in shift)

    def to_dict(self) -> dict[str, Any]:
        return {
            "crs": self.crs,
            "resolution": self.resolution,
            "tile_size": self.tile_size,
            "origin": list(self.origin),
            # unless it is said, it is one: so it was before there was a choice
            **({"bands": self.bands} if self.bands != "one" else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        x, y = data["origin"]
        return cls(
            data["crs"],
            float(data["resolution"]),
            int(data["tile_size"]),
            (float(x), float(y)),
            data.get("bands", "one"),
        )


def crs_name(crs: CRS) -> str:
    """``EPSG:32622`` where the CRS has a number, else WKT."""
    number = crs.to_epsg()
    return str(crs) if number is None else f"EPSG:{number}"


def areal_scale(crs: str, x: float, y: float) -> float:
    """Area on the map for one unit of area on the ground, at a point of a projected CRS; NaN where it has none."""
    projection = _projection(crs)
    longitude, latitude = projection(x, y, inverse=True)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return math.nan
    return float(projection.get_factors(longitude, latitude).areal_scale)


@functools.lru_cache(maxsize=64)
def _projection(crs: str) -> Proj:
    return Proj(CRS(crs).proj)


@functools.lru_cache(maxsize=64)
def _spec(grid: Grid) -> GridSpec:
    side = grid.tile_size * grid.resolution
    return GridSpec(
        grid.crs,
        (grid.tile_size, grid.tile_size),
        resyx_(-grid.resolution, grid.resolution),
        # odc-geo names the south-west corner of tile (0, 0)
        origin=xy_(grid.origin[0], grid.origin[1] - side),
        flipy=True,
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of a grid: the unit of storage, work and publication."""

    grid: Grid
    ix: int
    iy: int
    factor: int = 1
    """How many of the grid's pixels make one of the tile's, along one side; divides the tile's size."""

    def coarser(self, factor: int) -> Self:
        """The same ground in pixels ``factor`` times as wide and high."""
        return replace(self, factor=self.factor * factor)

    @property
    def id(self) -> str:
        """Stable name, such as ``x3y-2``."""
        return f"x{self.ix}y{self.iy}"

    @property
    def geobox(self) -> GeoBox:
        """CRS, affine transform and shape of the tile's pixels."""
        box = self.grid.spec[ixy_(self.ix, self.iy)]
        return box if self.factor == 1 else box.zoom_out(self.factor)

    def is_aligned(self, box: GeoBox) -> bool:
        """Whether a raster's pixels coincide with the tile's, wherever on the grid it lies."""
        return self.grid.is_aligned(box, self.factor)

    @property
    def transform(self) -> Affine:
        """From pixel (column, row) corners to CRS (x, y)."""
        return self.geobox.affine

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        side = self.grid.tile_size // self.factor
        return side, side

    @property
    def bounds(self) -> BoundingBox:
        """left, bottom, right, top in CRS units."""
        return self.geobox.boundingbox

    @property
    def extent(self) -> Geometry:
        return self.geobox.extent

    @property
    def areal_scale(self) -> float:
        """Area on the grid for one unit of area on the ground, at the tile's middle."""
        bounds = self.bounds
        return areal_scale(self.grid.crs, (bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2)

    @property
    def pixel_origin(self) -> tuple[int, int]:
        """(row, column) of this tile's first pixel in the global lattice of pixels of its size."""
        height, width = self.shape
        return self.iy * height, self.ix * width
