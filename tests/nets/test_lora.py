"""Adapters: nothing at the start, alone in what they change, and gone from the file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geossl.bands import Band, Sensor, Statistics, sensor
from geossl.errors import SettingsError
from geossl.nets.adapt import architecture_of, start
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.lora import merged
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import load_encoder, save_encoder

S2 = sensor("sentinel-2-l2a").subset(("B02", "B03", "B04", "B08"))
VV, VH = sensor("sentinel-1-rtc").bands
RANK = 4
KERNELS = "backbone.patch_embed.proj.weight"
RADAR = "backbone.patch_embed.polarisation"
BANDS = {"name": "vit-tiny", "patch": 8, "image": 32}
WAVES = BANDS | {"embedding": "wavelengths"}


def of(*bands: Band) -> Sensor:
    return Sensor("own", bands, S2.radiometry)


def numbers(bands: int) -> Statistics:
    return Statistics((9,) * bands, (1500.0,) * bands, (700.0,) * bands, *[(0.0,) * bands] * 4)


def original(folder: Path, settings: dict[str, Any], bands: Sensor = S2) -> Encoder:
    torch.manual_seed(1)
    chosen = EncoderSettings(**settings)
    net = build_encoder(chosen, bands.bands).eval()
    save_encoder(folder, net, Card(chosen, bands, numbers(len(bands.bands)), method="simclr"))
    return net


def go_on(folder: Path, settings: dict[str, Any], own: Sensor, **init: Any) -> Encoder:
    chosen = InitSettings(encoder=folder, **({"lora": RANK} | init))
    source = load_source(chosen)
    torch.manual_seed(9)
    net = build_encoder(architecture_of(EncoderSettings(**settings), source, chip=32), own.bands)
    start(net, source, chosen, own, numbers(len(own.bands)))
    return net.eval()


def trained(net: Encoder, bands: int) -> Encoder:
    """The encoder after a few steps of AdamW, with its weight decay, towards anything at all."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, bands, 32, 32)).pooled.sin().sum().backward()
        optimizer.step()
    return net


def features(net: Encoder, image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = net(image)
    return [*found.maps, found.pooled]


def moved(before: Encoder, after: Encoder) -> set[str]:
    was, now = before.state_dict(), merged(after)
    assert was.keys() == now.keys()
    return {name for name in was if was[name].shape != now[name].shape or not torch.equal(was[name], now[name])}


@pytest.mark.parametrize("settings", [BANDS, WAVES], ids=["bands", "wavelengths"])
def test_it_starts_where_the_original_is(tmp_path: Path, settings: dict[str, Any]) -> None:
    net = original(tmp_path, settings)
    image = torch.randn(2, 4, 32, 32)
    for mine, want in zip(features(go_on(tmp_path, settings, S2), image), features(net, image), strict=True):
        torch.testing.assert_close(mine, want, atol=0, rtol=0)


def test_without_new_bands_only_the_blocks_linear_layers_change(tmp_path: Path) -> None:
    net = original(tmp_path, BANDS)
    again = go_on(tmp_path, BANDS, S2)
    learning = sum(p.numel() for p in again.parameters() if p.requires_grad)
    dim, depth = 192, 12
    assert learning == depth * RANK * ((dim + 3 * dim) + (dim + dim) + 2 * (dim + 4 * dim))  # qkv, proj, two of the MLP
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    changed = moved(net, trained(again, 4))
    assert changed == {f"backbone.blocks.{i}.{layer}.weight" for i in range(depth) for layer in layers}
    difference = (
        merged(again)["backbone.blocks.5.mlp.fc1.weight"] - net.state_dict()["backbone.blocks.5.mlp.fc1.weight"]
    )
    assert int(torch.linalg.matrix_rank(difference.double(), rtol=1e-4)) == RANK


def test_kernels_of_new_bands_learn_and_those_of_known_bands_stay(tmp_path: Path) -> None:
    net = original(tmp_path, BANDS)
    # in between: a band from zero, one from the nearest, and red under another name
    edge, red = Band("edge", 0.72, 20), Band("rouge", 0.66, 10)
    own = of(S2.bands[0], VV, red, edge, S2.bands[3])
    again = go_on(tmp_path, BANDS, own, bands={"VV": None}, unmapped="nearest")
    at_start = merged(again)[KERNELS].clone()
    known, want = [0, 2, 4], net.state_dict()[KERNELS][:, [0, 2, 3]]
    torch.testing.assert_close(at_start[:, known], want, atol=0, rtol=0)
    torch.testing.assert_close(at_start[:, 3], want[:, 1], atol=0, rtol=0)
    now = merged(trained(again, 5))[KERNELS]
    torch.testing.assert_close(now[:, known], want, atol=0, rtol=0)
    assert ((now - at_start)[:, [1, 3]].abs().amax(dim=(0, 2, 3)) > 1e-3).all()
    assert KERNELS not in moved(net, trained(go_on(tmp_path, BANDS, S2), 4))


def test_by_wavelength_only_radar_that_is_new_learns(tmp_path: Path) -> None:
    net = original(tmp_path, WAVES, of(*S2.bands, VV))
    again = trained(go_on(tmp_path, WAVES, of(*S2.bands, VV, VH)), 6)
    assert {name for name in moved(net, again) if ".blocks." not in name} == {RADAR}
    changed = (merged(again)[RADAR] != net.state_dict()[RADAR]).any(dim=1)
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("settings", [BANDS, WAVES], ids=["bands", "wavelengths"])
def test_the_file_holds_a_plain_encoder_with_the_same_features(tmp_path: Path, settings: dict[str, Any]) -> None:
    original(tmp_path / "first", settings)
    both = of(*S2.bands, VV, VH)
    init = {"unmapped": "zero"} if settings is BANDS else {}
    net = trained(go_on(tmp_path / "first", settings, both, **init), 6)
    save_encoder(tmp_path / "on", net, Card(net.settings, both, numbers(6), method="simclr"))
    plain, _ = load_encoder(tmp_path / "on")
    assert plain.state_dict().keys() == build_encoder(net.settings, both.bands).state_dict().keys()
    assert all(p.requires_grad for name, p in plain.named_parameters() if "pos_embed" not in name)
    image = torch.randn(2, 6, 32, 32)
    for mine, want in zip(features(plain, image), features(net, image), strict=True):
        torch.testing.assert_close(mine, want, atol=1e-5, rtol=1e-5)


def test_a_copy_follows_its_own_adapters(tmp_path: Path) -> None:
    """As momentum encoders need it."""
    original(tmp_path, BANDS)
    net = go_on(tmp_path, BANDS, S2)
    image = torch.randn(1, 4, 32, 32)
    copy, before = deepcopy(net), features(net, image)[-1]
    trained(net, 4)
    assert not torch.allclose(features(net, image)[-1], before)
    torch.testing.assert_close(features(copy, image)[-1], before, atol=0, rtol=0)


def test_what_is_no_transformer_is_refused(tmp_path: Path) -> None:
    unet = {"name": "unet-tiny"}
    original(tmp_path, unet)
    with pytest.raises(SettingsError, match=r"unet-tiny has none(.|\n)*leave init\.lora out"):
        go_on(tmp_path, unet, S2)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        InitSettings(encoder=tmp_path, lora=0)
