"""What one scene says of forest: the probability of each pixel that none stands there.

A scene is told apart by itself. A discriminant (shrinkage LDA on the bands and their statistics over
:data:`SCALES` pixels) learns from the scene's own pixels what forest and other land look like *in it*, with the
cover before monitoring began as its labels. So season, haze and light, which a model trained on other dates
would take for change, are the same for both sides; it is the normalisation by the forest around a pixel of
Hamunyela et al. (2016, Remote Sensing 8, 267), carried from one index to all bands, and its densities of forest
and non-forest are those that Reiche et al. (2018) update with. Ground cleared meanwhile is a few wrong labels
among many; held-out blocks of the scene say how sure it may be (Guo et al. 2017).

Its features are local on purpose. Land that is no forest lies in large pieces, so whatever looks further around
(deep features of an encoder, wide windows) learns that forest is what lies amid forest, and passes over a
clearing of a hectare.

Without labels, forest before monitoring is what stayed green: the least normalised burn ratio of its earlier
images, parted in two by Otsu's threshold.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl import probe
from geossl.bands import Sensor, Statistics
from geossl.cube.collection import Collection
from geossl.downstream.data import CONTEXT, CORE, class_counts, quotas, windows
from geossl.downstream.describe import normalized
from geossl.downstream.finetune import temperature
from geossl.downstream.neighbourhood import multi_scale
from geossl.downstream.relative import vegetation_bands
from geossl.downstream.unlabelled import otsu
from geossl.errors import LabelError
from geossl.imagery.clouds import is_clear
from geossl.legend import NO_LABEL, LandClass, Legend

FOREST = Legend((LandClass(0, "forest", "#1f6b3a"), LandClass(1, "no forest", "#d9d9d9")), title="Forest")
"""What a look tells apart, and the cover that is found without labels."""

WINDOWS = 64
"""Most windows of a scene that its discriminant learns from."""

PIXELS = 4_000
"""Most pixels that it learns from, balanced over the classes."""

TILES = 64
"""Most tiles by which forest without labels is parted from the rest."""

ENOUGH = 100
"""Fewer pixels of forest, or of anything else, teach nothing."""

SCALES = (3,)
"""Window sides in pixels of the statistics that are looked at."""

BLOCK = 32
"""Side in pixels of the blocks that are held out together to tell how sure a discriminant may be."""

_SHRINKAGE = 0.1

Cover = Callable[[str], NDArray[np.uint8]]
"""Tile id → (H, W) class codes before monitoring, NO_LABEL where unknown."""


@dataclass(frozen=True)
class LookTask:
    """A scene's discriminant, as the map room uses models: two classes, forest and no forest."""

    sensor: Sensor
    statistics: Statistics
    weight: NDArray[np.float32]
    """(K, features) of all classes of the cover, which are held equally likely."""
    bias: NDArray[np.float32]
    """(K,)"""
    temperature: float
    """What logits are divided by."""
    forest: tuple[int, ...]
    """Positions of the classes that are forest."""
    window: int = 512
    margin: int = max(SCALES) // 2
    dates: int = 1

    @functools.cached_property
    def id(self) -> str:
        content = self.weight.tobytes() + self.bias.tobytes() + repr((self.temperature, self.forest)).encode()
        return f"look-{hashlib.blake2b(content, digest_size=4).hexdigest()}"

    @property
    def legend(self) -> Legend:
        return FOREST

    def predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(B, 2, H, W): forest or not, both equally likely beforehand; 0 where not valid."""
        return np.stack([self._predict(*pair) for pair in zip(image, valid, strict=True)])

    def _predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        features = describe(image, valid, self.statistics)
        logits = np.tensordot(self.weight, features, axes=1) + self.bias[:, None, None]
        found = probe.softmax(logits / self.temperature, axis=0)
        of_forest = np.zeros(len(found), bool)
        of_forest[list(self.forest)] = True
        # of a class never seen the probability is 0; the others share their side of the odds evenly
        known = np.isfinite(self.bias)
        sides = [found[side].sum(axis=0) / np.count_nonzero(known & side) for side in (of_forest, ~of_forest)]
        return (np.stack(sides) / sum(sides) * valid).astype(np.float32)


def describe(image: NDArray[Any], valid: NDArray[np.bool_], statistics: Statistics) -> NDArray[np.float32]:
    """Stored numbers (C, H, W) → the features (F, H, W) that a look is told by."""
    return multi_scale(normalized(image[None], valid[None], statistics)[0], valid, SCALES)


def fit_look(
    collection: Collection,
    steps: Mapping[str, int],
    cover: Cover,
    legend: Legend,
    forest: Sequence[str],
    statistics: Statistics,
    *,
    seed: int = 0,
) -> LookTask | None:
    """Learn what forest looks like in one image of each of some tiles.

    Parameters
    ----------
    steps:
        The image of each tile: of one scene, or of one period.
    cover, legend:
        What was there before, and the meaning of its codes.
    forest:
        Names of the classes that are forest.
    statistics:
        Of the bands, to bring them to one scale.

    Returns
    -------
    None where the image shows too little of forest, or of anything else.
    """
    positions = tuple(legend.names.index(name) for name in forest)
    features, label, block = _sample(collection, steps, cover, legend, statistics, seed)
    is_forest = np.isin(label, positions)
    if min(is_forest.sum(), (~is_forest).sum()) < ENOUGH:
        return None
    make = functools.partial(probe.ShrinkageLDA, len(legend), _SHRINKAGE)
    held_out = probe.out_of_fold(make, features, label, block, lambda lda, x: lda.logits(x), seed=seed)
    lda = make().fit(features, label)
    sure = 1.0 if held_out is None else max(1.0, temperature(held_out, label))
    return LookTask(collection.sensor, statistics, lda.weight, lda.bias, sure, positions)


def _sample(
    collection: Collection,
    steps: Mapping[str, int],
    cover: Cover,
    legend: Legend,
    statistics: Statistics,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    """Features (N, F), class positions (N,) and block numbers (N,) of clear pixels with a known cover."""
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    blocks: list[NDArray[np.int64]] = []
    window_number = 0
    inside = np.s_[..., CONTEXT : CONTEXT + CORE, CONTEXT : CONTEXT + CORE]
    for tile_id, step in steps.items():
        clear = is_clear(np.asarray(collection.quality(tile_id)[step]))
        label = legend.to_index(cover(tile_id))
        label[~clear] = NO_LABEL
        if (label == NO_LABEL).all():
            continue
        image = np.asarray(collection.image(tile_id)[step])
        here = list(windows(image[None], clear[None], label != NO_LABEL))
        for i in np.sort(rng.permutation(len(here))[: -(-WINDOWS // len(steps))]):
            window = here[i]
            of_window = label[window.row : window.row + CORE, window.col : window.col + CORE]
            # more than its share of every class, since others lack some
            at = _balanced(of_window, len(legend), 4 * PIXELS // WINDOWS, rng)
            row, col = np.divmod(at, of_window.shape[1])
            features = describe(window.image[0], window.valid[0], statistics)[inside]
            found.append(features[:, row, col].T)
            labels.append(of_window[row, col])
            blocks.append(window_number * (CORE // BLOCK) ** 2 + row // BLOCK * (CORE // BLOCK) + col // BLOCK)
            window_number += 1
    if not found:
        return np.empty((0, 1), np.float32), np.empty(0, np.uint8), np.empty(0, np.int64)
    label, block, features = np.concatenate(labels), np.concatenate(blocks), np.concatenate(found)
    few = _balanced(label, len(legend), PIXELS, rng)
    return features[few], label[few], block[few]


def _balanced(label: NDArray[np.uint8], classes: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Where up to ``most`` labelled pixels are, numbered in reading order, as balanced over the classes as there are pixels."""
    wanted = quotas(class_counts(label, classes), most)
    return np.concatenate([rng.choice(np.flatnonzero(label == k), n, replace=False) for k, n in enumerate(wanted) if n])


