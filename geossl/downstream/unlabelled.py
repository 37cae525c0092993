"""A first clearing map that costs no label: where the encoder sees change and vegetation was lost.

Each date is first brought to zero mean and unit spread per band over the area, which takes out what
differs between dates everywhere (relative normalisation, as for change vector analysis; Malila 1980).
A pixel's score is the geometric mean of

- how far its hypercolumns moved, in units of their spread, and
- how much vegetation it lost: the drop of near infrared against short-wave infrared (Key & Benson 2006),
  or the rise of the latter, whichever is less, so that new water and new crops do not count.

The threshold is Otsu's (1979) between the two groups of scores.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import geossl
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.downstream.data import windows
from geossl.downstream.images import DatedImages
from geossl.downstream.networks import UnlabelledNetwork
from geossl.downstream.task import TaskCard, TrainedTask
from geossl.errors import LabelError
from geossl.legend import CHANGE
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent

SAMPLE = 64
"""Most windows from which spreads and the threshold are estimated."""


def fit(
    images: DatedImages, encoder: Encoder, card: Card, *, seed: int = 0, progress: Progress = silent
) -> TrainedTask:
    """Estimate spreads and the threshold from the two dates themselves.

    Parameters
    ----------
    images:
        Two dates of a collection.
    encoder, card:
        The pretrained encoder and its card, whose statistics normalise the images.

    Raises
    ------
    LabelError
        The sensor has no near and no short-wave infrared, or no pixel was seen at both dates.
    """
    require_same_radiometry(
        card.sensor, images.sensor, us=f"the encoder {card.id}", them=f"the collection {images.collection.name}"
    )
    network = UnlabelledNetwork(encoder, images.sensor).eval()
    normalize = Normalize.from_statistics(card.statistics)
    pairs, seen = _sample(images, seed)
    with torch.inference_mode():
        valid = torch.from_numpy(seen)
        x = normalize(torch.from_numpy(pairs), valid)  # (N, 2, C, S, S)
        both = valid.all(dim=1)
        for date in (0, 1):
            pixels = x[:, date].movedim(1, -1)[both]
            network.shift[date] = pixels.mean(dim=0)
            network.spread[date] = pixels.std(dim=0).clamp(min=1e-6)
        squares, count = torch.zeros_like(network.feature_spread), 0
        for i in range(len(x)):
            moved = network.movement(network.relative(x[i : i + 1]))[0].movedim(0, -1)[both[i]]
            squares += moved.square().sum(dim=0)
            count += len(moved)
            progress("change without labels", i + 1, 2 * len(x))
        network.feature_spread.copy_((squares / max(count, 1)).sqrt().clamp(min=1e-6))
        scores = []
        for i in range(len(x)):
            scores.append(network.score(x[i : i + 1])[0][both[i]].numpy())
            progress("change without labels", len(x) + i + 1, 2 * len(x))
        network.threshold.fill_(_threshold(np.concatenate(scores)))
    return TrainedTask.create(
        TaskCard(
            task="change",
            legend=CHANGE,
            sensor=images.sensor,
            statistics=card.statistics,
            architecture=card.architecture,
            head="unlabelled",
            features="encoder",
            encoder=card.id,
            labels={},
            snapshot=images.collection.snapshot,
            settings={"seed": seed},
            validation=None,
            notes=("made without labels: look at it before you believe it",),
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        network,
    )


def _sample(images: DatedImages, seed: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Up to :data:`SAMPLE` windows (N, 2, C, S, S) spread over the tiles, and where each date was seen."""
    rng = np.random.default_rng(seed)
    tiles: Sequence[str] = [tile_id for tile_id in images.collection.tile_ids if images.steps(tile_id) is not None]
    found: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
    for tile_id in tiles:
        image, valid = images.images(tile_id)
        here = list(windows(image, valid, valid.all(axis=0)))
        few = rng.permutation(len(here))[: -(-SAMPLE // len(tiles))]
        found.extend((here[i].image.copy(), here[i].valid.copy()) for i in few)
    if not found:
        raise LabelError(f"no pixel of {images.collection.name!r} was seen at both dates", "choose other dates")
    pairs, seen = zip(*found, strict=True)
    return np.stack(pairs), np.stack(seen)


def otsu(values: NDArray[np.float32]) -> float:
    """The threshold that parts values (N,) into two groups of most different means (Otsu 1979)."""
    count, edges = np.histogram(values, 256)
    centre = (edges[:-1] + edges[1:]) / 2
    below, above = count.cumsum()[:-1], count[::-1].cumsum()[::-1][1:]
    sums = (count * centre).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nanargmax(apart)])


def _threshold(scores: NDArray[np.float32]) -> float:
    lost = scores[scores > 0]
    return otsu(lost) if lost.size and lost.min() < lost.max() else 1.0
