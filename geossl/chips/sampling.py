"""How often a chip is seen: by how clear it is, how rare ground like it is, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geom import Geometry

from geossl.chips.index import ChipIndex, centres
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.errors import SettingsError, StoreError
from geossl.imagery.clouds import is_clear

KINDS = 32
"""Kinds of ground that are told apart."""

MOST = 4.0
"""Times the average at most that a chip is seen because its kind is rare."""

_ROUNDS = 20
_STEPS = 64  # of a look, in a standard deviation
_AT_ONCE = 256  # chips in memory


def weigh(
    reader: ChipReader,
    index: ChipIndex,
    *,
    share: NDArray[np.float32] | None = None,
    clear: float = 0.0,
    diversity: float = 0.0,
    regions: Sequence[tuple[Geometry, float]] = (),
    seed: int = 0,
) -> NDArray[np.float64] | None:
    """(N,) weights ≥ 0 of the chips; None where all are alike. Equal on all ranks.

    Parameters
    ----------
    share:
        (N,) clear share of each chip, by default the index's, which knows whole chunks.
    clear, diversity:
        See :class:`~geossl.chips.settings.SamplingSettings`. For diversity, one chip of every window is read.
    regions:
        Areas in any CRS, and the weight of the chips whose centre lies there.

    Raises
    ------
    SettingsError
        No chip is left with a weight above 0.
    """
    if not (clear or diversity or regions):
        return None
    weights = np.ones(len(index))
    if not len(index):
        return weights
    if clear:
        weights *= np.power(index.clear if share is None else share, clear, dtype=np.float64)
    if diversity:
        kind = kinds(looks(reader, index), KINDS, seed)
        rare = (len(kind) / np.bincount(kind))[kind] ** diversity
        weights *= np.minimum(rare / rare.mean(), MOST)
    for area, weight in regions:
        weights[within(reader.collection, index, area)] *= weight
    if not weights.any():
        raise SettingsError("no chip has a weight above 0", "give some region a weight, or lower the power of clear")
    return weights


def within(collection: Collection, index: ChipIndex, area: Geometry) -> NDArray[np.bool_]:
    """(N,) whether a chip's centre lies in an area."""
    x, y = centres(collection, index).T
    inside: NDArray[np.bool_] = shapely.contains_xy(area.to_crs(collection.grid.crs).geom, x, y)
    return inside


def looks(reader: ChipReader, index: ChipIndex) -> NDArray[np.int64]:
    """(N, 2 C) mean and spread of each band in 64ths of its standard deviation in the collection, over clear pixels.

    Chips of one window look alike here: only the clearest is read.
    """
    statistics = reader.collection.statistics
    if statistics is None:
        raise StoreError(f"collection {reader.collection.name!r} has no statistics yet", "run `geossl stats` first")
    window = np.unique(np.stack([index.tile, index.row, index.col], axis=1), axis=0, return_inverse=True)[1]
    order = np.lexsort((-index.clear, window))
    clearest = order[np.flatnonzero(np.diff(window[order], prepend=-1))]
    mean, std = np.array(statistics.mean), np.maximum(statistics.std, 1e-9)
    found = np.zeros((len(clearest), 2, len(mean)))
    for start in range(0, len(clearest), _AT_ONCE):
        pixels = reader.read(index, clearest[start : start + _AT_ONCE])
        for place, (image, quality) in enumerate(zip(pixels.image, pixels.quality, strict=True), start):
            seen = image[:, is_clear(quality)]
            if seen.size:
                found[place] = (seen.mean(axis=1) - mean) / std, seen.std(axis=1) / std
    # whole numbers: sums of them are the same on every machine, in whatever order
    return np.rint(found.reshape(len(clearest), -1) * _STEPS).astype(np.int64)[window]


def kinds(look: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """(N,) which of at most ``count`` kinds each look (N, D) is of: k-means in whole numbers.

    scikit-learn's adds up fractions in threads, in an order of their own: ranks, or a run and the one that goes
    on after it, could come to weigh chips differently and would see others.
    """
    rng = np.random.default_rng(seed)
    # k-means++: the next centre is likely far from all so far, or a rare kind would go unseen
    centre = look[[rng.integers(len(look))]]
    distance = _distance(look, centre[0])
    while len(centre) < count and distance.any():
        drawn = np.searchsorted(distance.cumsum(), rng.integers(distance.sum()), side="right")
        centre = np.concatenate([centre, look[[drawn]]])
        distance = np.minimum(distance, _distance(look, centre[-1]))
    kind = _nearest(look, centre)
    for _ in range(_ROUNDS):
        size = np.bincount(kind, minlength=len(centre))
        total = np.zeros_like(centre)
        np.add.at(total, kind, look)
        centre = np.where(size[:, None] > 0, total // np.maximum(size, 1)[:, None], centre)
        before, kind = kind, _nearest(look, centre)
        if (kind == before).all():
            break
    return kind


def _distance(look: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) squared."""
    distance: NDArray[np.int64] = ((look - place) ** 2).sum(axis=1)
    return distance


def _nearest(look: NDArray[np.int64], centre: NDArray[np.int64]) -> NDArray[np.int64]:
    best, kind = np.full(len(look), np.iinfo(np.int64).max), np.zeros(len(look), np.int64)
    for number, place in enumerate(centre):
        distance = _distance(look, place)
        kind[distance < best] = number
        best = np.minimum(best, distance)
    return kind
