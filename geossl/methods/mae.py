"""Masked autoencoder: hide most patches, reconstruct them (He et al. 2022, https://arxiv.org/abs/2111.06377).

The encoder sees the visible patches only; a light decoder fills in the hidden ones. Targets are
normalised patch by patch. Invalid pixels count nowhere: not in a patch's mean and variance, not in
the loss; patches that are mostly invalid are hidden first and carry no loss.

With groups of bands (SatMAE: Cong et al. 2022, https://arxiv.org/abs/2207.08051) a patch has a token of each
group, whose bands alone it reconstructs and is normalised by. Of each group as many are hidden; the paper's
authors draw from all tokens together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, override

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Views
from geossl.errors import SettingsError
from geossl.methods.method import Losses, Method
from geossl.methods.settings import MaeSettings
from geossl.nets.encoder import Encoder, VitEncoder, require_divisible
from geossl.nets.groups import encode_groups, encode_places

_HEAD_DIM = 32
_MIN_VALID = 0.5  # share of valid pixels from which a patch is worth reconstructing


class Mae(Method):
    """Masked autoencoder over a vision transformer."""

    encoder: VitEncoder

    def __init__(self, settings: MaeSettings, encoder: Encoder) -> None:
        if not isinstance(encoder, VitEncoder):
            raise SettingsError(
                f"method mae hides patches of a transformer; the encoder {encoder.settings.name} has none",
                "choose an encoder vit-*, or another method",
            )
        super().__init__(encoder)
        self.settings = settings
        self.patch = encoder.settings.patch
        self.views = Views(crop=settings.crop)
        dim = settings.decoder_dim
        self.enter = nn.Linear(encoder.dims[-1], dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.blocks = nn.Sequential(
            *(Block(dim, dim // _HEAD_DIM, qkv_bias=True) for _ in range(settings.decoder_depth))
        )
        self.norm = nn.LayerNorm(dim)
        # a head for each group: their weights one below the other
        self.heads = [self.patch**2 * bands for bands in encoder.group_sizes]
        self.predict = nn.Linear(dim, sum(self.heads))
        for layer in (self.enter, *self.blocks.modules(), self.predict):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        image, valid = self.views(batch["image"], batch["valid"])
        require_divisible(image, self.patch, self.encoder.settings.name)
        patches = image.shape[-2] // self.patch * (image.shape[-1] // self.patch)
        draws = len(self.heads) if self.settings.masking == "independent" else 1
        noise = torch.rand(image.shape[0], draws * patches, device=image.device)
        return self.losses(image, valid, noise)

    @override
    def view(self, batch: Mapping[str, Any]) -> Tensor:
        return self.views(batch["image"], batch["valid"])[0]

    def losses(self, image: Tensor, valid: Tensor, noise: Tensor) -> Losses:
        """The loss of normalised ``image`` (B, C, H, W) where ``noise`` (B, L) in [0, 1) decides what is hidden.

        The patches with the lowest noise stay visible. With G groups of bands, noise (B, G·L) does so for each
        group, and (B, L) for all groups alike.
        """
        weight = patchify(valid.unsqueeze(1).to(image.dtype), self.patch)  # (B, L, p·p, 1)
        usable = weight.mean(dim=(2, 3)) >= _MIN_VALID  # (B, L)

        groups, places = len(self.heads), usable.shape[1]
        order = noise.unflatten(1, (-1, places)) + ~usable.unsqueeze(1)  # what is mostly invalid is hidden first
        order = order.argsort(dim=2).expand(-1, groups, -1)  # (B, G, L)
        visible = max(1, int(places * (1 - self.settings.mask_ratio)))
        numbers = order + places * torch.arange(groups, device=image.device).unsqueeze(1)  # of tokens
        keep, hide = numbers[..., :visible].flatten(1), numbers[..., visible:].flatten(1)  # (B, G·V), (B, G·M)

        tokens, cls = self.encoder.embed(image, keep=keep)
        latent = self.encoder.transform(torch.cat([cls, tokens], dim=1))
        grid = image.shape[-2] // self.patch, image.shape[-1] // self.patch
        hidden = self._decode(latent, keep, hide, grid)  # (B, G·M, D)

        of_group = zip(
            self.encoder.split(image),
            hidden.unflatten(1, (groups, -1)).unbind(1),
            order[..., visible:].unbind(1),
            self.predict.weight.split(self.heads),
            self.predict.bias.split(self.heads),
            strict=True,
        )
        total, count = image.new_zeros(()), image.new_zeros(())
        for bands, each, where, kernel, bias in of_group:
            counted = usable.gather(1, where)
            of_patch = self._errors(F.linear(each, kernel, bias).float(), bands, weight, where)
            total, count = total + (of_patch * counted).sum(), count + counted.sum()
        return Losses(total / count.clamp(min=1), (latent[:, 1:].mean(dim=1),))

    def _errors(self, prediction: Tensor, bands: Tensor, weight: Tensor, where: Tensor) -> Tensor:
        """Mean square error (B, M) of patches ``where`` (B, M) of the image ``bands`` (B, C, H, W)."""
        pixels, weight = _take(patchify(bands, self.patch), where), _take(weight, where)
        with torch.no_grad():
            # an invalid pixel is as it was predicted: no error, and no gradient
            target = normalize_patches(pixels, weight).addcmul_(prediction.view_as(pixels), 1 - weight).flatten(2)
        squares = F.mse_loss(prediction, target, reduction="none").sum(dim=2)
        return squares / (weight.sum(dim=(2, 3)) * bands.shape[1]).clamp(min=1)

    def _decode(self, latent: Tensor, keep: Tensor, hide: Tensor, grid: tuple[int, int]) -> Tensor:
        """Class and visible tokens (B, 1 + V, D) → what is known of the hidden ones (B, M, D), in the order of ``hide``.

        Blocks do not care about the order of tokens, so none is restored: each brings its position.
        """
        x = self.enter(latent)
        groups, dim = len(self.heads), x.shape[2]
        of_group, of_place = encode_groups(groups, dim, x.device), encode_places(grid, groups, dim, x.device)
        positions = (of_group.unsqueeze(1) + of_place).flatten(0, 1).to(x.dtype)  # (G·L, D)
        x = torch.cat([x[:, :1], x[:, 1:] + positions[keep], self.mask_token.to(x.dtype) + positions[hide]], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.norm(_end(self.blocks[-1], x, latent.shape[1]))


def _end(block: Any, x: Tensor, visible: int) -> Tensor:
    """What timm's ``block``, the last of a decoder, makes of the hidden tokens, (B, M, D), of all (B, visible + M, D).

    They look at all tokens; nobody looks at what would become of the visible ones.
    """
    attn, dim = block.attn, x.shape[2]
    tokens, x = block.norm1(x), x[:, visible:]
    (to_query, to_both), (query_bias, both_bias) = (
        weight.split([dim, 2 * dim]) for weight in (attn.qkv.weight, attn.qkv.bias)
    )
    query = F.linear(tokens[:, visible:], to_query, query_bias)
    key, value = F.linear(tokens, to_both, both_bias).chunk(2, dim=2)
    query, key, value = (each.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for each in (query, key, value))
    if attn.fused_attn:
        seen = F.scaled_dot_product_attention(query, key, value)
    else:
        seen = (query * attn.scale @ key.mT).softmax(dim=-1) @ value
    x = x + attn.proj(seen.transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x))


def patchify(image: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) → (B, L, patch·patch, C): patches in row order, and the pixels of each too."""
    batch, bands, height, width = image.shape
    rows, columns = height // patch, width // patch
    x = image.reshape(batch, bands, rows, patch, columns, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch * patch, bands)


def normalize_patches(pixels: Tensor, weight: Tensor) -> Tensor:
    """Each patch (B, M, P, C) with mean 0 and variance 1 over its pixels of ``weight`` 1, (B, M, P, 1); 0 elsewhere."""
    count = weight.sum(dim=(2, 3), keepdim=True) * pixels.shape[3]
    seen = pixels * weight  # the one copy
    centred = seen.sub_(seen.sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)).mul_(weight)
    variance = centred.flatten(2).norm(dim=2).square()[:, :, None, None] / (count - 1).clamp(min=1)
    return centred.div_((variance + 1e-6).sqrt())


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, N) of ``x`` (B, L, …), image by image."""
    rows = index + torch.arange(len(x), device=x.device).unsqueeze(1) * x.shape[1]
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, index.shape)
