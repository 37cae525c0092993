from __future__ import annotations

from typing import Literal

import pytest
from timm.optim import param_groups_layer_decay

from geossl.nets.encoder import build_encoder
from geossl.nets.layers import layers, rates
from geossl.nets.settings import EncoderSettings


def test_rates_of_a_transformer_are_timms() -> None:
    encoder = build_encoder(EncoderSettings(name="vit-tiny", image=64), 3)
    ours = rates(encoder, 0.75)
    names = {id(p): name for name, p in encoder.named_parameters()}
    groups = param_groups_layer_decay(encoder.backbone, layer_decay=0.75)
    theirs = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(theirs) > 100
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unet-tiny", {"backbone.stages.0": 1, "backbone.stages.3": 4}),
        ("resnet18", {"backbone.conv1": 0, "backbone.bn1": 0, "backbone.layer1": 1, "backbone.layer4": 4}),
        ("convnext-tiny", {"backbone.stem_0": 0, "backbone.stages_0": 1, "backbone.stages_3": 4}),
    ],
)
def test_stages_are_layers(name: Literal["unet-tiny", "resnet18", "convnext-tiny"], expected: dict[str, int]) -> None:
    encoder = build_encoder(EncoderSettings(name=name), 2)
    found = layers(encoder)
    assert found.keys() == dict(encoder.named_parameters()).keys()
    for prefix, number in expected.items():
        of_stage = {n for parameter, n in found.items() if parameter.startswith(f"{prefix}.")}
        assert of_stage == {number}, prefix
    assert max(rates(encoder, 0.5).values()) == 1
