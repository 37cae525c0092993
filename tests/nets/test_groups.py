"""Encoders with groups of bands: which token sees what, and what others see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from geossl.bands import Statistics, sensor
from geossl.errors import SettingsError
from geossl.nets.adapt import architecture_of
from geossl.nets.card import Card
from geossl.nets.encoder import VitEncoder, build_encoder
from geossl.nets.export import export_encoder
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import load_encoder, save_encoder

S2 = sensor("sentinel-2-l2a").subset(("B02", "B03", "B04", "B08", "B11"))
GROUPS = (("B03", "B11"), ("B08",), ("B04", "blue"))
INDICES = ((1, 4), (3,), (2, 0))
VIT: dict[str, Any] = {"name": "vit-tiny", "patch": 8, "image": 32}
STATISTICS = Statistics((9,) * 5, (0.0,) * 5, (1.0,) * 5, *[(0.0,) * 5] * 4)


def vit(**settings: Any) -> VitEncoder:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(**VIT | {"groups": GROUPS} | settings), S2.bands).eval()
    assert isinstance(encoder, VitEncoder)
    return encoder


def test_a_token_sees_its_patch_of_its_bands_alone() -> None:
    encoder, shape = vit(), (16, 24)
    image = torch.randn(1, 5, *shape, requires_grad=True)
    tokens, _ = encoder.embed(image)
    assert tokens.shape == (1, 3 * 6, 192)
    for number, token in enumerate(tokens[0]):
        (gradient,) = torch.autograd.grad(token.square().sum(), image, retain_graph=True)
        (group, place), seen = divmod(number, 6), torch.zeros(5, *shape, dtype=torch.bool)
        row, column = place // 3 * 8, place % 3 * 8
        seen[list(INDICES[group]), row : row + 8, column : column + 8] = True
        assert torch.equal(gradient[0] != 0, seen)


def test_a_token_says_where_it_is_and_of_which_group() -> None:
    encoder = vit(name="vit-small")
    with torch.no_grad():
        for kernel in encoder.backbone.patch_embed.proj:
            kernel.bias.zero_()
        tokens, cls = encoder.embed(torch.zeros(1, 5, 32, 32))
    # the paper's: 2/3 for row and column, 1/3 for the group
    rate = 10000 ** -(np.arange(64) / 64)
    want = np.zeros((3, 4, 4, 384))
    for group, row, column in np.ndindex(3, 4, 4):
        row_, column_, group_ = (number * rate for number in (row, column, group))
        parts = [np.sin(row_), np.sin(column_), np.cos(row_), np.cos(column_), np.sin(group_), np.cos(group_)]
        want[group, row, column] = np.concatenate(parts)
    np.testing.assert_allclose(tokens[0].reshape(3, 4, 4, 384), want, atol=1e-5)
    torch.testing.assert_close(cls, encoder.backbone.cls_token)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24)])
def test_tokens_that_are_kept_are_as_they_are_among_all(shape: tuple[int, int]) -> None:
    encoder, image = vit(), torch.randn(2, 5, *shape)
    tokens, cls = encoder.embed(image)
    places = tokens.shape[1] // 3
    drawn = torch.rand(2, 3, places).argsort(dim=2)[..., :4]  # four of each group
    keep = (drawn + places * torch.arange(3).unsqueeze(1)).flatten(1)
    got, got_cls = encoder.embed(image, keep=keep)
    torch.testing.assert_close(got, tokens.take_along_dim(keep.unsqueeze(2), dim=1))
    torch.testing.assert_close(got_cls, cls)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24)])
def test_maps_are_the_mean_over_groups(shape: tuple[int, int]) -> None:
    encoder, image = vit(), torch.randn(2, 5, *shape)
    with torch.inference_mode():
        tokens, cls = encoder.embed(image)
        out = encoder.transform(torch.cat([cls, tokens], dim=1))[:, 1:]
        features = encoder(image)
    rows, columns = shape[0] // 8, shape[1] // 8
    want = torch.stack(out.chunk(3, dim=1)).mean(dim=0).reshape(2, rows, columns, 192)
    torch.testing.assert_close(features.maps[-1], want.permute(0, 3, 1, 2))
    torch.testing.assert_close(features.pooled, out.mean(dim=1))
    assert [each.shape for each in features.maps] == [(2, 192, rows, columns)] * 4


def test_one_group_of_all_bands_is_no_group() -> None:
    plain, one = vit(groups=None), vit(groups=[S2.band_names])
    state = {
        key.replace("patch_embed.proj.", "patch_embed.proj.0."): value for key, value in plain.state_dict().items()
    }
    torch.testing.assert_close(one.backbone.pos_embed, plain.backbone.pos_embed)
    one.load_state_dict(state)
    image = torch.randn(2, 5, 40, 24)
    with torch.inference_mode():
        for mine, theirs in zip(one(image).maps, plain(image).maps, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    encoder = vit()
    saved = save_encoder(tmp_path, encoder, Card(encoder.settings, S2, STATISTICS, method="mae"))
    loaded, card = load_encoder(tmp_path)
    assert card == saved
    assert card.architecture.groups == GROUPS
    image = torch.randn(1, 5, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(image).pooled, encoder(image).pooled)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["B02", "B03", "B04"], ["B08", "B12"]], "no band B12"),
        ([["B02", "B03", "B04"], ["B08"]], "B11 must each be in exactly one group"),
        ([["B02", "B03", "B04"], ["B08", "B11", "blue"]], "B02 must each be in exactly one group"),
    ],
)
def test_each_band_is_in_one_group(groups: list[list[str]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        vit(groups=groups)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "resnet18"},
        {**VIT, "embedding": "wavelengths"},
        {**VIT, "groups": []},
        {**VIT, "groups": [["B02"], []]},
    ],
)
def test_groups_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="groups"):
        EncoderSettings.model_validate({"groups": GROUPS} | settings)


def test_what_groups_do_not_go_with_says_so(tmp_path: Path) -> None:
    encoder = vit()
    card = save_encoder(tmp_path / "e", encoder, Card(encoder.settings, S2, STATISTICS, method="mae"))
    with pytest.raises(SettingsError, match="built for bands"):
        build_encoder(encoder.settings, 5)
    with pytest.raises(SettingsError, match="5 bands, and the image has 6"):
        encoder(torch.zeros(1, 6, 32, 32))
    with pytest.raises(SettingsError, match=r"groups of bands(.|\n)*without encoder.groups"):
        export_encoder(encoder, card, "timm", tmp_path / "out")
    source = load_source(InitSettings(encoder=tmp_path / "e"))
    for settings in (encoder.settings, EncoderSettings(**VIT)):
        with pytest.raises(SettingsError, match="starts from chance alone"):
            architecture_of(settings, source, chip=32)
