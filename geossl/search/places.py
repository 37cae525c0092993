"""Where chips lie: their place on the grid, their outlines on Earth, and which of them are one answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from geossl.grid import Grid
from geossl.imagery.scene import outline

LONLAT = "EPSG:4326"

Corners = NDArray[np.int64]
"""(N, 2) row and column of each chip's first pixel in the grid's global lattice of pixels."""


@dataclass(frozen=True)
class Lattice:
    """Chips of one size on a grid. A place is a chip's first pixel, counted from the grid's origin."""

    grid: Grid
    size: int
    """Side of every chip in pixels."""

    def origins(self, tile_ids: Iterable[str]) -> Corners:
        """First pixels of tiles."""
        return np.array([self.grid.tile(tile_id).pixel_origin for tile_id in tile_ids], np.int64).reshape(-1, 2)

    def corners(self, tile_ids: Iterable[str], row: NDArray[Any], col: NDArray[Any]) -> Corners:
        """Places of chips that are given by tile (an id each), and row and column within it."""
        return self.origins(tile_ids) + np.stack([row, col], axis=1)

    def pixel(self, longitude: float, latitude: float) -> NDArray[np.float64]:
        """(row, column) of a point in the same lattice; infinite where the grid's CRS cannot show it."""
        x, y = Transformer.from_crs(LONLAT, self.grid.crs, always_xy=True).transform(longitude, latitude)
        left, top = self.grid.origin
        return np.array([top - y, x - left]) / self.grid.resolution

    def boxes(self, corners: Corners) -> NDArray[np.object_]:
        """(N,) outlines in the grid's CRS."""
        x, y = self._xy(corners)
        return shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])

    def footprints(self, corners: Corners) -> NDArray[np.object_]:
        """(N,) outlines in longitude and latitude, anticlockwise; cut in two where they cross the antimeridian."""
        x, y = self._xy(corners)
        ring = [(0, 1), (1, 1), (1, 0), (0, 0)]  # from the south-west
        to_lonlat = Transformer.from_crs(self.grid.crs, LONLAT, always_xy=True)
        points = np.stack(
            to_lonlat.transform(
                np.stack([x[:, column] for column, _ in ring], axis=1),
                np.stack([y[:, line] for _, line in ring], axis=1),
            ),
            axis=-1,
        )
        found = np.asarray(shapely.polygons(points), object)
        for chip in np.flatnonzero(np.ptp(points[..., 0], axis=1) >= 180):
            found[chip] = shapely.from_geojson(json.dumps(outline([tuple(point) for point in points[chip].tolist()])))
        return found

    def _xy(self, corners: Corners) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 2) west and east, (N, 2) north and south, in the grid's CRS."""
        left, top = self.grid.origin
        ends = corners[:, None, :] + np.array([0, self.size])[None, :, None]
        return left + ends[..., 1] * self.grid.resolution, top - ends[..., 0] * self.grid.resolution

    def to_dict(self) -> dict[str, Any]:
        return {"grid": self.grid.to_dict(), "size": self.size}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls(Grid.from_dict(data["grid"]), int(data["size"]))


def near(corners: Corners, place: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """(N,) which chips overlap or touch (be it at a corner) a chip of that place."""
    return (np.abs(corners - place) <= size).all(axis=-1)


def distinct(corners: Corners) -> Corners:
    """Every place once, by row and column."""
    return np.unique(corners.reshape(-1, 2), axis=0)
