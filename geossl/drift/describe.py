"""A scene in numbers: what its bands and its embeddings are like at the same places every time.

Places are small windows that stay the same from scene to scene, so that a difference between two scenes is
never one between two grounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 64
"""Side of a place in pixels."""

MIN_CLEAR = 0.6
"""Least clear share of a place that is described."""


@dataclass(frozen=True)
class Description:
    """One scene at P of the places; its parts are in the places' order."""

    scene: str
    time: np.datetime64
    place: NDArray[np.int64]
    """(P,) ids, ascending."""
    mean: NDArray[np.float32]
    """(P, C) per band, in units of the training snapshot's spread."""
    spread: NDArray[np.float32]
    """(P, C) logarithm of the standard deviation within the place."""
    embedding: NDArray[np.float32]
    """(P, E) pooled features of the encoder; E may be 0."""
    stripes: NDArray[np.float32]
    """(P, 2) along columns and along rows: how much more whole lines differ from their neighbours than single
    pixels would make them; about 1 where there are no stripes, the worst band's."""
    edges: NDArray[np.uint8]
    """(P, SIDE, SIDE) how steep the image is, for telling whether it lies where it should."""

    def __len__(self) -> int:
        return len(self.place)


def describe(
    scene: str,
    time: np.datetime64,
    place: NDArray[np.int64],
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    embedding: NDArray[np.float32],
) -> Description:
    """Describe a scene at the places that are clear enough.

    Parameters
    ----------
    place:
        (N,) ids.
    image:
        (N, C, SIDE, SIDE), normalised; anything where not valid.
    valid:
        (N, SIDE, SIDE) where the ground was seen.
    embedding:
        (N, E)
    """
    clear = np.flatnonzero(valid.mean(axis=(1, 2)) >= MIN_CLEAR)
    clear = clear[np.argsort(place[clear], kind="stable")]
    image, valid = image[clear], valid[clear]
    weight = valid[:, None].astype(np.float32)
    count = np.maximum(weight.sum(axis=(2, 3)), 1)
    mean = (image * weight).sum(axis=(2, 3)) / count
    filled = np.where(valid[:, None], image, mean[..., None, None])
    variance = ((filled - mean[..., None, None]) ** 2).sum(axis=(2, 3)) / count
    return Description(
        scene,
        time,
        place[clear],
        mean.astype(np.float32),
        (0.5 * np.log(variance + 1e-4)).astype(np.float32),
        embedding[clear].astype(np.float32),
        _stripes(filled),
        _edges(filled),
    )


def _stripes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 2): the spread of line means of differences across lines, over what independent pixels would give."""
    found = []
    for across, along in ((3, 2), (2, 3)):
        steps = np.diff(image, axis=across)
        lines = steps.mean(axis=along).std(axis=2)  # (N, C)
        alone = steps.std(axis=(2, 3)) / np.sqrt(image.shape[along])
        found.append((lines / np.maximum(alone, 1e-6)).max(axis=1, initial=0))
    return np.stack(found, axis=1).astype(np.float32)


def _edges(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, H, W): the gradient's length of the mean of all bands, scaled to its own 99th percentile."""
    plane = ndimage.gaussian_filter(image.mean(axis=1), (0, 0.7, 0.7))
    rows, columns = np.gradient(plane, axis=(1, 2))
    steep = np.hypot(rows, columns)
    top = np.maximum(np.percentile(steep, 99, axis=(1, 2), keepdims=True), 1e-6)
    return (steep / top * 255).clip(0, 255).astype(np.uint8)
