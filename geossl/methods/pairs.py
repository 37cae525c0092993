"""Two views of each place, for the methods that compare them.

The views are of one image, or of two dates of the place (``pairs: season``, as in SeCo,
https://arxiv.org/abs/2103.16607), or of two collections, which may be of two sensors. Ground that was not seen, under cloud or outside of the scene, is
no view of anything: it does not enter the pooled features, and a place with hardly any other ground
in one of its views does not count in the loss. Nor is a place ever told apart from itself: chips of
the same ground at other dates are no negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor
from torch.nn import functional as F

from geossl.augment import Placement, Views
from geossl.methods.contrast import gather, places
from geossl.methods.method import Method
from geossl.methods.settings import PairSettings
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder

_MIN_VALID = 0.1  # share of valid pixels from which a view shows its place


@dataclass(frozen=True, slots=True)
class View:
    """One view of each of B places."""

    image: Tensor
    """(B, C, H, W), normalised."""
    valid: Tensor
    """(B, H, W) bool."""
    placement: Placement
    """Where the views lie in their chips."""
    spectrum: Spectrum | None = None
    """Which bands they have, where those are not the encoder's own."""
    kind: int = -1
    """Number of their sensor in a pool; −1: all are alike."""

    @property
    def shows(self) -> Tensor:
        """(B,) bool: enough of the place was seen."""
        return self.valid.float().mean(dim=(1, 2)) >= _MIN_VALID


class PairMethod(Method):
    """A method that compares two views of each place."""

    def __init__(self, settings: PairSettings, encoder: Encoder) -> None:
        super().__init__(encoder, wants_pairs=settings.wants_pairs)
        self.views = Views(
            crop=settings.crop, gain=settings.gain, bias=settings.bias, noise=settings.noise, haze=settings.haze
        )

    def two_views(self, batch: Mapping[str, Any]) -> tuple[View, View]:
        """A view of each of the two collections, or of the two dates, or two views of the one image."""
        first, second = (view_of(self.views, *image) for image in self.images(batch))
        return first, second

    def images(self, batch: Mapping[str, Any]) -> list[tuple[Tensor, Tensor, Mapping[str, Any]]]:
        """What the two views are of: image (B, C, H, W), valid pixels (B, H, W), and the batch that says whose bands
        these are; of two collections, of two dates, or twice of the one."""
        image, valid = batch["image"], batch["valid"]
        if (beside := batch.get("beside")) is not None:
            return [(image, valid, batch), (beside["image"], beside["valid"], beside)]
        if self.wants_pairs:
            return [(image[:, i], valid[:, i], batch) for i in (0, 1)]
        return [(image, valid, batch)] * 2

    @override
    def view(self, batch: Mapping[str, Any]) -> Tensor:
        return view_of(self.views, batch["image"], batch["valid"], batch).image


def view_of(views: Views, image: Tensor, valid: Tensor, batch: Mapping[str, Any], *, side: int | None = None) -> View:
    """A random view of an image of ``batch``, of so many pixels' ``side`` (None: the chip's)."""
    placement = views.place(len(image), image.device)
    view = views.at(placement, image, valid, batch.get("wavelengths"), side=side)
    return View(*view, placement, batch.get("spectrum"), batch.get("kind", -1))


def encode(encoder: Encoder, *views: View) -> tuple[Tensor, ...]:
    """The pooled features (B, D) float32 of each view."""
    return pool(maps(encoder, *views)[-1], torch.cat([view.valid for view in views])).chunk(len(views))


def maps(encoder: Encoder, *views: View) -> tuple[Tensor, ...]:
    """Every map of the encoder, fine to coarse, one view's places after the other's: (B · views, D, h, w).

    One pass over all views, or where their bands differ, one over each with its own.
    """
    if all(view.kind == views[0].kind for view in views):
        return encoder(torch.cat([view.image for view in views]), views[0].spectrum).maps
    each = [encoder(view.image, view.spectrum).maps for view in views]
    return tuple(torch.cat(same) for same in zip(*each, strict=True))


def pool(features: Tensor, valid: Tensor) -> Tensor:
    """The mean of a map (B, D, h, w) over valid ground (B, H, W), as (B, D) float32.

    A cell counts by its share of valid pixels; with all of them valid this is the plain mean. A
    view without one valid pixel gets zeros.
    """
    weight = F.adaptive_avg_pool2d(valid.unsqueeze(1).float(), (features.shape[2], features.shape[3]))
    return (features.float() * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)


def position(batch: Mapping[str, Any]) -> Tensor:
    """(B, 2) where the chips are on the ground, in sides of a chip east and south; infinite where nothing says so."""
    valid = batch["valid"]
    if not _located(batch):
        return torch.full((len(valid), 2), torch.inf, device=valid.device)
    east, north = (batch["xy"] / (batch["gsd"] * valid.shape[-1]).unsqueeze(1)).unbind(dim=1)
    return torch.stack([east, -north], dim=1)


def overlap(ours: Tensor, others: Tensor) -> Tensor:
    """(B, N) bool: the positions lie less than half a side apart in x and in y; unknown ones do not."""
    return (ours.unsqueeze(1) - others).abs().amax(dim=2) < 0.5


def same_place(batch: Mapping[str, Any]) -> Tensor:
    """(B, N) bool: which of the N chips of all ranks show the ground of each of our B chips, itself included."""
    valid = batch["valid"]
    itself, total = places(len(valid), valid.device)
    same = itself.unsqueeze(1) == torch.arange(total, device=valid.device)
    if not _located(batch):  # of places that are all infinite torch 2.11 cannot compile the comparison
        return same
    ours = position(batch)
    return same | overlap(ours, gather(ours))


def _located(batch: Mapping[str, Any]) -> bool:
    return "xy" in batch and "gsd" in batch
