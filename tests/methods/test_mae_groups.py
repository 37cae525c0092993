"""The masked autoencoder with groups of bands, beside the paper: https://arxiv.org/abs/2207.08051."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor

from geossl.bands import Band
from geossl.methods.mae import Mae
from geossl.methods.settings import MaeSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

SIDE, PATCH, PLACES = 32, 8, 16
BANDS = [Band(f"b{i}", None, 10) for i in range(5)]
GROUPS = [[0, 3], [4], [2, 1]]
MASKING = ["independent", "consistent"]


def mae(groups: list[list[int]] | None = GROUPS, **settings: Any) -> Mae:
    torch.manual_seed(0)
    names = None if groups is None else [[f"b{i}" for i in group] for group in groups]
    vit = {"name": "vit-tiny", "patch": PATCH, "image": SIDE, "groups": names}
    return Mae(MaeSettings(decoder_dim=96, **settings), build_encoder(EncoderSettings.model_validate(vit), BANDS))


def noise(masking: str, batch: int = 3) -> Tensor:
    return torch.rand(batch, PLACES * (len(GROUPS) if masking == "independent" else 1))


def drawn(masking: str, noise: Tensor, ratio: float) -> Tensor:
    """The mask (N, G, L): 0 keep, 1 remove."""
    n, kept = len(noise), int(PLACES * (1 - ratio))
    rows = noise.reshape(n, -1, PLACES)
    mask = (rows.argsort(dim=2).argsort(dim=2) >= kept).float()
    return mask if masking == "independent" else mask.repeat(1, len(GROUPS), 1)


def encoding(dim: int) -> Tensor:
    """(G, L, dim): the position in two thirds, the group in one."""
    third = dim // 3
    position = build_sincos2d_pos_embed([SIDE // PATCH] * 2, dim=dim - third)
    angle = torch.arange(len(GROUPS)).unsqueeze(1) / 10000 ** (torch.arange(third // 2) / (third // 2))
    group = torch.cat([angle.sin(), angle.cos()], dim=1)
    g = len(GROUPS)
    return torch.cat([position.expand(g, -1, -1), group.unsqueeze(1).expand(-1, PLACES, -1)], dim=2)


def paper(mae: Mae, images: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
    """The loss with our weights, one line a step: all tokens in their order, one head a group."""
    vit: Any = mae.encoder.backbone
    n, g = len(images), len(GROUPS)
    # one patch embedding a group, then what the token is
    x = torch.stack(
        [conv(images[:, group]).flatten(2).mT for group, conv in zip(GROUPS, vit.patch_embed.proj, strict=True)], dim=1
    )  # (N, G, L, D)
    x = (x + encoding(x.shape[3])).flatten(1, 2)
    # the encoder sees tokens of mask 0
    removed = mask.flatten(1)
    kept = int((removed[0] == 0).sum())
    ids_shuffle = removed.argsort(dim=1, stable=True)
    ids_restore = ids_shuffle.argsort(dim=1)
    x = x.take_along_dim(ids_shuffle[:, :kept].unsqueeze(2), dim=1)
    x = torch.cat([vit.cls_token.expand(n, -1, -1), x], dim=1)
    for block in vit.blocks:
        x = block(x)
    x = mae.enter(vit.norm(x))
    # decoder: mask tokens, all in their order
    x_ = torch.cat([x[:, 1:], mae.mask_token.expand(n, g * PLACES - kept, -1)], dim=1)
    x_ = x_.take_along_dim(ids_restore.unsqueeze(2), dim=1) + encoding(x.shape[2]).flatten(0, 1)
    x = torch.cat([x[:, :1], x_], dim=1)
    for block in mae.blocks:
        x = block(x)
    x = mae.norm(x)[:, 1:].unflatten(1, (g, PLACES))
    total, count, row = torch.zeros(()), torch.zeros(()), 0
    for i, group in enumerate(GROUPS):
        # nchpwq -> nhwpqc, and the group's own rows of the heads
        side = SIDE // PATCH
        target = images[:, group].reshape(n, len(group), side, PATCH, side, PATCH)
        target = torch.einsum("nchpwq->nhwpqc", target).reshape(n, PLACES, -1)
        seen = valid.reshape(n, side, PATCH, side, PATCH).permute(0, 1, 3, 2, 4).reshape(n, PLACES, -1)
        rows = slice(row, row := row + target.shape[2])
        pred = x[:, i] @ mae.predict.weight[rows].mT + mae.predict.bias[rows]
        for at in (mask[:, i] * (seen.float().mean(2) >= 0.5)).nonzero().tolist():
            pixels = seen[tuple(at)].repeat_interleave(len(group))
            value = target[tuple(at)][pixels]
            value = (value - value.mean()) / (value.var() + 1e-6).sqrt()
            total, count = total + (pred[tuple(at)][pixels] - value).square().mean(), count + 1
    return total / count


@pytest.mark.parametrize("masking", MASKING)
@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_the_loss_is_the_papers(masking: str, ratio: float) -> None:
    method, images, draws = mae(mask_ratio=ratio), torch.randn(3, 5, SIDE, SIDE), noise(masking)
    valid = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    ours = method.losses(images, valid, draws).total
    theirs = paper(method, images, valid, drawn(masking, draws, ratio))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    parameters = [p for p in method.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_invalid_pixels_count_in_no_group() -> None:
    method, images, draws = mae(), torch.randn(3, 5, SIDE, SIDE), noise("independent")
    valid = torch.rand(3, SIDE, SIDE) > 0.2
    valid[1, 8:16, 8:] = False  # places 5 to 7, which are hidden first and not scored
    images = images.masked_fill(~valid.unsqueeze(1), 0)
    ours = method.losses(images, valid, draws).total
    draws.unflatten(1, (3, -1))[1, :, 5:8] += 1
    theirs = paper(method, images, valid, drawn("independent", draws, 0.75))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_one_group_of_all_bands_is_the_plain_method() -> None:
    plain, one = mae(None), mae([[0, 1, 2, 3, 4]])
    one.load_state_dict(
        {key.replace("patch_embed.proj.", "patch_embed.proj.0."): value for key, value in plain.state_dict().items()}
    )
    images, valid, draws = torch.randn(3, 5, SIDE, SIDE), torch.rand(3, SIDE, SIDE) > 0.2, torch.rand(3, PLACES)
    losses = [method.losses(images, valid, draws).total for method in (plain, one)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("masking", MASKING)
def test_hidden_tokens_do_not_reach_the_encoder(masking: str) -> None:
    method, draws = mae(), noise(masking, 1)
    images = torch.randn(1, 5, SIDE, SIDE, requires_grad=True)
    (seen,) = method.losses(images, torch.ones(1, SIDE, SIDE, dtype=torch.bool), draws).views
    (gradient,) = torch.autograd.grad(seen.square().sum(), images)
    reached = (gradient != 0).unflatten(2, (4, PATCH)).unflatten(4, (4, PATCH)).any(dim=5).any(dim=3).flatten(2)[0]
    mask = drawn(masking, draws, 0.75)[0]
    for i, group in enumerate(GROUPS):
        for band in group:
            assert torch.equal(reached[band], mask[i] == 0)


@pytest.mark.parametrize("masking", MASKING)
def test_a_batch_hides_as_its_settings_say(masking: str) -> None:
    method = mae(masking=masking)
    places: list[Tensor] = []
    embed = method.encoder.embed

    def noted(*arguments: Any, keep: Tensor) -> tuple[Tensor, Tensor]:
        places.append(keep.unflatten(1, (len(GROUPS), -1)) % PLACES)
        return embed(*arguments, keep=keep)

    method.encoder.embed = noted  # type: ignore[method-assign]
    method({"image": torch.randn(8, 5, SIDE, SIDE), "valid": torch.ones(8, SIDE, SIDE, dtype=torch.bool)})
    same = (places[0] == places[0][:, :1]).all()
    assert bool(same) == (masking == "consistent")


def test_it_learns() -> None:
    method = mae()
    x = torch.linspace(0, 6, SIDE)
    image = torch.stack([(x + i).sin()[:, None] * (x * (1 + b)).cos() for i in range(8) for b in range(5)])
    batch = {"image": image.reshape(8, 5, SIDE, SIDE), "valid": torch.ones(8, SIDE, SIDE, dtype=torch.bool)}
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = method(batch).total
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-4:]) < 0.9 * history[0]
