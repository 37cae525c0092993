"""Encoders: one interface over networks for any number of bands.

An encoder turns a normalised image into :class:`Features`: several maps from fine to coarse and
one pooled vector. Four families stand behind it:

* ``unet-*``: the contracting path of a UNet. Its first stage keeps the full resolution, so small
  objects survive, and its receptive field is small, so neighbouring windows agree.
* ``resnet*`` and ``convnext-*``: timm's convolutional backbones.
* ``vit-*``: timm's vision transformers, with any patch size and any image size; with
  ``embedding: wavelengths`` for the bands of any sensor, with ``groups`` of bands as SatMAE.
* ``olmoearth-*``: Ai2's OlmoEarth, for Sentinel-2's bands or those of their wavelengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from geossl.bands import Band
from geossl.errors import SettingsError
from geossl.nets.embedding import Spectrum, WavelengthEmbedding
from geossl.nets.groups import GroupEmbedding, encode_places, find_groups
from geossl.nets.olmoearth import MAPS, OlmoEarth
from geossl.nets.patches import take_patches
from geossl.nets.settings import EncoderSettings

_UNET_WIDTHS = {"unet-tiny": (16, 32, 64, 128), "unet-small": (32, 64, 128, 256)}

# (kernel, stride) along the longest path to the coarsest map
_Layers = tuple[tuple[int, int], ...]
_TIMM_LAYERS: dict[str, _Layers] = {
    "resnet18": ((7, 2), (3, 2), *[(3, 1)] * 4, *[(3, 2), *[(3, 1)] * 3] * 3),
    "resnet50": (
        (7, 2),
        (3, 2),
        *[(3, 1)] * 3,
        *[(3, 2), *[(3, 1)] * 3],
        *[(3, 2), *[(3, 1)] * 5],
        (3, 2),
        *[(3, 1)] * 2,
    ),
    "convnext-tiny": ((4, 4), *[(7, 1)] * 3, (2, 2), *[(7, 1)] * 3, (2, 2), *[(7, 1)] * 9, (2, 2), *[(7, 1)] * 3),
}
_VIT_MAPS = 4  # maps taken from a transformer, evenly spaced over its depth
_VIT_IMAGE = 128  # pixels; the side its positions are laid out for where the settings name none


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder says about a batch of images."""

    maps: tuple[Tensor, ...]
    """Fine to coarse; map *i* has shape (B, dims[i], H / strides[i], W / strides[i])."""
    pooled: Tensor
    """One vector an image, (B, dims[-1]): the mean of the coarsest map."""


