"""From stored images of one window to features a pixel: by statistics, by an encoder, by both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.augment import Normalize
from geossl.bands import Statistics
from geossl.downstream import neighbourhood
from geossl.downstream.data import Describe
from geossl.downstream.finetune import device
from geossl.features import hypercolumns
from geossl.nets.encoder import Encoder

DIFFERENCE_SCALES = (3, 5, 9)
"""Window sides in pixels of what is said of differences between dates."""


def normalized(image: NDArray[Any], valid: NDArray[np.bool_], statistics: Statistics) -> NDArray[np.float32]:
    """Stored images (D, C, H, W) → float32 of mean 0 and deviation 1 a band, 0 where not valid (D, H, W)."""
    normalize = Normalize.from_statistics(statistics)
    return normalize(torch.from_numpy(image), torch.from_numpy(valid)).numpy()


def by_statistics(statistics: Statistics) -> Describe:
    """Multi-scale statistics of the first date; the bands themselves come first, then scale by scale."""

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        return neighbourhood.multi_scale(normalized(image[:1], valid[:1], statistics)[0], valid[0])

    return describe


def by_encoder(encoder: Encoder, statistics: Statistics) -> Describe:
    """Hypercolumns of the first date, fine to coarse."""
    where = device()

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        x = torch.from_numpy(normalized(image[:1], valid[:1], statistics)).to(where)
        with torch.inference_mode():
            return hypercolumns(encoder.to(where).eval(), x)[0].float().cpu().numpy()

    return describe


def by_encoder_difference(encoder: Encoder, statistics: Statistics) -> Describe:
    """How far each feature of the hypercolumns moved between two dates, fine to coarse."""
    where = device()

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        x = torch.from_numpy(normalized(image, valid, statistics)).to(where)
        with torch.inference_mode():
            before, after = hypercolumns(encoder.to(where).eval(), x)
            # in place: of a large encoder, one more copy of a window is a gigabyte
            return after.sub_(before).abs_().float().cpu().numpy()

    return describe


def by_statistics_difference(statistics: Statistics) -> Describe:
    """How far each band moved between two dates, in each pixel and over windows of several sizes."""

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        before, after = normalized(image, valid, statistics)
        return neighbourhood.multi_scale(np.abs(after - before), valid.all(axis=0), DIFFERENCE_SCALES)

    return describe
