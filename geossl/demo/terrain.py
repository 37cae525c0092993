"""Relief and the water that shapes it: one meandering river, streams, oxbow lakes and a reservoir."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.demo.noise import Field, distance, fractal, generator, smoothstep

_COARSE = 4
"""Streams are routed on cells of this many pixels."""


@dataclass(frozen=True)
class Terrain:
    """What relief and water say about every pixel; all arrays are (H, W)."""

    elevation: Field
    """Metres above the sea."""
    bank: Field
    """Pixels to the bank of the main river; negative in its water."""
    stream: Field
    """Pixels to the nearest stream."""
    lake: NDArray[np.bool_]
    """Oxbow lakes and the reservoir."""
    sandbar: Field
    """Pixels over which a point bar reaches into the inside of a bend; 0 elsewhere."""

    @property
    def slope(self) -> tuple[Field, Field]:
        """Rise in metres per pixel southwards and eastwards."""
        south, east = np.gradient(self.elevation)
        return np.asarray(south, np.float32), np.asarray(east, np.float32)


def build_terrain(size: int, seed: int) -> Terrain:
    """The relief of a square of ``size`` pixels of 10 m."""
    scale = size / 1024
    rng = generator(seed, "terrain")
    bank, bend = _river(size, scale, rng)
    hills = fractal(size, rng, beta=4.6, longest=300 * scale + 30, shortest=8)
    rough = fractal(size, rng, beta=3.0, longest=40, shortest=5)
    valley = smoothstep(bank, 4, 260 * scale)
    height = 165 + 45 * valley * (1 + np.float32(0.45) * hills) + 2.0 * np.sqrt(valley) * rough
    elevation: Field = height.astype(np.float32)
    filled, parent, order = _route(elevation[_COARSE // 2 :: _COARSE, _COARSE // 2 :: _COARSE])
    area = _accumulate(parent, order)
    stream = _streams(size, parent, area, rng)
    lake = _oxbows(size, scale, bank, rng) | _reservoir(size, filled, parent, order, area, bank)
    return Terrain(
        elevation=elevation,
        bank=bank,
        stream=stream,
        lake=lake & (bank > 2),
        sandbar=(7 * np.sqrt(scale) * smoothstep(bend, 0.25, 0.9)).astype(np.float32),
    )


def _river(size: int, scale: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Distance to the bank, and how strongly each pixel lies on the inside of a bend (0 … 1).

    A sine-generated curve (Langbein & Leopold 1966) whose swing and wavelength wander.
    """
    count = 6 * size
    s = np.arange(count) * 0.5  # pixels along the river
    wander = ndimage.gaussian_filter1d(rng.standard_normal((2, count)), 160 * scale + 40, mode="reflect")
    wander /= wander.std(axis=1, keepdims=True)
    phase = 2 * np.pi * np.cumsum(0.5 * np.exp(0.25 * wander[0])) / (400 * scale + 40) + rng.uniform(0, 2 * np.pi)
    direction = (1.4 + 0.15 * wander[1]) * np.sin(phase)
    x, y = np.cumsum(0.5 * np.cos(direction)), np.cumsum(0.5 * np.sin(direction))
    turn = np.arctan2(y[-1], x[-1]) - rng.uniform(0.15, 0.3)  # flows towards the east, a little northwards
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    x, y = x - 0.12 * size, y + rng.uniform(0.5, 0.62) * size

    halfwidth = 7.0 * np.sqrt(scale) * (1 + 0.18 * np.clip(wander[1], -1.5, 1.5))
    bend = np.gradient(np.unwrap(np.arctan2(np.gradient(y), np.gradient(x))), s)
    bend = ndimage.gaussian_filter1d(bend, 20)
    bend /= np.abs(bend).max()
    row, column = np.round(y).astype(int), np.round(x).astype(int)
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    nearest = np.full((size, size), -1, np.int32)
    nearest[row[inside], column[inside]] = np.flatnonzero(inside)
    away, (i, j) = ndimage.distance_transform_edt(nearest < 0, return_indices=True)
    along = nearest[i, j]
    rows, columns = np.mgrid[:size, :size]
    ahead_x, ahead_y = np.gradient(x)[along], np.gradient(y)[along]
    side = np.sign(ahead_x * (rows - y[along]) - ahead_y * (columns - x[along]))
    return (away - halfwidth[along]).astype(np.float32), np.clip(side * bend[along], 0, 1).astype(np.float32)


