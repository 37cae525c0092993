"""Spectral band groups: one token for each place and group of bands (SatMAE).

After Cong et al. 2022, https://arxiv.org/abs/2207.08051, section 3.2. Each group has kernels of its own.
Beside its position a token carries which group it is of: fixed sines and cosines too, in about a third of
its numbers whatever the network (the authors' larger ones give it a quarter). With one group there is nothing to tell apart, and all of them hold the position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.bands import Band
from geossl.errors import SettingsError
from geossl.nets.patches import take_patches


class GroupEmbedding(nn.Module):
    """Image (B, C, H, W) → tokens (B, G·L, D) of G groups of bands and L places, group after group.

    Parameters
    ----------
    groups:
        Indices of each group's bands.
    patch, image:
        Sides in pixels: of a patch, and of the image that positions are laid out for.
    dim:
        D.
    """

    order: Tensor
    encoding: Tensor

    def __init__(self, groups: Sequence[Sequence[int]], patch: int, image: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.grid_size = (image // patch, image // patch)
        self.sizes = [len(group) for group in groups]
        self.proj = nn.ModuleList(nn.Conv2d(size, dim, patch, patch) for size in self.sizes)
        self.register_buffer("order", torch.tensor([band for group in groups for band in group]), persistent=False)
        self.register_buffer("encoding", encode_groups(len(groups), dim), persistent=False)

    def forward(self, image: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) with their groups' encodings, and their places (B, N), numbered in row order.

        ``keep`` (B, N) are numbers of tokens, of each group as many, group after group: token g·L + l is that
        of group g and place l. None: all tokens, in the order of their numbers.
        """
        count, places = len(self.sizes), image.shape[-2] // self.patch * (image.shape[-1] // self.patch)
        if keep is None:
            keep = torch.arange(count * places, device=image.device).expand(len(image), -1)
        at = keep % places
        tokens = []
        for pixels, which, layer, encoding in zip(
            self.split(image), at.unflatten(1, (count, -1)).unbind(1), self.proj, self.encoding, strict=True
        ):
            assert isinstance(layer, nn.Conv2d)
            patches = take_patches(pixels, self.patch, which)
            tokens.append(F.linear(patches, layer.weight.flatten(1), layer.bias) + encoding)
        return torch.cat(tokens, dim=1), at

    def split(self, image: Tensor) -> tuple[Tensor, ...]:
        """The bands of each group, (B, size, H, W)."""
        if image.shape[1] != len(self.order):
            raise SettingsError(
                f"the encoder's groups hold {len(self.order)} bands, and the image has {image.shape[1]}",
                "give it images of the bands that its card names",
            )
        return image.index_select(1, self.order).split(self.sizes, dim=1)


def find_groups(names: Sequence[Sequence[str]], bands: Sequence[Band]) -> list[list[int]]:
    """The indices of each group's bands, by name or STAC common name.

    Raises
    ------
    SettingsError
        A name is no band's, or a band is not in exactly one group.
    """
    index = {name: i for i, band in enumerate(bands) for name in (band.common_name, band.name) if name is not None}
    have = ", ".join(band.name for band in bands)
    if unknown := [name for group in names for name in group if name not in index]:
        raise SettingsError(f"encoder.groups: there is no band {', '.join(unknown)}", f"the bands are {have}")
    groups = [[index[name] for name in group] for group in names]
    of_band = [sum(group.count(i) for group in groups) for i in range(len(bands))]
    if wrong := [band.name for band, count in zip(bands, of_band, strict=True) if count != 1]:
        raise SettingsError(
            f"encoder.groups: {', '.join(wrong)} must each be in exactly one group",
            f"put each of {have} into one group, or choose fewer bands in the sensor",
        )
    return groups


def encode_groups(count: int, dim: int, device: torch.device | None = None) -> Tensor:
    """What tells groups apart, (count, dim): sines and cosines of their numbers at the end, before them zeros."""
    width = dim - place_width(count, dim)
    rate = 1.0 / 10000 ** (torch.arange(width // 2, device=device) / max(1, width // 2))
    angle = torch.arange(count, device=device).unsqueeze(1) * rate
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (dim - width, 0))


def encode_places(grid: Sequence[int], count: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Positions (L, dim) of a grid of places, with zeros where ``count`` groups are told apart."""
    width = place_width(count, dim)
    return F.pad(build_sincos2d_pos_embed(list(grid), dim=width, device=device), (0, dim - width))


def place_width(count: int, dim: int) -> int:
    """How many of a token's numbers hold its position, a multiple of 4: two thirds, or all with one group."""
    return dim if count == 1 else dim - dim // 12 * 4
