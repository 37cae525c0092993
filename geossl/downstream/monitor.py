"""What one scene says of forest: the probability of each pixel that none stands there.

A scene is told apart by itself. A discriminant (shrinkage LDA on encoder hypercolumns and multi-scale
statistics) learns from the scene's own pixels what forest and other land look like *in it*, with the cover
before monitoring began as its labels. So season, haze and light, which a model trained on other dates would
take for change, are the same for both sides; it is the normalisation by the forest around a pixel of
Hamunyela et al. (2016, Remote Sensing 8, 267), carried from one index to all features, and its densities of
forest and non-forest are those that Reiche et al. (2018) update with. Ground cleared meanwhile is a few wrong
labels among many; held-out blocks of the scene say how sure it may be (Guo et al. 2017).

Without labels, forest before monitoring is what stayed green: the least normalised burn ratio of its earlier
images, parted in two by Otsu's threshold.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geossl
from geossl import probe
from geossl.bands import Sensor, Statistics, require_same_radiometry
from geossl.cube.collection import Collection
from geossl.downstream.data import CONTEXT, CORE, quotas, windows
from geossl.downstream.describe import by_encoder, by_statistics
from geossl.downstream.finetune import temperature
from geossl.downstream.networks import LinearNetwork, vegetation_bands
from geossl.downstream.task import TaskCard, TrainedTask
from geossl.downstream.unlabelled import otsu
from geossl.errors import LabelError
from geossl.imagery.clouds import is_clear
from geossl.legend import NO_LABEL, LandClass, Legend
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

FOREST = Legend((LandClass(0, "forest", "#1f6b3a"), LandClass(1, "no forest", "#d9d9d9")), title="Forest")
"""What a look tells apart, and the cover that is found without labels."""

WINDOWS = 64
"""Most windows of a scene that its discriminant learns from."""

PIXELS = 4_000
"""Most pixels that it learns from, balanced over the classes."""

ENOUGH = 100
"""Fewer pixels of forest, or of anything else, teach nothing."""

_SHRINKAGE = 0.1

Cover = Callable[[str], NDArray[np.uint8]]
"""Tile id → (H, W) class codes before monitoring, NO_LABEL where unknown."""


@dataclass(frozen=True)
class LookTask:
    """A scene's discriminant, as the map room uses models: two classes, forest and no forest."""

    task: TrainedTask
    """Tells all classes of the cover apart, which are held equally likely."""
    forest: tuple[int, ...]
    """Positions of those that are forest."""

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def legend(self) -> Legend:
        return FOREST

    @property
    def sensor(self) -> Sensor:
        return self.task.sensor

    @property
    def statistics(self) -> Statistics:
        return self.task.statistics

    @property
    def window(self) -> int:
        return self.task.window

    @property
    def margin(self) -> int:
        return self.task.margin

    @property
    def dates(self) -> int:
        return 1

    def predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(B, 2, H, W): forest or not, both equally likely beforehand; 0 where not valid."""
        found = self.task.predict(image, valid)
        forest = found[:, list(self.forest)].sum(axis=1) / len(self.forest)
        other = (found.sum(axis=1) - forest * len(self.forest)) / (found.shape[1] - len(self.forest))
        both = np.stack([forest, other.clip(min=0)], axis=1)
        total = both.sum(axis=1, keepdims=True)
        return np.divide(both, total, out=np.zeros_like(both), where=total > 0)


def fit_look(
    collection: Collection,
    steps: Mapping[str, int],
    cover: Cover,
    legend: Legend,
    forest: Sequence[str],
    encoder: Encoder,
    card: Card,
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

    Returns
    -------
    None where the image shows too little of forest, or of anything else.
    """
    require_same_radiometry(
        card.sensor, collection.sensor, us=f"the encoder {card.id}", them=f"the collection {collection.name}"
    )
    positions = tuple(legend.names.index(name) for name in forest)
    features, label, block = _sample(collection, steps, cover, legend, encoder, card, seed)
    is_forest = np.isin(label, positions)
    if min(is_forest.sum(), (~is_forest).sum()) < ENOUGH:
        return None
    make = functools.partial(probe.ShrinkageLDA, len(legend), _SHRINKAGE)
    held_out = probe.out_of_fold(make, features, label, block, lambda lda, x: lda.logits(x), seed=seed)
    lda = make().fit(features, label)
    network = LinearNetwork(copy.deepcopy(encoder), len(legend), bands=len(collection.sensor.bands), statistics=True)
    network.set_head(lda.weight, lda.bias)
    task = TrainedTask.create(
        TaskCard(
            task="landcover",
            legend=legend,
            sensor=collection.sensor,
            statistics=card.statistics,
            architecture=card.architecture,
            head="lda",
            features="encoder + statistics",
            encoder=card.id,
            labels=dict(zip(legend.names, np.bincount(label, minlength=len(legend)).tolist(), strict=True)),
            snapshot="",  # another commit is no other model
            settings={"seed": seed},
            validation=None,
            temperature=1.0 if held_out is None else max(1.0, temperature(held_out, label)),
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        network.eval(),
    )
    return LookTask(task, positions)


def _sample(
    collection: Collection,
    steps: Mapping[str, int],
    cover: Cover,
    legend: Legend,
    encoder: Encoder,
    card: Card,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]:
    """Features (N, F), class positions (N,) and window numbers (N,) of clear pixels with a known cover."""
    rng = np.random.default_rng(seed)
    describe = [by_encoder(encoder, card.statistics), by_statistics(card.statistics)]
    found: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    blocks: list[NDArray[np.int32]] = []
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
            counts = np.bincount(of_window.ravel(), minlength=NO_LABEL + 1)[: len(legend)]
            # more than its share of every class, since others lack some
            wanted = quotas(counts, 4 * PIXELS // WINDOWS)
            at = np.concatenate(
                [rng.choice(np.flatnonzero(of_window == k), n, replace=False) for k, n in enumerate(wanted) if n]
            )
            row, col = np.divmod(at, of_window.shape[1])
            features = np.concatenate([by(window.image, window.valid)[inside][:, row, col] for by in describe])
            found.append(features.T.copy())
            labels.append(of_window[row, col])
            blocks.append(np.full(at.size, len(blocks), np.int32))
    if not found:
        return np.empty((0, 1), np.float32), np.empty(0, np.uint8), np.empty(0, np.int32)
    label, block, features = np.concatenate(labels), np.concatenate(blocks), np.concatenate(found)
    counts = np.bincount(label, minlength=len(legend))
    few = np.concatenate(
        [rng.choice(np.flatnonzero(label == k), n, replace=False) for k, n in enumerate(quotas(counts, PIXELS)) if n]
    )
    return features[few], label[few], block[few]


def evergreen(collection: Collection, steps: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.uint8]]:
    """Forest without labels: codes of :data:`FOREST` (H, W) by tile, NO_LABEL where nothing was seen.

    Parameters
    ----------
    steps:
        The images of each tile before monitoring; the more seasons they are from, the better.

    Raises
    ------
    LabelError
        The sensor has no near and no short-wave infrared, or nothing was seen.
    """
    infrared, shortwave = vegetation_bands(collection.sensor)
    radiometry = collection.sensor.radiometry
    least: dict[str, NDArray[np.float32]] = {}
    for tile_id, of_tile in steps.items():
        green = np.full(collection.tile(tile_id).shape, np.inf, np.float32)
        for step in of_tile:
            image = collection.image(tile_id)
            nir, swir = (
                np.asarray(image[step, band : band + 1])[0] * np.float32(radiometry.scale)
                + np.float32(radiometry.offset)
                for band in (infrared, shortwave)
            )
            clear = is_clear(np.asarray(collection.quality(tile_id)[step])) & (nir + swir > 0)
            ratio = np.divide(nir - swir, nir + swir, out=np.zeros_like(nir), where=clear)
            np.minimum(green, ratio, out=green, where=clear)
        least[tile_id] = green
    values = [green[np.isfinite(green)][:: max(1, green.size // 100_000)] for green in least.values()]
    if not sum(map(len, values)):
        raise LabelError(f"no clear pixel of {collection.name!r} was seen before monitoring", "choose a later `since`")
    threshold = otsu(np.concatenate(values))
    return {
        tile_id: np.where(np.isfinite(green), (green <= threshold).astype(np.uint8), np.uint8(NO_LABEL))
        for tile_id, green in least.items()
    }
