"""An encoder over images: hypercolumns (every map at full resolution) and pooled vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.nets.encoder import Encoder


def hypercolumns(encoder: Encoder, image: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
    """Every feature map of the encoder, brought to one size and concatenated, fine to coarse.

    The encoder is used in the mode it is in; call it under ``torch.inference_mode()`` and in
    evaluation mode where no gradient is wanted.

    Parameters
    ----------
    image:
        Normalised, (B, bands, H, W).
    size:
        Height and width of the result; the image's own by default.

    Returns
    -------
    (B, sum(encoder.dims), height, width), in the maps' dtype.
    """
    height, width = size or (image.shape[-2], image.shape[-1])
    maps = encoder(image).maps
    out = maps[0].new_empty((image.shape[0], sum(encoder.dims), height, width))
    start = 0
    for each in maps:
        stop = start + each.shape[1]
        same = each.shape[-2:] == (height, width)
        out[:, start:stop] = each if same else F.interpolate(each, (height, width), mode="bilinear")
        start = stop
    return out


def embed(
    encoder: Encoder, batches: Iterable[Mapping[str, Any]], normalize: Normalize, *, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """One pooled vector for each chip of the batches: all that :func:`embeddings` yields.

    Returns
    -------
    (N, encoder.dims[-1]) float32, in the order of the batches.
    """
    rows = list(embeddings(encoder, batches, normalize, device=device))
    return np.concatenate(rows) if rows else np.empty((0, encoder.dims[-1]), np.float32)


def embeddings(
    encoder: Encoder, batches: Iterable[Mapping[str, Any]], normalize: Normalize, *, device: torch.device | str = "cpu"
) -> Iterator[NDArray[np.float32]]:
    """The pooled vectors of batch after batch.

    Parameters
    ----------
    batches:
        Chip batches with stored numbers: ``image`` (B, bands, H, W) and ``valid`` (B, H, W).

    Yields
    ------
    (B, encoder.dims[-1]) float32.
    """
    was_training = encoder.training
    encoder = encoder.to(device).eval()
    normalize = normalize.to(device)
    try:
        for batch in batches:
            # not around the yield: whoever takes the vectors may train
            with torch.inference_mode():
                image = normalize(batch["image"].to(device), batch["valid"].to(device))
                pooled = encoder(image).pooled.float().cpu().numpy()
            yield pooled
    finally:
        encoder.train(was_training)
