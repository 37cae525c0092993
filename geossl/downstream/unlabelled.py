"""A first change map that costs no label: how far each pixel moved between two dates, and what it lost.

Three ways to tell how far (:class:`~geossl.downstream.settings.ChangeSettings` chooses):

- ``embedding``: the root mean square difference of the encoder's hypercolumns, in units of their spread;
- ``cva``: the length of the change vector of the bands (Malila 1980);
- ``irmad``: that of the MAD variates, whose square follows a χ² distribution where nothing changed (Nielsen 2007).

A map of clearings takes its geometric mean with the vegetation that was lost, a map of any change takes it as
it is. The threshold is Otsu's (1979) between the two groups of scores.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import geossl
from geossl.augment import Normalize
from geossl.bands import require_same_radiometry
from geossl.downstream.data import windows
from geossl.downstream.images import DatedImages
from geossl.downstream.irmad import irmad
from geossl.downstream.relative import UnlabelledNetwork
from geossl.downstream.settings import ChangeSettings
from geossl.downstream.task import TaskCard, TrainedTask
from geossl.errors import LabelError
from geossl.legend import CHANGE, LandClass, Legend
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent

SAMPLE = 16
"""Most windows from which the threshold is estimated: some 600,000 pixels."""

FEW = 8
"""Most of these from which the spread of the movement is estimated."""

PIXELS = 200_000
"""Most pixels from which MAD variates are estimated."""

ANY = Legend((CHANGE.classes[0], LandClass(1, "change", "#d7191c")), title="Change")
"""The legend of a map of any change."""


def fit(
    images: DatedImages,
    encoder: Encoder | None,
    card: Card,
    settings: ChangeSettings,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> TrainedTask:
    """Estimate what is usual, and the threshold, from the two dates themselves.

    Parameters
    ----------
    images:
        Two dates of a collection; where they know the forest, only that is looked at.
    encoder, card:
        The pretrained encoder, which ``embedding`` alone needs, and its card, whose statistics normalise the
        images.

    Raises
    ------
    LabelError
        A date has no image, or no pixel was seen at both; or clearings are wanted and the sensor lacks the bands.
    """
    require_same_radiometry(
        card.sensor, images.sensor, us=f"the encoder {card.id}", them=f"the collection {images.collection.name}"
    )
    if settings.method == "embedding" and encoder is None:
        raise LabelError("embedding distance needs an encoder", "pretrain one, or set `settings.method: irmad`")
    network = UnlabelledNetwork(settings.method, settings.of, encoder, images.sensor).eval()
    normalize = Normalize.from_statistics(card.statistics)
    sample = _sample(images, seed)
    with torch.inference_mode():
        x = normalize(torch.from_numpy(sample.image), torch.from_numpy(sample.valid))  # (N, 2, C, S, S)
        asked = torch.from_numpy(sample.asked)
        for date in (0, 1):
            pixels = x[:, date].movedim(1, -1)[asked]
            network.shift[date] = pixels.mean(dim=0)
            network.spread[date] = pixels.std(dim=0).clamp(min=1e-6)
        if settings.method == "irmad":
            pairs = network.relative(x).movedim(2, -1).movedim(1, -2)[asked]  # (pixels, 2, C)
            some = torch.from_numpy(np.random.default_rng(seed).permutation(len(pairs))[:PIXELS])
            network.set_variates(irmad(*(date.numpy() for date in pairs[some].unbind(1))))
        squares, count = torch.zeros_like(network.feature_spread), 0
        few, steps = x[:FEW], min(FEW, len(x)) + len(x)
        for i in range(len(few)):
            moved = network.movement(network.relative(x[i : i + 1]))[0].movedim(0, -1)[asked[i]]
            squares += moved.square().sum(dim=0)
            count += len(moved)
            progress("change without labels", i + 1, steps)
        if settings.method != "irmad":  # whose variates have unit variance where nothing changed
            network.feature_spread.copy_((squares / max(count, 1)).sqrt().clamp(min=1e-6))
        scores = []
        for i in range(len(x)):
            scores.append(network.score(x[i : i + 1])[0][asked[i]].numpy())
            progress("change without labels", len(few) + i + 1, steps)
        network.threshold.fill_(_threshold(np.concatenate(scores)))
    looks = network.encoder is not None
    return TrainedTask.create(
        TaskCard(
            task="change",
            legend=CHANGE if settings.of == "clearing" else ANY,
            sensor=images.sensor,
            statistics=card.statistics,
            architecture=card.architecture,
            head="unlabelled",
            features="encoder" if looks else "statistics",
            encoder=card.id if looks else "",
            labels={},
            snapshot=images.collection.snapshot,
            settings=settings.model_dump(mode="json"),
            validation=None,
            notes=("made without labels: look at it before you believe it",),
            code_version=geossl.__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ),
        network,
    )


@dataclass(frozen=True)
class _Sample:
    """N windows spread over the tiles."""

    image: NDArray[Any]
    """(N, 2, C, S, S) stored numbers."""
    valid: NDArray[np.bool_]
    """(N, 2, S, S) where each date was seen."""
    asked: NDArray[np.bool_]
    """(N, S, S) where both were, and where change is asked for."""


def _sample(images: DatedImages, seed: int) -> _Sample:
    """Up to :data:`SAMPLE` windows."""
    rng = np.random.default_rng(seed)
    tiles = rng.permutation(images.require_dates())[:SAMPLE].tolist()
    found: list[tuple[NDArray[Any], ...]] = []
    for tile_id in tiles:
        image, valid = images.images(tile_id)
        asked = images.asked(tile_id)
        here = list(windows(image, np.concatenate([valid, asked[None]]), asked))
        few = rng.permutation(len(here))[: -(-SAMPLE // len(tiles))]
        found.extend((here[i].image.copy(), here[i].valid[:2].copy(), here[i].valid[2].copy()) for i in few)
    found = [found[i] for i in rng.permutation(len(found))]  # the first ones from all over
    if not found:
        raise LabelError(
            f"no pixel of {images.collection.name!r} was seen at both dates"
            + (" and is forest before" if images.forest is not None else ""),
            "choose other dates" + (", or another `forest`" if images.forest is not None else ""),
        )
    return _Sample(*(np.stack(part) for part in zip(*found, strict=True)))


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