class Encoder(nn.Module):
    """A network from a normalised image (B, bands, H, W) to :class:`Features`.

    Attributes
    ----------
    settings, bands:
        What it was built from.
    dims, strides:
        Channels and pixel stride of each map, fine to coarse.
    receptive_field:
        Side in pixels of the square that can influence one cell of the coarsest map.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        bands: int,
        backbone: nn.Module,
        dims: Iterable[int],
        strides: Iterable[int],
        receptive_field: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.bands = bands
        self.backbone = backbone
        self.dims = tuple(dims)
        self.strides = tuple(strides)
        self.receptive_field = receptive_field

    def maps(self, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> tuple[Tensor, ...]:  # noqa: ARG002
        """The feature maps, fine to coarse."""
        return tuple(self.backbone(image))

    def forward(self, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> Features:
        """Encode a normalised image (B, C, H, W); H and W are multiples of the coarsest stride.

        C are the bands that it was built for. An encoder with ``embedding: wavelengths`` takes any others
        too, by their ``wavelengths`` (C,) in µm, or by a :class:`~geossl.nets.embedding.Spectrum` where some
        are radar; the others need none and do not look at them.
        """
        require_divisible(image, max(self.strides), self.settings.name)
        maps = self.maps(image, wavelengths)
        return Features(maps, maps[-1].mean(dim=(2, 3)))


class VitEncoder(Encoder):
    """A timm vision transformer; its tokens are open to masked modelling.

    With groups of bands every place has a token of each. Its map shows their mean, so that whatever looks at
    maps need not know of groups, and pooled features are the mean of all tokens, as SatMAE fine-tunes.
    """

    backbone: timm.models.VisionTransformer

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many bands each group has; without groups, all are one."""
        embedding = self.backbone.patch_embed
        return tuple(embedding.sizes) if isinstance(embedding, GroupEmbedding) else (self.bands,)

    def split(self, image: Tensor) -> tuple[Tensor, ...]:
        """The bands of each group, (B, size, H, W)."""
        embedding = self.backbone.patch_embed
        return embedding.split(image) if isinstance(embedding, GroupEmbedding) else (image,)

    def maps(self, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> tuple[Tensor, ...]:
        """Maps after evenly spaced blocks, all with stride ``patch`` and through the final norm."""
        net, patch = self.backbone, self.settings.patch
        rows, columns = image.shape[-2] // patch, image.shape[-1] // patch
        depth = len(net.blocks)
        taken = {depth * (i + 1) // _VIT_MAPS for i in range(_VIT_MAPS)}
        tokens, cls = self.embed(image, wavelengths)
        x = net.norm_pre(torch.cat([cls, tokens], dim=1))
        maps = []
        for done, block in enumerate(net.blocks, start=1):
            x = block(x)
            if done in taken:
                out = net.norm(x)[:, 1:]
                if self.settings.groups is not None:
                    out = out.unflatten(1, (-1, rows * columns)).mean(dim=1)
                maps.append(out.transpose(1, 2).unflatten(2, (rows, columns)).contiguous())
        return tuple(maps)

    def embed(
        self, image: Tensor, wavelengths: Tensor | Spectrum | None = None, *, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Patch tokens with their positions, (B, L, D) in row order, and the class token (B, 1, D).

        With ``keep`` (B, V), tokens (B, V, D) of those patches alone: the others are not computed. With G groups
        of bands there are G·L tokens, group after group, and ``keep`` holds of each group as many, in that order.
        """
        net, embedding = self.backbone, self.backbone.patch_embed
        if isinstance(embedding, GroupEmbedding):
            tokens, keep = embedding(image, keep)
        elif keep is None:
            of_image = (image, wavelengths) if isinstance(embedding, WavelengthEmbedding) else (image,)
            tokens = net._pos_embed(embedding(*of_image))
            return tokens[:, 1:], tokens[:, :1]
        else:
            if isinstance(embedding, WavelengthEmbedding):
                image, kernel, bias = embedding.convolution(image, wavelengths)
            else:
                kernel, bias = embedding.proj.weight, embedding.proj.bias
            # a convolution whose stride is its kernel's size is one matrix product over patches
            tokens = nn.functional.linear(take_patches(image, self.settings.patch, keep), kernel.flatten(1), bias)
        grid = image.shape[-2] // self.settings.patch, image.shape[-1] // self.settings.patch
        positions = resample_abs_pos_embed(
            net.pos_embed, list(grid), list(embedding.grid_size), num_prefix_tokens=net.num_prefix_tokens
        )[0]
        cls = (net.cls_token + positions[:1]).expand(len(image), -1, -1)
        return tokens + positions[1:][keep], cls

    def transform(self, tokens: Tensor) -> Tensor:
        """All blocks and the final norm over tokens (B, N, D)."""
        return self.backbone.norm(self.backbone.blocks(self.backbone.norm_pre(tokens)))


class ContractingPath(nn.Module):
    """The left half of a UNet (https://arxiv.org/abs/1505.04597) with batch norm: maps at strides 1, 2, 4, …

    Batch norm, not group norm: at inference every output then depends on its receptive field only,
    so that overlapping windows of a map agree.
    """

    def __init__(self, bands: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*convolution(before, width), *convolution(width, width))
            for before, width in itertools.pairwise((bands, *widths))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(nn.functional.max_pool2d(maps[-1], 2) if maps else image))
        return maps


def build_encoder(settings: EncoderSettings, of: int | Sequence[Band]) -> Encoder:
    """A randomly initialised encoder for images of these bands, or this many (torch's global seed decides).

    Raises
    ------
    SettingsError
        It embeds bands by wavelength, and one has none; its groups are not of these bands; patch and image
        do not fit; or OlmoEarth's package is not installed, or has no place for a band.
    """
    name, bands = settings.name, of if isinstance(of, int) else len(of)
    if name in _UNET_WIDTHS:
        widths = _UNET_WIDTHS[name]
        layers = ((3, 1), (3, 1), *[(2, 2), (3, 1), (3, 1)] * (len(widths) - 1))
        strides = [2**i for i in range(len(widths))]
        return Encoder(settings, bands, ContractingPath(bands, widths), widths, strides, receptive_field(layers))
    if name.startswith("vit-"):
        return _build_vit(settings, of)
    if name.startswith("olmoearth-"):
        if isinstance(of, int):
            raise SettingsError(f"the encoder {name} is built for bands, not for a number of them")
        olmo = OlmoEarth(name.removeprefix("olmoearth-"), of, settings.patch)
        strides = [settings.patch] * MAPS
        return Encoder(settings, bands, olmo, [olmo.dim] * MAPS, strides, settings.image or _VIT_IMAGE)
    net: Any = timm.create_model(name.replace("-", "_"), features_only=True, in_chans=bands)
    info = net.feature_info
    return Encoder(settings, bands, net, info.channels(), info.reduction(), receptive_field(_TIMM_LAYERS[name]))


def convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    """A 3×3 convolution that keeps the size, with batch norm and ReLU."""
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Side in pixels of what one output cell sees through layers of (kernel, stride)."""
    side, jump = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * jump
        jump *= stride
    return side


def require_divisible(image: Tensor, stride: int, name: str) -> None:
    """Refuse an image (…, H, W) whose sides are no multiples of ``stride``."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise SettingsError(
            f"an image of {height}×{width} px does not fit the encoder {name}",
            f"choose chip and window sizes that are multiples of {stride} px",
        )


def _build_vit(settings: EncoderSettings, of: int | Sequence[Band]) -> VitEncoder:
    bands = of if isinstance(of, int) else len(of)
    image = settings.image or _VIT_IMAGE
    if image % settings.patch:
        raise SettingsError(
            f"encoder {settings.name}: an image of {image} px is no multiple of its patch, {settings.patch} px",
            "choose a patch that divides the image (or chip) side",
        )
    net: Any = timm.create_model(
        f"{settings.name.replace('-', '_')}_patch16_224",
        in_chans=bands,
        num_classes=0,
        patch_size=settings.patch,
        img_size=image,
        dynamic_img_size=True,
    )
    # Fixed sine-cosine positions as in the MAE paper: short trainings on few images do not learn them well.
    side = image // settings.patch
    with torch.no_grad():
        net.pos_embed.zero_()
        net.pos_embed[0, 1:] = encode_places([side, side], len(settings.groups or [()]), net.embed_dim)
    net.pos_embed.requires_grad_(False)
    if settings.embedding != "bands":
        if isinstance(of, int):
            raise SettingsError("an encoder with embedding: wavelengths is built for bands, not for a number of them")
        dofa = settings.embedding == "dofa"
        net.patch_embed = WavelengthEmbedding(Spectrum.of(of), settings.patch, image, net.embed_dim, dofa=dofa)
    if settings.groups is not None:
        if isinstance(of, int):
            raise SettingsError("an encoder with groups is built for bands, not for a number of them")
        net.patch_embed = GroupEmbedding(find_groups(settings.groups, of), settings.patch, image, net.embed_dim)
    return VitEncoder(settings, bands, net, [net.embed_dim] * _VIT_MAPS, [settings.patch] * _VIT_MAPS, image)
