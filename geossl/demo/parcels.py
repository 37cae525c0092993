"""How people cut up land: districts of rectangular fields or irregular plots, roads, and a town's streets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from geossl.demo.noise import Field, distance, fractal, generator, smoothstep
from geossl.demo.terrain import Terrain


@dataclass(frozen=True)
class Parcels:
    """A partition of the square into plots."""

    index: NDArray[np.int32]
    """Plot of each pixel, 0 … count − 1; (H, W)."""
    angle: Field
    """Direction of the plot's rows in radians; (count,)."""

    @property
    def count(self) -> int:
        return len(self.angle)

    @property
    def edge(self) -> NDArray[np.bool_]:
        """Pixels that begin another plot than their west or north neighbour; (H, W)."""
        edge = np.zeros(self.index.shape, bool)
        edge[:, 1:] |= self.index[:, 1:] != self.index[:, :-1]
        edge[1:] |= self.index[1:] != self.index[:-1]
        return edge

    def mean(self, field: NDArray[np.floating]) -> Field:
        """Mean of a (H, W) field over each plot; (count,)."""
        flat = self.index.ravel()
        total = np.bincount(flat, field.ravel(), self.count)
        return (total / np.bincount(flat, minlength=self.count)).astype(np.float32)


@dataclass(frozen=True)
class Settlement:
    """Roads and the town; all arrays are (H, W)."""

    road: Field
    """Share of the pixel that is road, 0 … 1."""
    access: Field
    """Pixels to the nearest road."""
    density: Field
    """How densely it is built: 0 outside settlements, 1 in the centre of the town."""
    street: Field
    """Share of the pixel that is street inside a settlement, 0 … 1."""


def build_parcels(size: int, seed: int) -> Parcels:
    """Districts, each with its own direction; three in four hold rectangles, the others irregular plots."""
    rng = generator(seed, "parcels")
    warp = [2.0 * fractal(size, rng, beta=3.0, longest=160, shortest=24) for _ in "yx"]
    grid = np.mgrid[:size, :size].astype(np.float32)
    rows, columns = grid[0] + warp[0], grid[1] + warp[1]
    sites = rng.uniform(0, size, (max(6, round(18 * size / 1024)), 2))
    district = _nearest(sites, rows, columns)
    index = np.zeros((size, size), np.int32)
    angles = []
    first = 0
    for k in np.unique(district):
        inside = district == k
        angle = rng.uniform(0, np.pi)
        y, x = rows[inside], columns[inside]
        if k % 4:
            plot = _rectangles(x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle), rng)
        else:
            count = int(np.ptp(y) * np.ptp(x) / 2600) + 1
            plot = _nearest(rng.uniform((y.min(), x.min()), (y.max(), x.max()), (count, 2)), y, x)
        names, plot = np.unique(plot, return_inverse=True)
        index[inside] = first + plot
        angles.append(np.full(len(names), angle, np.float32))
        first += len(names)
    return Parcels(index, np.concatenate(angles))


def _nearest(sites: NDArray[np.floating], rows: Field, columns: Field) -> NDArray[np.int64]:
    """Index of the nearest site (y, x) to every point."""
    _, nearest = cKDTree(sites).query(np.stack([rows, columns], axis=-1))
    return np.asarray(nearest, np.int64)


def _rectangles(u: Field, v: Field, rng: np.random.Generator) -> NDArray[np.int64]:
    """Strips of land cut into fields of 20–50 ha: a plot number for every point (u, v)."""
    widths = rng.uniform(30, 66, 200)
    strip = np.searchsorted(u.min() + np.cumsum(widths), u)
    lengths = rng.uniform(48, 112, 200)
    # Strips share the cuts but start at different ones, as bricks do.
    along = v - v.min() + rng.uniform(0, 900, 201)[strip]
    return strip * 1000 + np.searchsorted(np.cumsum(lengths), along)


def build_settlement(size: int, seed: int, terrain: Terrain) -> Settlement:
    """A highway from north to south, side roads at right angles, one town and two villages."""
    scale = size / 1024
    rng = generator(seed, "settlement")
    along = np.arange(size)
    sway = ndimage.gaussian_filter1d(rng.standard_normal(3 * size), 0.16 * size)[size : 2 * size]
    highway = size * (0.47 + 0.07 * sway / np.abs(sway).max())
    tilt = np.tan(rng.uniform(-0.14, 0.14))
    spacing = 150 * scale + 20
    roads = [(along, highway)]
    for y in np.arange(rng.uniform(0.2, 0.6) * spacing, size, spacing):
        for side in (-1, 1):
            reach = np.arange(0, rng.uniform(0.55, 1.0) * 0.55 * size, 0.5)
            x = np.interp(y, along, highway) + side * reach
            bend = 5 * np.sin(reach / (40 + 60 * rng.random()) + rng.uniform(0, 6.3))
            roads.append((y + side * tilt * reach + bend * np.minimum(reach / 60, 1), x))
    cells = np.zeros((size, size), bool)
    for y, x in roads:
        row, column = np.round(y).astype(int), np.round(x).astype(int)
        keep = (row >= 0) & (row < size) & (column >= 0) & (column < size)
        row, column = row[keep], column[keep]
        dry = (terrain.bank[row, column] > 3) | (len(x) == size)  # only the highway has a bridge
        cells[row[dry], column[dry]] = True
    paved = np.zeros((size, size), bool)
    paved[along, np.round(highway).astype(int)] = True
    road = np.where(cells, 0.62, 0.0) + np.where(ndimage.binary_dilation(paved), 0.35, 0.0)
    density = _density(size, scale, rng, highway, terrain)
    return Settlement(
        road=ndimage.gaussian_filter(np.minimum(road, 1.0), 0.4).astype(np.float32),
        access=distance(cells),
        density=density,
        street=_streets(size, rng),
    )


def _density(
    size: int, scale: float, rng: np.random.Generator, highway: NDArray[np.floating], terrain: Terrain
) -> Field:
    """A town and two villages as bumps with ragged edges, on dry land beside the highway."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    ragged = fractal(size, rng, beta=2.8, longest=140 * scale + 20, shortest=5)
    density = np.zeros((size, size), np.float32)
    places = rng.permutation([0.14, 0.42, 0.84]) * size
    for y, share in zip(places, (1.0, 0.42, 0.34), strict=True):
        radius = 112 * scale * share + 8
        x = np.interp(y, np.arange(size), highway) + rng.uniform(-0.5, 0.5) * radius
        far = np.hypot((rows - y) * 0.85, columns - x) / radius + 0.17 * ragged
        density = np.maximum(density, smoothstep(far, 1.0, 0.25))
    density[(terrain.bank < 8) | terrain.lake] = 0
    return density


def _streets(size: int, rng: np.random.Generator) -> Field:
    """A grid of streets around blocks of about 100 × 60 m."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0.1, 0.5)
    u = columns * np.cos(angle) + rows * np.sin(angle)
    v = rows * np.cos(angle) - columns * np.sin(angle)
    street = np.maximum(
        smoothstep(np.abs((u / 10.3) % 1 - 0.5) * 10.3, 1.0, 0.2),
        smoothstep(np.abs((v / 6.4) % 1 - 0.5) * 6.4, 0.9, 0.1),
    )
    avenue = smoothstep(np.abs((u / 61.8) % 1 - 0.5) * 61.8, 1.8, 0.6)
    return np.maximum(0.7 * street, avenue).astype(np.float32)