def _route(elevation: Field) -> tuple[Field, NDArray[np.int64], NDArray[np.int64]]:
    """Priority-flood (Barnes et al. 2014): every cell drains to the edge.

    Returns
    -------
    filled, parent, order
        Elevation without pits, the flat index each cell drains to (itself at the edge), and the
        flat indices from the mouths upstream.
    """
    n = elevation.shape[0]
    filled = elevation.astype(np.float32).ravel().tolist()
    parent = list(range(n * n))
    seen = bytearray(n * n)
    edge = [k for k in range(n * n) if k < n or k >= n * n - n or k % n in (0, n - 1)]
    heap = [(filled[k], k) for k in edge]
    for k in edge:
        seen[k] = 1
    heapq.heapify(heap)
    order = []
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    while heap:
        height, k = heapq.heappop(heap)
        order.append(k)
        row, column = divmod(k, n)
        for dy, dx in steps:
            y, x = row + dy, column + dx
            if 0 <= y < n and 0 <= x < n and not seen[q := y * n + x]:
                seen[q] = 1
                parent[q] = k
                filled[q] = max(filled[q], height)
                heapq.heappush(heap, (filled[q], q))
    return np.array(filled, np.float32).reshape(n, n), np.array(parent), np.array(order)


def _accumulate(parent: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many cells drain through each cell (flat)."""
    area = [1] * len(parent)
    target = parent.tolist()
    for k in order[::-1].tolist():
        if target[k] != k:
            area[target[k]] += area[k]
    return np.array(area)


def _streams(size: int, parent: NDArray[np.int64], area: NDArray[np.int64], rng: np.random.Generator) -> Field:
    """Distance to the streams, drawn as lines that wind a little."""
    n = size // _COARSE
    wet = np.flatnonzero(area > max(30, 0.0035 * n * n))
    position = np.stack(np.divmod(np.arange(n * n), n), axis=-1) * float(_COARSE) + _COARSE / 2
    smooth = (position + position[parent] + position[parent[parent]]) / 3
    t = np.linspace(0, 1, 2 * _COARSE)[None, :, None]
    points = (smooth[wet][:, None] * (1 - t) + smooth[parent[wet]][:, None] * t).reshape(-1, 2)
    winding = np.stack([fractal(size, rng, beta=3.0, longest=60, shortest=12) for _ in "yx"], axis=-1)
    y, x = np.clip(points.astype(int), 0, size - 1).T
    y, x = np.clip((points + 2.2 * winding[y, x]).round().astype(int), 0, size - 1).T
    mask = np.zeros((size, size), bool)
    mask[y, x] = True
    return distance(mask)


def _oxbows(size: int, scale: float, bank: Field, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Arcs of still water that the river left behind in its plain."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    mask = np.zeros((size, size), bool)
    plain = np.argwhere((bank > 22 * scale) & (bank < 60 * scale))
    for y, x in plain[rng.choice(len(plain), 4, replace=False)]:
        radius, half = rng.uniform(20, 38) * scale, rng.uniform(3.0, 4.5) * np.sqrt(scale)
        middle, width = rng.uniform(-np.pi, np.pi), rng.uniform(0.7, 1.5)
        angle = np.arctan2(rows - y, columns - x) - middle
        angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)
        taper = np.clip(1 - (angle / width) ** 4, 0, 1)
        mask |= np.abs(np.hypot(rows - y, columns - x) - radius) < half * taper
    return mask


def _reservoir(
    size: int,
    filled: Field,
    parent: NDArray[np.int64],
    order: NDArray[np.int64],
    area: NDArray[np.int64],
    bank: Field,
) -> NDArray[np.bool_]:
    """The valley above a small dam, drowned to the level at which about 0.6 % of the land is water."""
    n = size // _COARSE
    far = bank[_COARSE // 2 :: _COARSE, _COARSE // 2 :: _COARSE].ravel() > 0.09 * size
    # Few places suit a dam: a catchment that is neither a rill nor half of the map.
    fit = np.abs(np.log(area / (0.03 * n * n))) + np.where(far, 0.0, 10.0)
    dam = int(np.argmin(fit))
    upstream = [False] * (n * n)
    target = parent.tolist()
    upstream[dam] = True
    for k in order.tolist():
        if upstream[target[k]]:
            upstream[k] = True
    heights = np.where(np.array(upstream), filled.ravel(), np.inf)
    level = np.partition(heights, int(0.006 * n * n))[int(0.006 * n * n)]
    drowned = ndimage.zoom(
        (heights.reshape(n, n) <= level).astype(np.float32), _COARSE, order=1, grid_mode=True, mode="nearest"
    )
    return ndimage.gaussian_filter(drowned, 1.5) > 0.5
