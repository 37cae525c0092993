"""The landscape itself: everything that does not depend on the day, and its surface on a given day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geossl.demo.clearings import Clearing, fell, felled_on
from geossl.demo.cover import CLASS_OF, FORESTS, Cover, build_cover, soil_brightness, trees
from geossl.demo.noise import Field, fractal, generator, smoothstep
from geossl.demo.parcels import Parcels, Settlement, build_parcels, build_settlement
from geossl.demo.seasons import after_clearing, crop_cover, grass_cover, leaf_fall, wetness
from geossl.demo.terrain import Terrain, build_terrain

_PASTURE_AFTER = 240
"""Days after which a clearing counts as grassland; before, it is bare."""


@dataclass(frozen=True)
class World:
    """One generated square; arrays are (H, W)."""

    size: int
    seed: int
    terrain: Terrain
    parcels: Parcels
    settlement: Settlement
    cover: NDArray[np.uint8]
    """Kind of surface before the first clearing."""
    clearings: list[Clearing]
    felled: NDArray[np.int32]
    """Ordinal day of clearing."""
    tree: Field
    soil: Field
    crown_texture: Field
    """Light and dark crowns, standard deviation 1."""
    vigour: Field
    """How well plants grow here, about 1."""

    def land_cover(self, day: date) -> NDArray[np.uint8]:
        """Codes of :data:`geossl.demo.cover.LANDCOVER` on a day."""
        codes = CLASS_OF[self.cover]
        age = day.toordinal() - self.felled.astype(np.int64)
        codes = np.where((age >= 0) & (age < _PASTURE_AFTER), CLASS_OF[Cover.TILLED], codes)
        return np.where(age >= _PASTURE_AFTER, CLASS_OF[Cover.PASTURE], codes).astype(np.uint8)


def build_world(size: int, seed: int) -> World:
    """The landscape of a seed, ``size`` pixels of 10 m wide."""
    terrain = build_terrain(size, seed)
    parcels = build_parcels(size, seed)
    settlement = build_settlement(size, seed, terrain)
    cover = build_cover(size, seed, terrain, parcels, settlement)
    clearings = fell(size, seed, np.isin(cover, FORESTS), settlement.access)
    rng = generator(seed, "texture")
    crowns = fractal(size, rng, beta=0.9, longest=9) + np.float32(0.6) * fractal(size, rng, beta=2.2, longest=90)
    plot = rng.normal(0, 0.07, parcels.count).astype(np.float32)
    vigour = 1 + plot[parcels.index] + 0.07 * fractal(size, rng, beta=2.2, longest=120) + 0.03 * _rows(parcels)
    return World(
        size=size,
        seed=seed,
        terrain=terrain,
        parcels=parcels,
        settlement=settlement,
        cover=cover,
        clearings=clearings,
        felled=felled_on(size, clearings),
        tree=trees(size, seed, cover, parcels),
        soil=soil_brightness(size, seed, parcels, terrain),
        crown_texture=(crowns / crowns.std()).astype(np.float32),
        vigour=vigour.astype(np.float32),
    )


def _rows(parcels: Parcels) -> Field:
    """Tracks of machines along the rows of every plot, −1 … 1, one every 45 m."""
    rows, columns = np.mgrid[: parcels.index.shape[0], : parcels.index.shape[1]].astype(np.float32)
    angle = parcels.angle[parcels.index]
    across = rows * np.cos(angle) - columns * np.sin(angle)
    return np.cos(2 * np.pi * across / 4.5).astype(np.float32)


def surface(world: World, day: date) -> dict[str, Field]:
    """Share of every material of :data:`geossl.demo.spectra.ENDMEMBERS` in every pixel on a day."""
    cover, wet = world.cover, wetness(day)
    after = after_clearing(day, world.felled)
    left = 1 - after["cleared"]

    water, kinds = _water(world, wet)
    built = _built(world, left)
    road = world.settlement.road * (1 - water) * (cover != Cover.TOWN)
    wall_shade = built.pop("shade")
    hard = np.clip(water + wall_shade + sum(built.values()) + road, 0, 1)
    open_land = 1 - hard

    tree = world.tree * left * open_land
    fall = leaf_fall(day)[cover]
    crown_shade = np.clip(0.10 + 0.075 * world.crown_texture, 0.0, 0.5)
    ground = open_land - tree

    plot_kind = _plot_kind(world)
    crop_green, crop_dry = crop_cover(day, world.seed, world.parcels, plot_kind)
    is_crop = (cover >= Cover.SOY_MAIZE) & (cover <= Cover.PIVOT) & (left > 0)
    grass_green, grass_dry = grass_cover(day, cover)
    index = world.parcels.index
    green = np.where(is_crop, crop_green[index], left * grass_green + after["green"])
    # Rainy weeks differ from year to year, so grass does too.
    yearly = 1 + 0.16 * np.tanh(generator(world.seed, "year", day.year, day.month).normal())
    green = np.clip(green * np.where(is_crop, world.vigour, 1 + yearly * 1.6 * (world.vigour - 1)), 0, 1)
    dry = np.minimum(np.where(is_crop, crop_dry[index], left * grass_dry + after["dry"]), 1 - green)
    char = np.minimum(after["char"], 1 - green - dry)
    bare = ground * (1 - green - dry - char)
    sand = np.where(cover == Cover.SAND, 0.92, np.where(cover == Cover.MINE, 0.42 + 0.4 * world.soil, world.soil))
    damp = 1 - 0.22 * wet
    return kinds | built | {
        "crown": tree * (1 - fall) * (1 - crown_shade),
        "shade": tree * crown_shade + wall_shade,
        "crop leaf": ground * green * is_crop,
        "grass leaf": ground * green * ~is_crop,
        "dry vegetation": tree * fall * (1 - crown_shade) + ground * dry,
        "char": ground * char,
        "red soil": (bare * (1 - sand) + 0.85 * road) * damp,
        "sand": (bare * sand + 0.15 * road) * damp,
    }  # fmt: skip


def _plot_kind(world: World) -> NDArray[np.uint8]:
    """The crop of each plot (a pivot covers parts of plots and wins there); (count,)."""
    kind = np.zeros(world.parcels.count, np.uint8)
    crops = (world.cover >= Cover.SOY_MAIZE) & (world.cover <= Cover.PIVOT)
    kind[world.parcels.index[crops]] = world.cover[crops]
    return kind


def _water(world: World, wet: float) -> tuple[Field, dict[str, Field]]:
    """Share of water, whole and by kind; the river rises over its bars, reservoirs shrink."""
    rise = 1.6 * wet - 0.6
    river = smoothstep(world.terrain.bank, 0.6 + rise, -0.6 + rise)
    lake = ndimage.gaussian_filter((world.cover == Cover.LAKE).astype(np.float32), 0.5)
    brook = 0.10 * (world.terrain.stream < 0.8)
    total = np.clip(river + lake + brook, 0, 1)
    muddy = np.clip(0.25 + 0.6 * wet, 0, 1) * np.clip(river + brook, 0, 1)
    return total, {"river water": np.minimum(muddy, total), "lake water": np.maximum(total - muddy, 0)}


def _built(world: World, left: Field) -> dict[str, Field]:
    """Roofs and pavements of the town; every block has its own roofs."""
    rng = generator(world.seed, "built")
    size = world.size
    lots = fractal(size, rng, beta=0.5, shortest=2.6)
    blocks = fractal(size, rng, beta=1.8, longest=60, shortest=8)
    density = world.settlement.density
    town = (world.cover == Cover.TOWN) & (left > 0)
    street = town * world.settlement.street * 0.85
    roofs = town * (1 - street) * np.clip(0.30 + 0.42 * density + 0.16 * lots, 0, 0.92)
    metal = np.clip(lots + 0.5 * blocks - 2.1, 0, 1)
    cement = np.clip(0.30 + 0.3 * blocks + 0.15 * lots, 0, 1) * (1 - metal)
    shadow = 0.10 * roofs * density
    roofs = roofs - shadow
    return {
        "asphalt": (street * (0.45 + 0.5 * density)).astype(np.float32),
        "metal roof": (roofs * metal).astype(np.float32),
        "fibre cement": (roofs * cement).astype(np.float32),
        "clay tile": (roofs * (1 - metal - cement)).astype(np.float32),
        "shade": shadow.astype(np.float32),
    }
