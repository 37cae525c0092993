from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor

from geossl.errors import SettingsError
from geossl.methods.mae import Mae, normalize_patches, patchify
from geossl.methods.settings import MaeSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

BANDS, SIDE, PATCH = 5, 32, 8


@pytest.fixture
def mae() -> Mae:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="vit-tiny", patch=PATCH, image=SIDE), BANDS)
    return Mae(MaeSettings(decoder_dim=64), encoder)


def paper(mae: Mae, images: Tensor, noise: Tensor, ratio: float) -> Tensor:
    """The loss as models_mae.py of the paper's authors computes it, one line a step, with our weights."""
    vit = mae.encoder.backbone
    assert vit.pos_embed is not None
    assert vit.cls_token is not None
    # patch embedding with positions, without the class token
    x = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
    x = x + vit.pos_embed[:, 1:]
    # random masking: sort the noise, keep the first, mask is 0 keep, 1 remove
    n, length, dim = x.shape
    keep = int(length * (1 - ratio))
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    x = torch.gather(x, 1, ids_shuffle[:, :keep].unsqueeze(-1).repeat(1, 1, dim))
    mask = torch.ones(n, length)
    mask[:, :keep] = 0
    mask = torch.gather(mask, 1, ids_restore)
    # class token, blocks, norm
    cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(n, -1, -1)
    x = torch.cat((cls, x), dim=1)
    for block in vit.blocks:
        x = block(x)
    x = vit.norm(x)
    # decoder
    x = mae.enter(x)
    tokens = mae.mask_token.repeat(n, ids_restore.shape[1] + 1 - x.shape[1], 1)
    x_ = torch.cat([x[:, 1:], tokens], dim=1)
    x_ = torch.gather(x_, 1, ids_restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
    side = images.shape[2] // PATCH
    x_ = x_ + build_sincos2d_pos_embed([side, side], dim=x.shape[2])
    x = torch.cat([x[:, :1], x_], dim=1)
    for block in mae.blocks:
        x = block(x)
    pred = mae.predict(mae.norm(x))[:, 1:]
    # patchify: nchpwq -> nhwpqc
    h = w = side
    target = images.reshape(n, BANDS, h, PATCH, w, PATCH)
    target = torch.einsum("nchpwq->nhwpqc", target).reshape(n, h * w, PATCH**2 * BANDS)
    # loss on normalised pixels of removed patches
    mean = target.mean(dim=-1, keepdim=True)
    var = target.var(dim=-1, keepdim=True)
    target = (target - mean) / (var + 1.0e-6) ** 0.5
    loss = ((pred - target) ** 2).mean(dim=-1)
    return (loss * mask).sum() / mask.sum()


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_the_loss_is_the_papers(mae: Mae, ratio: float) -> None:
    mae.settings = MaeSettings(mask_ratio=ratio, decoder_dim=64)
    images = torch.randn(3, BANDS, SIDE, SIDE)
    noise = torch.rand(3, (SIDE // PATCH) ** 2)
    valid = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    ours = mae.losses(images, valid, noise).total
    theirs = paper(mae, images, noise, ratio)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    parameters = [p for p in mae.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_patches_are_in_row_order() -> None:
    image = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 4, 2)
    assert patches[0, 1].flatten().tolist() == [2, 26, 3, 27, 8, 32, 9, 33]
    assert patches[0, 3].flatten().tolist() == [12, 36, 13, 37, 18, 42, 19, 43]


def test_targets_are_normalised_over_valid_pixels_alone() -> None:
    rng = np.random.default_rng(0)
    target, weight = rng.normal(5, 3, (2, 3, 20, 4)), (rng.random((2, 3, 20, 1)) > 0.4).astype(float)
    got = normalize_patches(torch.tensor(target), torch.tensor(weight)).numpy()
    for index in np.ndindex(2, 3):
        seen = weight[index][:, 0] > 0
        values = target[index][seen]
        want = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
        np.testing.assert_allclose(got[index][seen], want, atol=1e-9)


def test_what_lies_under_invalid_pixels_does_not_matter(mae: Mae) -> None:
    valid = torch.rand(4, SIDE, SIDE) > 0.2
    valid[1, :20] = False
    image = torch.randn(4, BANDS, SIDE, SIDE)
    losses = []
    for under in (0.0, 50.0):
        torch.manual_seed(7)
        losses.append(mae({"image": image.masked_fill(~valid.unsqueeze(1), under), "valid": valid}).total)
    # the views blend under a valid border only where the mask then says invalid
    torch.testing.assert_close(losses[0], losses[1])


def test_mostly_invalid_patches_are_neither_shown_nor_scored(mae: Mae) -> None:
    image = torch.randn(1, BANDS, SIDE, SIDE)
    valid = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    valid[:, : SIDE // 2] = False  # the upper 8 of 16 patches
    image = image.masked_fill(~valid.unsqueeze(1), 0)
    noise = torch.linspace(0, 0.9, 16).unsqueeze(0)  # would keep the first four, all invalid
    with torch.no_grad():
        score = mae.losses(image, valid, noise).total
        # as if only the lower half had noise: patches 8–11 stay, 12–15 are scored
        want = paper_restricted(mae, image, keep=[8, 9, 10, 11], score=[12, 13, 14, 15])
    torch.testing.assert_close(score, want, atol=1e-5, rtol=0)


def paper_restricted(mae: Mae, image: Tensor, keep: list[int], score: list[int]) -> Tensor:
    tokens, cls = mae.encoder.embed(image)
    latent = mae.enter(mae.encoder.transform(torch.cat([cls, tokens[:, keep]], dim=1)))
    x = mae.mask_token.repeat(1, 16, 1)
    x[:, keep] = latent[:, 1:]
    x = x + build_sincos2d_pos_embed([4, 4], dim=x.shape[2])
    prediction = mae.predict(mae.norm(mae.blocks(torch.cat([latent[:, :1], x], dim=1))))[:, 1:]
    target = patchify(image, PATCH).flatten(2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return ((prediction - target) ** 2).mean(-1)[:, score].mean()


def test_a_batch_without_one_valid_pixel_has_no_loss_and_no_nan(mae: Mae) -> None:
    valid = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    losses = mae({"image": torch.zeros(2, BANDS, SIDE, SIDE), "valid": valid})
    losses.total.backward()
    assert losses.total == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in mae.parameters())


def test_mae_learns(mae: Mae) -> None:
    torch.manual_seed(0)
    x = torch.linspace(0, 6, SIDE)
    image = torch.stack([(x + i).sin()[:, None] * (x * (1 + b)).cos() for i in range(8) for b in range(BANDS)])
    batch = {"image": image.reshape(8, BANDS, SIDE, SIDE), "valid": torch.ones(8, SIDE, SIDE, dtype=torch.bool)}
    optimizer = torch.optim.AdamW(mae.parameters(), 1e-3)
    history = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = mae(batch).total
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-5:]) < 0.9 * history[0]


def test_only_transformers_are_masked() -> None:
    with pytest.raises(SettingsError, match="unet-tiny has none"):
        Mae(MaeSettings(), build_encoder(EncoderSettings(name="unet-tiny"), BANDS))