def evergreen(collection: Collection, steps: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Forest without labels, tile by tile: codes of :data:`FOREST` (H, W), NO_LABEL where nothing was seen.

    Parameters
    ----------
    steps:
        The images of each tile before monitoring; the more seasons they are from, the better.

    Raises
    ------
    LabelError
        The sensor has no near and no short-wave infrared, or nothing was seen.
    """
    pair = vegetation_bands(
        collection.sensor, instead="name a land-cover task that maps forest: `forest: {task: …, classes: […]}`"
    )
    some = np.random.default_rng(0).permutation(list(steps))[:TILES]
    values = [_least_green(collection, str(tile_id), steps[tile_id], pair) for tile_id in some]
    seen = [green[np.isfinite(green)][:: max(1, green.size // 100_000)] for green in values]
    if not sum(map(len, seen)):
        raise LabelError(f"no clear pixel of {collection.name!r} was seen before monitoring", "choose a later `since`")
    threshold = otsu(np.concatenate(seen))
    for tile_id, of_tile in steps.items():
        green = _least_green(collection, tile_id, of_tile, pair)
        yield tile_id, np.where(np.isfinite(green), (green <= threshold).astype(np.uint8), np.uint8(NO_LABEL))


def _least_green(
    collection: Collection, tile_id: str, steps: Sequence[int], bands: tuple[int, int]
) -> NDArray[np.float32]:
    """(H, W) the least normalised burn ratio of some images of a tile; inf where none saw the ground."""
    radiometry = collection.sensor.radiometry
    least = np.full(collection.tile(tile_id).shape, np.inf, np.float32)
    image, quality = collection.image(tile_id), collection.quality(tile_id)
    for step in steps:
        nir, swir = (
            np.asarray(image[step, band : band + 1])[0] * np.float32(radiometry.scale) + np.float32(radiometry.offset)
            for band in bands
        )
        clear = is_clear(np.asarray(quality[step])) & (nir + swir > 0)
        ratio = np.divide(nir - swir, nir + swir, out=np.zeros_like(nir), where=clear)
        np.minimum(least, ratio, out=least, where=clear)
    return least
