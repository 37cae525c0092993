"""What a self-supervised method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from geossl.nets.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Losses:
    """What a method says about one batch."""

    total: Tensor
    """The scalar to minimise."""
    views: tuple[Tensor, ...]
    """The encoder's pooled features (B, D), one tensor for each view; health is read from them."""


class Method(nn.Module, ABC):
    """A way to train an encoder without labels.

    ``method(batch)`` takes a chip batch on its device, with ``image`` normalised (B, C, H, W) and
    ``valid`` (B, H, W) bool, and makes the views that it needs itself. With ``wants_pairs`` there
    is a date axis after the first: (B, 2, C, H, W) and (B, 2, H, W). Where batches are of
    several sensors, ``spectrum`` says which bands these are, and ``kind`` (an int) whose. A batch
    with ``beside``, a dict of the like, has another image of each place there, maybe of other bands;
    methods that compare two views look at it, and ``image`` then has no date axis.
    """

    def __init__(self, encoder: Encoder, *, wants_pairs: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.wants_pairs = wants_pairs

    @abstractmethod
    def forward(self, batch: Mapping[str, Any]) -> Losses:
        """The loss of a batch, ready for ``backward``."""

    def view(self, batch: Mapping[str, Any]) -> Tensor:
        """A view (B, C, H, W) of each chip of a batch of one date, as the encoder is shown it: for people to look at.

        By default the chip as it is.
        """
        image: Tensor = batch["image"]
        return image

    def after_step(self, step: int, max_steps: int) -> None:
        """Called after the optimiser's step number ``step`` (from 1): momentum, centring."""
