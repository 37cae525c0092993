from __future__ import annotations

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from geossl.methods.registry import METHODS, build_method
from geossl.methods.settings import MethodSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

SETTINGS = TypeAdapter(MethodSettings)
SMALL = {"relative": {"patch": 8}}
"""What fits into chips of 32 pixels."""


def test_every_method_that_settings_allow_is_registered() -> None:
    union = get_args(get_args(MethodSettings)[0])
    assert {settings.model_fields["name"].default for settings in union} == set(METHODS)


@pytest.mark.parametrize(
    ("method", "encoder"),
    [
        ("mae", "vit-tiny"),
        ("simclr", "vit-tiny"),
        ("simclr", "unet-tiny"),
        ("simclr", "resnet18"),
        ("relative", "vit-tiny"),
        ("relative", "unet-tiny"),
        ("transforms", "vit-tiny"),
        ("transforms", "resnet18"),
        ("dense", "vit-tiny"),
        ("dense", "unet-tiny"),
        ("dense", "resnet18"),
        ("mocov2", "vit-tiny"),
        ("mocov2", "unet-tiny"),
        ("mocov3", "vit-tiny"),
        ("mocov3", "unet-tiny"),
        ("lejepa", "vit-tiny"),
        ("lejepa", "unet-tiny"),
        ("dino", "vit-tiny"),
        ("dino", "unet-tiny"),
        ("dino", "resnet18"),
    ],
)
@pytest.mark.parametrize("bands", [1, 13])
def test_every_weight_learns_on_any_number_of_bands(method: str, encoder: str, bands: int) -> None:
    # distributed training waits for ever for a weight without a gradient
    torch.manual_seed(0)
    built = build_method(
        SETTINGS.validate_python({"name": method} | SMALL.get(method, {})),
        build_encoder(EncoderSettings(name=encoder, image=32), bands),
    )
    batch = {"image": torch.randn(4, bands, 32, 32), "valid": torch.ones(4, 32, 32, dtype=torch.bool)}
    losses = built(batch)
    losses.total.backward()
    idle = [name for name, p in built.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert all(view.shape == (4, built.encoder.dims[-1]) for view in losses.views)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_shows_what_the_encoder_sees(method: str) -> None:
    built = build_method(
        SETTINGS.validate_python({"name": method} | SMALL.get(method, {})),
        build_encoder(EncoderSettings(name="vit-tiny", image=32), 3),
    )
    torch.manual_seed(0)
    batch = {"image": torch.randn(4, 3, 32, 32), "valid": torch.ones(4, 32, 32, dtype=torch.bool)}
    batch["valid"][1] = False
    view = built.view(batch)
    assert view.shape == batch["image"].shape
    assert not view[1].any()
    assert view[[0, 2, 3]].std(dim=(1, 2, 3)).min() > 0.3


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="mask_ratio"):
        SETTINGS.validate_python({"name": "simclr", "mask_ratio": 0.5})
