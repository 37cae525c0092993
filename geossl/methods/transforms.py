"""What was done to this image? Rotation prediction, and telling originals from transformed ones.

``rotation`` (Gidaris et al. 2018, https://arxiv.org/abs/1803.07728): every image is shown in all four
quarter turns, and the encoder says which one it sees. ``original-or-transformed``: every image is
shown as it is and once transformed, and the encoder says which is which. Transformed are, half each:
quarter turns, and images whose four quarters were exchanged (a jigsaw of four pieces; Noroozi and
Favaro 2016, https://arxiv.org/abs/1603.09246).

Neither is told by traces of the transforming. Pixels are moved, never resampled. Only pixels are
shown that would be valid under every transformation, so that edges of scenes and clouds say nothing;
a chip with many clouds drops out. Along the seams between quarters a strip is hidden in originals as
well. Bands are not permuted: one pixel's spectrum would tell. Gain, offset and noise differ a copy.

A remark on its worth: imagery from above has no up. What tells one quarter turn from another is the
side on which shadows and sunlit slopes lie (much the same at a sun-synchronous satellite's hour of
passing), the lie of the land, and, less welcome, stripes along the sensor's track.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Views
from geossl.errors import SettingsError
from geossl.methods.method import Losses, Method
from geossl.methods.settings import TransformsSettings
from geossl.methods.valid import mean_over, seen
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder

EXCHANGES = list(itertools.permutations(range(4)))[1:]
"""The orders of an image's quarters (upper left, upper right, lower left, lower right) that are not its own."""
_STRIP = 32  # the hidden strip along a seam has a 32nd of the image's side on either side of it


@dataclass(frozen=True, slots=True)
class Riddle:
    """Images, and what is to be found out about them."""

    images: Tensor
    """(K · B, C, H, W): the copies of each chip, copy by copy."""
    answer: Tensor
    """(K · B,): the number of quarter turns; or 0 for an original, 1 for a transformed one."""
    counted: Tensor
    """(K · B,) bool: enough can be seen."""


class Transforms(Method):
    """Classification of what was done to an image."""

    exchanges: Tensor

    def __init__(self, settings: TransformsSettings, encoder: Encoder) -> None:
        super().__init__(encoder)
        dim = encoder.dims[-1]
        self.rotation = settings.transformations == "rotation"
        self.copies = 4 if self.rotation else 2
        self.views = Views(gain=settings.gain, bias=settings.bias, noise=settings.noise)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, self.copies))
        self.register_buffer("exchanges", torch.tensor(EXCHANGES), persistent=False)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        riddle = self.pose(batch["image"], batch["valid"])
        logits, views = self.solve(riddle, batch.get("spectrum"))
        loss = F.cross_entropy(logits.float(), riddle.answer, reduction="none")
        return Losses(mean_over(loss, riddle.counted), views)

    @override
    def view(self, batch: Mapping[str, Any]) -> Tensor:
        return self.views.alter(batch["image"], batch["valid"])[0]

    def pose(self, image: Tensor, valid: Tensor) -> Riddle:
        """The copies of each chip, (B, C, H, W), H = W, with ``valid`` (B, H, W) bool."""
        shown = under_every_turn(valid)
        if not self.rotation:
            if image.shape[-1] % 2:
                raise SettingsError(
                    f"method transforms: chips of {image.shape[-2]}×{image.shape[-1]} px have no equal quarters",
                    "choose an even chip side",
                )
            shown = under_every_turn(under_every_exchange(valid))
        counted = seen(shown)
        copies = [self.views.alter(image, shown)[0] for _ in range(self.copies)]
        if self.rotation:
            copies = [copy.rot90(turns, (-2, -1)) for turns, copy in enumerate(copies)]
        else:
            copies = [away_from_seams(copy) for copy in (copies[0], self.transform(copies[1]))]
        answer = torch.arange(self.copies, device=image.device).repeat_interleave(len(image))
        return Riddle(torch.cat(copies), answer, counted.repeat(self.copies))

    def transform(self, image: Tensor) -> Tensor:
        """Each image of a batch turned by a quarter, two or three, or with its quarters exchanged."""
        batch, device = len(image), image.device
        turned = torch.stack([image.rot90(turns, (-2, -1)) for turns in (1, 2, 3)], dim=1)
        turned = turned[torch.arange(batch, device=device), torch.randint(3, (batch,), device=device)]
        order = self.exchanges[torch.randint(len(EXCHANGES), (batch,), device=device)]
        exchanged = from_quarters(quarters(image).take_along_dim(order.view(batch, 4, 1, 1, 1), dim=1))
        return torch.where(torch.rand(batch, 1, 1, 1, device=device) < 0.5, turned, exchanged)

    def solve(self, riddle: Riddle, spectrum: Spectrum | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A logit for each answer (K · B, K), and the pooled features of each copy."""
        pooled = self.encoder(riddle.images, spectrum).pooled
        return self.head(pooled), pooled.chunk(self.copies)


def quarters(image: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 4, C, H / 2, W / 2)."""
    batch, bands, height, width = image.shape
    x = image.reshape(batch, bands, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, 4, bands, height // 2, width // 2)


def from_quarters(pieces: Tensor) -> Tensor:
    """(B, 4, C, h, w) → (B, C, 2 · h, 2 · w)."""
    batch, _, bands, height, width = pieces.shape
    x = pieces.reshape(batch, 2, 2, bands, height, width).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, bands, 2 * height, 2 * width)


def under_every_turn(valid: Tensor) -> Tensor:
    """Pixels of (B, H, W) bool that are valid in all four quarter turns."""
    return torch.stack([valid.rot90(turns, (-2, -1)) for turns in range(4)]).all(dim=0)


def under_every_exchange(valid: Tensor) -> Tensor:
    """Pixels of (B, H, W) bool that are valid in all four quarters."""
    common = quarters(valid.unsqueeze(1)).all(dim=1, keepdim=True)
    return from_quarters(common.expand(-1, 4, -1, -1, -1)).squeeze(1)


def away_from_seams(image: Tensor) -> Tensor:
    """The image (B, C, H, W) with a cross of zeros over the seams between its quarters."""
    side = image.shape[-1]
    distance = (torch.arange(side, device=image.device) - (side - 1) / 2).abs()
    near = distance < max(1, side // _STRIP)
    return image.masked_fill(near.unsqueeze(1) | near, 0.0)
