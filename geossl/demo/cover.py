"""Which kind of surface lies where, and the six classes that the truth knows."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.demo.noise import Field, fractal, generator, smoothstep
from geossl.demo.parcels import Parcels, Settlement
from geossl.demo.terrain import Terrain
from geossl.legend import LandClass, Legend

LANDCOVER = Legend(
    (
        LandClass(1, "forest", "#1f6b3a"),
        LandClass(2, "cropland", "#e3b23c"),
        LandClass(3, "grassland", "#a6c36f"),
        LandClass(4, "bare", "#b5835a"),
        LandClass(5, "water", "#2b6cb0"),
        LandClass(6, "built-up", "#c0392b"),
    ),
    title="Land cover of the generated landscape",
)
"""The legend of ``labels/landcover.gpkg``."""


class Cover(IntEnum):
    """Kinds of surface; several make one class, as in nature."""

    UPLAND_FOREST = 0
    GALLERY_FOREST = 1
    DRY_FOREST = 2
    SOY_MAIZE = 3
    SOY = 4
    COTTON = 5
    PIVOT = 6
    PASTURE = 7
    POOR_PASTURE = 8
    WET_GRASS = 9
    REGROWTH = 10
    TILLED = 11
    SAND = 12
    MINE = 13
    RIVER = 14
    LAKE = 15
    TOWN = 16


CLASS_OF = np.array([1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6], np.uint8)
"""Code in :data:`LANDCOVER` of every :class:`Cover`."""

FORESTS = (Cover.UPLAND_FOREST, Cover.GALLERY_FOREST, Cover.DRY_FOREST)


def build_cover(size: int, seed: int, terrain: Terrain, parcels: Parcels, settlement: Settlement) -> NDArray[np.uint8]:
    """The kind of surface of every pixel before the first clearing; (H, W), values of :class:`Cover`."""
    rng = generator(seed, "cover")
    scale = size / 1024
    cover = _use(size, scale, rng, terrain, parcels, settlement)[parcels.index]
    _pivots(cover, size, scale, rng, terrain, settlement)
    _forest_islands(cover, size, rng)
    ragged = fractal(size, rng, beta=3.2, longest=110, shortest=6)
    steep = np.hypot(*terrain.slope)
    farmed = cover >= Cover.SOY_MAIZE
    plain = terrain.bank < (26 + 14 * ragged) * np.sqrt(scale)
    cover[plain] = np.where(
        fractal(size, rng, beta=3.0, longest=110)[plain] > 0.15, Cover.WET_GRASS, Cover.GALLERY_FOREST
    )
    cover[(terrain.stream < 4.5 + 1.8 * ragged) & farmed] = Cover.GALLERY_FOREST
    cover[(steep > np.quantile(steep, 0.985)) & farmed] = Cover.REGROWTH
    cover[settlement.density > 0.12] = Cover.TOWN
    _mine(cover, size, scale, rng, settlement)
    cover[(terrain.bank >= 0) & (terrain.bank < terrain.sandbar * (1 + 0.3 * ragged)) & (terrain.sandbar > 1.5)] = (
        Cover.SAND
    )
    cover[terrain.lake] = Cover.LAKE
    cover[terrain.bank < 0] = Cover.RIVER
    return cover


def _use(
    size: int, scale: float, rng: np.random.Generator, terrain: Terrain, parcels: Parcels, settlement: Settlement
) -> NDArray[np.uint8]:
    """What every plot is used for: forest where it is steep and far, crops where it is flat and near."""
    regional = parcels.mean(fractal(size, rng, beta=3.2, longest=700 * scale))
    steep = parcels.mean(np.hypot(*terrain.slope))
    steep = (steep - steep.mean()) / steep.std()
    near = -parcels.mean(np.log1p(settlement.access))
    near = (near - near.mean()) / near.std()
    chance = rng.standard_normal((3, parcels.count)).astype(np.float32)
    area = np.bincount(parcels.index.ravel(), minlength=parcels.count)

    use = np.full(parcels.count, Cover.UPLAND_FOREST, np.uint8)
    use[regional + 0.5 * chance[1] < -0.6] = Cover.DRY_FOREST
    open_rank = _rank(0.75 * regional - 0.35 * steep + 0.7 * near + 0.5 * chance[0], area)
    crop_rank = _rank(0.5 * regional - 0.9 * steep + 0.5 * chance[1], np.where(open_rank > 0.44, area, 0))
    cleared = open_rank > 0.44
    kinds = rng.choice([Cover.SOY_MAIZE, Cover.SOY, Cover.COTTON], parcels.count, p=[0.5, 0.3, 0.2])
    grass = rng.choice([Cover.PASTURE, Cover.POOR_PASTURE, Cover.REGROWTH], parcels.count, p=[0.46, 0.3, 0.24])
    use[cleared] = np.where(crop_rank > 0.44, kinds, grass)[cleared]
    use[cleared & (_rank(chance[2] - 1e-3 * area, np.where(cleared, area, 0)) > 0.87)] = Cover.TILLED
    return use


def _rank(score: Field, weight: NDArray[np.integer]) -> Field:
    """Share of the total weight that scores lower: the area-weighted quantile of every plot."""
    order = np.argsort(score)
    rank = np.empty(len(score), np.float32)
    rank[order] = np.cumsum(weight[order]) / weight.sum()
    return rank


def _pivots(
    cover: NDArray[np.uint8],
    size: int,
    scale: float,
    rng: np.random.Generator,
    terrain: Terrain,
    settlement: Settlement,
) -> None:
    """Circular irrigated fields amid the crops, near water."""
    rows, columns = np.mgrid[:size, :size]
    crops = np.isin(cover, (Cover.SOY_MAIZE, Cover.SOY, Cover.COTTON)) & (settlement.density == 0)
    for _ in range(3):
        radius = rng.uniform(26, 42) * np.sqrt(scale)
        room = ndimage.distance_transform_edt(crops)
        y, x = np.unravel_index(np.argmax(np.minimum(room, 0.8 * radius) - 0.02 * terrain.stream), room.shape)
        circle = np.hypot(rows - y, columns - x) < radius
        cover[circle & crops] = Cover.PIVOT
        crops &= np.hypot(rows - y, columns - x) > 1.3 * radius


def _forest_islands(cover: NDArray[np.uint8], size: int, rng: np.random.Generator) -> None:
    """Remnants of forest in pastures, and natural grass and regrowth inside forest."""
    patches = fractal(size, rng, beta=3.2, longest=130, shortest=6)
    grazed = np.isin(cover, (Cover.PASTURE, Cover.POOR_PASTURE, Cover.REGROWTH))
    forest = np.isin(cover, FORESTS)
    cover[grazed & (patches > 1.35)] = Cover.DRY_FOREST
    cover[forest & (patches < -1.75)] = Cover.REGROWTH
    cover[forest & (patches < -2.15)] = Cover.WET_GRASS


def _mine(cover: NDArray[np.uint8], size: int, scale: float, rng: np.random.Generator, settlement: Settlement) -> None:
    """Two laterite pits beside roads."""
    rows, columns = np.mgrid[:size, :size]
    ragged = fractal(size, rng, beta=2.8, longest=60, shortest=5)
    sites = np.argwhere((settlement.access > 3) & (settlement.access < 14) & (settlement.density == 0))
    for y, x in sites[rng.choice(len(sites), 2, replace=False)]:
        radius = rng.uniform(16, 26) * np.sqrt(scale)
        pit = np.hypot(rows - y, 0.7 * (columns - x)) / radius + 0.22 * ragged < 1
        cover[pit] = Cover.MINE


def trees(size: int, seed: int, cover: NDArray[np.uint8], parcels: Parcels) -> Field:
    """Share of every pixel under tree crowns, 0 … 1."""
    rng = generator(seed, "trees")
    crowns = fractal(size, rng, beta=0.6, shortest=2.0)
    stands = fractal(size, rng, beta=2.4, longest=80, shortest=5)
    usual = np.array([0.95, 0.97, 0.72, 0, 0, 0, 0, 0.02, 0.06, 0.08, 0.42, 0, 0, 0.02, 0, 0, 0.16])
    spread = np.array([0.03, 0.03, 0.12, 0, 0, 0, 0, 0.05, 0.10, 0.14, 0.20, 0, 0, 0.02, 0, 0, 0.10])
    share = usual[cover] + spread[cover] * (0.7 * stands + 0.7 * crowns)
    # Single trees and hedges stand out: a few crowns cover most of their pixel.
    lone = np.isin(cover, (Cover.PASTURE, Cover.POOR_PASTURE, Cover.WET_GRASS)) & (crowns + 0.5 * stands > 2.15)
    hedge_plot = generator(seed, "hedges").random(parcels.count) < 0.45
    hedge = parcels.edge & hedge_plot[parcels.index] & (cover >= Cover.SOY_MAIZE) & (cover <= Cover.TILLED)
    share = np.where(lone, 0.75, share) + np.where(hedge & (crowns > -0.4), 0.45, 0.0)
    return np.clip(share, 0, 0.99).astype(np.float32)


def soil_brightness(size: int, seed: int, parcels: Parcels, terrain: Terrain) -> Field:
    """0 dark red latosol … 1 pale sand, for every pixel."""
    rng = generator(seed, "soil")
    regional = fractal(size, rng, beta=3.2)
    fine = fractal(size, rng, beta=1.2, longest=40)
    plot = rng.standard_normal(parcels.count).astype(np.float32)[parcels.index]
    sandy = 0.14 + 0.11 * regional + 0.05 * fine + 0.07 * plot + 0.18 * smoothstep(terrain.bank, 60, 0)
    return np.clip(sandy, 0, 1).astype(np.float32)
