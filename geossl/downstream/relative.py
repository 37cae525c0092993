"""The network behind a change map without labels: how far a pixel moved between two dates, and what it lost.

Each date is first brought to zero mean and unit spread per band over the ground in question, which takes out
what differs between dates everywhere (relative normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geossl.bands import Sensor
from geossl.downstream.irmad import Irmad
from geossl.downstream.settings import Of, UnlabelledMethod
from geossl.errors import LabelError
from geossl.features import hypercolumns
from geossl.nets.encoder import Encoder

STEEPNESS = 4.0
"""Logit of a pixel whose score is twice the threshold."""


class UnlabelledNetwork(nn.Module):
    """(B, 2, C, H, W) normalised images → logits (B, 2, H, W) of no change and change.

    Parameters
    ----------
    encoder:
        For ``embedding``; the other methods look at the bands.
    """

    def __init__(self, method: UnlabelledMethod, of: Of, encoder: Encoder | None, sensor: Sensor) -> None:
        super().__init__()
        bands = len(sensor.bands)
        self.method, self.of = method, of
        self.encoder = encoder if method == "embedding" else None
        self.vegetation = (
            vegetation_bands(sensor, or_red=True, instead="set `of: any`, or label some clearings")
            if of == "clearing"
            else None
        )
        features = sum(self.encoder.dims) if self.encoder is not None else bands
        self.shift: Tensor
        self.spread: Tensor
        self.feature_spread: Tensor
        self.variates: Tensor
        self.offset: Tensor
        self.threshold: Tensor
        self.register_buffer("shift", torch.zeros(2, bands))
        self.register_buffer("spread", torch.ones(2, bands))
        self.register_buffer("feature_spread", torch.ones(features))
        if method == "irmad":
            self.register_buffer("variates", torch.zeros(2, bands, bands))
            self.register_buffer("offset", torch.zeros(bands))
        self.register_buffer("threshold", torch.ones(()))

    def set_variates(self, found: Irmad) -> None:
        """Take over the MAD variates of relative images; rows beyond their number stay 0 and add nothing."""
        p = found.freedom
        for date, weights in enumerate((found.before, found.after)):
            self.variates[date, :p] = torch.from_numpy(weights.astype(np.float32))
        self.offset[:p] = torch.from_numpy(found.shift.astype(np.float32))

    def relative(self, image: Tensor) -> Tensor:
        """Each date with zero mean and unit spread per band over the ground in question."""
        return (image - self.shift[None, :, :, None, None]) / self.spread[None, :, :, None, None]

    def movement(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) relative images → (B, F, H, W), after minus before: of features, bands or MAD variates."""
        before, after = image.unbind(1)
        if self.encoder is not None:
            return hypercolumns(self.encoder, after) - hypercolumns(self.encoder, before)
        if self.method == "irmad":
            first, second = (
                torch.einsum("pc,bchw->bphw", w, x) for w, x in zip(self.variates, (before, after), strict=True)
            )
            return first - second - self.offset[None, :, None, None]
        return after - before

    def distance(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) relative images → (B, H, W), the root mean square of the movement in units of its spread."""
        return (self.movement(image) / self.feature_spread[None, :, None, None]).square().mean(dim=1).sqrt()

    def loss(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) relative images → (B, H, W), how much vegetation was lost; 0 where none was.

        The drop of near infrared against short-wave infrared (Key & Benson 2006), or the rise of the latter,
        whichever is less, so that new water and new crops do not count. Red stands in for a missing short-wave
        infrared.
        """
        assert self.vegetation is not None
        infrared, other = (image[:, :, band] for band in self.vegetation)
        drop = (infrared - other)[:, 0] - (infrared - other)[:, 1]
        rise = other[:, 1] - other[:, 0]
        return torch.minimum(drop, rise).clamp(min=0)

    def score(self, image: Tensor) -> Tensor:
        """(B, 2, C, H, W) normalised images → (B, H, W), not below 0."""
        image = self.relative(image)
        moved = self.distance(image)
        return moved if self.of == "any" else (moved * self.loss(image)).sqrt()

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        logit = STEEPNESS * (self.score(image) / self.threshold - 1)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def sees_vegetation(sensor: Sensor) -> bool:
    """Whether a loss of vegetation can be told."""
    return None not in _vegetation(sensor, ("swir16", "swir22", "red"))


def vegetation_bands(sensor: Sensor, *, instead: str, or_red: bool = False) -> tuple[int, int]:
    """Positions of near infrared and of short-wave infrared.

    Parameters
    ----------
    instead:
        What to do where they are missing, for people.
    or_red:
        Take red where there is no short-wave infrared.

    Raises
    ------
    LabelError
        The sensor lacks one of them.
    """
    infrared, other = _vegetation(sensor, ("swir16", "swir22", *(["red"] if or_red else [])))
    if infrared is None or other is None:
        names = ", ".join(band.common_name or "?" for band in sensor.bands)
        raise LabelError(
            f"without labels, forest is told by near infrared beside short-wave infrared{' or red' if or_red else ''}"
            f", and {sensor.name} has {names}",
            f"give the bands their common names (nir, swir16, red), or {instead}",
        )
    return infrared, other


def _vegetation(sensor: Sensor, others: Sequence[str]) -> tuple[int | None, int | None]:
    names = [band.common_name for band in sensor.bands]
    found = (next((names.index(name) for name in side if name in names), None) for side in (("nir", "nir08"), others))
    infrared, other = found
    return infrared, other
