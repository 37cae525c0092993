from __future__ import annotations

from typing import get_args

import pytest
import torch

from geossl.bands import Band
from geossl.errors import SettingsError
from geossl.nets.encoder import VitEncoder, build_encoder
from geossl.nets.settings import EncoderName, EncoderSettings

HEAVY = ("vit-base", "vit-large", "resnet50", "convnext-tiny")
LIGHT = [name for name in get_args(EncoderName) if name not in HEAVY and not name.startswith("olmoearth-")]
"""One of each family that takes any bands; the rest differ in size alone."""


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("bands", [1, 13])
def test_maps_have_the_announced_shapes(name: str, bands: int) -> None:
    encoder = build_encoder(EncoderSettings(name=name, patch=8, image=64), bands).eval()
    with torch.inference_mode():
        features = encoder(torch.randn(2, bands, 64, 96))
    shapes = [tuple(each.shape) for each in features.maps]
    assert shapes == [(2, d, 64 // s, 96 // s) for d, s in zip(encoder.dims, encoder.strides, strict=True)]
    assert list(encoder.strides) == sorted(encoder.strides)
    torch.testing.assert_close(features.pooled, features.maps[-1].mean(dim=(2, 3)))


def test_every_band_reaches_every_encoder() -> None:
    for name in LIGHT:
        encoder = build_encoder(EncoderSettings(name=name, image=32), 5).eval()
        image = torch.randn(1, 5, 32, 32, requires_grad=True)
        encoder(image).pooled.square().sum().backward()
        assert image.grad is not None
        assert (image.grad.abs().sum(dim=(0, 2, 3)) > 0).all(), name


@pytest.mark.parametrize("name", ["unet-tiny", "resnet18"])
def test_the_receptive_field_is_what_it_says(name: str) -> None:
    encoder = build_encoder(EncoderSettings(name=name), 2).eval()
    side = 96 if name == "unet-tiny" else 480
    extents = []
    for _ in range(3 if name == "unet-tiny" else 1):
        image = torch.randn(1, 2, side, side, requires_grad=True)
        last = encoder(image).maps[-1]
        last[0, :, last.shape[2] // 2, last.shape[3] // 2].sum().backward()
        assert image.grad is not None
        rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        extents.append(int(rows.max() - rows.min()) + 1)
    assert max(extents) <= encoder.receptive_field
    if name == "unet-tiny":  # deeper ones let too little through at the rim to be seen
        assert max(extents) >= encoder.receptive_field - 2


def test_convnext_and_resnet50_receptive_fields() -> None:
    # ResNet-50 as in https://distill.pub/2019/computing-receptive-fields with timm's stride in the 3×3
    assert build_encoder(EncoderSettings(name="resnet50"), 1).receptive_field == 427
    assert build_encoder(EncoderSettings(name="convnext-tiny"), 1).receptive_field == 1688


def test_a_window_says_the_same_as_the_whole_image_away_from_its_rim() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 3).eval()
    image = torch.randn(1, 3, 160, 160)
    margin = encoder.receptive_field // 2 // 8 + 1  # cells of the coarsest map
    with torch.inference_mode():
        whole = encoder(image).maps[-1]
        window = encoder(image[..., 32:, 32:]).maps[-1]
    torch.testing.assert_close(window[..., margin:, margin:], whole[..., 4 + margin :, 4 + margin :])


@pytest.mark.parametrize("name", ["unet-tiny", "vit-tiny", "resnet18"])
def test_an_image_that_does_not_fit_is_refused_with_a_remedy(name: str) -> None:
    encoder = build_encoder(EncoderSettings(name=name), 2)
    with pytest.raises(SettingsError, match=f"multiples of {max(encoder.strides)} px"):
        encoder(torch.zeros(1, 2, 64, 60))


def test_a_patch_must_divide_the_image() -> None:
    with pytest.raises(SettingsError, match="divides"):
        build_encoder(EncoderSettings(name="vit-tiny", patch=7, image=64), 3)


def test_a_vits_maps_are_its_blocks_and_end_in_its_norm() -> None:
    encoder = build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=32), 3).eval()
    assert isinstance(encoder, VitEncoder)
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens, cls = encoder.embed(image)
        out = encoder.transform(torch.cat([cls, tokens], dim=1))[:, 1:]
        last = encoder(image).maps[-1]
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), out)


@pytest.mark.parametrize("embedding", ["bands", "wavelengths", "dofa"])
@pytest.mark.parametrize("shape", [(32, 32), (40, 24)])
def test_patches_that_are_kept_have_the_tokens_that_they_have_among_all(embedding: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    bands = [Band(f"b{i}", 0.5 + i / 10, 10) for i in range(3)]
    settings = EncoderSettings.model_validate({"name": "vit-tiny", "patch": 8, "image": 32, "embedding": embedding})
    encoder = build_encoder(settings, bands)
    assert isinstance(encoder, VitEncoder)
    image = torch.randn(2, 3, *shape)
    tokens, cls = encoder.embed(image)
    keep = torch.rand(tokens.shape[:2]).argsort(dim=1)[:, :5]
    want = tokens.take_along_dim(keep.unsqueeze(2), dim=1)
    got, got_cls = encoder.embed(image, keep=keep)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_cls, cls)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    gradients = [torch.autograd.grad(x.square().sum(), weights, materialize_grads=True) for x in (got, want)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_vit_knows_where_a_patch_is() -> None:
    encoder = build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=32), 1)
    assert isinstance(encoder, VitEncoder)
    tokens, _ = encoder.embed(torch.zeros(1, 1, 32, 32))
    assert torch.cdist(tokens[0], tokens[0]).add(torch.eye(16)).min() > 0.1


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [("vit-tiny", 192, 12, 3), ("vit-small", 384, 12, 6), ("vit-base", 768, 12, 12), ("vit-large", 1024, 24, 16)],
)
@pytest.mark.parametrize("patch", [4, 8, 16])
def test_vits_have_the_published_sizes(name: str, width: int, depth: int, heads: int, patch: int) -> None:
    # https://arxiv.org/abs/2010.11929, table 1, and https://arxiv.org/abs/2012.12877, table 1
    with torch.device("meta"):  # shapes alone: a large one would take a gigabyte
        encoder = build_encoder(EncoderSettings(name=name, patch=patch, image=64), 10)
        features = encoder(torch.zeros(1, 10, 64, 64))
    assert isinstance(encoder, VitEncoder)
    blocks = encoder.backbone.blocks
    assert (encoder.dims, encoder.strides) == ((width,) * 4, (patch,) * 4)
    assert (len(blocks), blocks[0].attn.num_heads, blocks[0].mlp.fc1.out_features) == (depth, heads, 4 * width)
    assert [tuple(each.shape) for each in features.maps] == [(1, width, 64 // patch, 64 // patch)] * 4


def test_one_seed_one_encoder() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(build_encoder(EncoderSettings(name="unet-tiny"), 2).state_dict())
    first = "backbone.stages.0.0.weight"
    assert torch.equal(weights[0][first], weights[1][first])
    assert not torch.equal(weights[0][first], weights[2][first])
