"""A pretraining that goes on from an encoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from geossl.bands import Band, Sensor, Statistics
from geossl.nets.card import Card
from geossl.nets.weights import load_encoder
from geossl.train.pretrain import pretrain

from .synthetic import SENSOR, Places, run, settings

VIT = {"name": "vit-tiny", "patch": 8}
RADAR = (Band("VV", None, 10), Band("VH", None, 10))
BOTH = Sensor("five", (*SENSOR.bands, *RADAR), SENSOR.radiometry)
NUMBERS = Statistics((9,) * 5, (1500.0,) * 5, (900.0,) * 5, *[(0.0,) * 5] * 4)


def go_on(folder: Path, start: Path, loader: Places, **changes: Any) -> Card:
    chosen = settings(init={"encoder": start, "unmapped": "zero"}, **({"encoder": VIT, "epochs": 1} | changes))
    return pretrain(chosen, loader, sensor=BOTH, statistics=NUMBERS, snapshot=None, folder=folder)


def test_it_starts_where_the_other_ended_and_says_so(tmp_path: Path) -> None:
    first = run(tmp_path / "first", encoder=VIT, epochs=1)
    card = go_on(tmp_path / "on", tmp_path / "first", Places(bands=5), learning_rate=1e-9, weight_decay=0.0)
    assert card.origin["source"] == first.id
    assert card.origin["bands"] == {"b0": "b0", "b1": "b1", "b2": "b2", "VV": "zero", "VH": "zero"}
    assert card.settings["init"] == {"weights": None, "champion": None, "bands": {}, "unmapped": "zero", "lora": None}
    assert first.origin == {}
    image = torch.randn(2, 5, 16, 16)
    with torch.inference_mode():
        before = load_encoder(tmp_path / "first")[0](image[:, :3]).pooled
        after = load_encoder(tmp_path / "on")[0](image).pooled
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_the_run_is_known_by_the_encoder_not_by_its_folder(tmp_path: Path) -> None:
    run(tmp_path / "first", encoder=VIT, epochs=1)
    run(tmp_path / "other", encoder=VIT, epochs=1, seed=1)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    loaders = [Places(bands=5) for _ in range(3)]
    cards = [
        go_on(tmp_path / "on", tmp_path / start, loader)
        for start, loader in zip(("first", "copy", "other"), loaders, strict=True)
    ]
    assert [len(loader.handed_out) for loader in loaders] == [5, 0, 5]
    assert cards[0].id == cards[1].id != cards[2].id


def test_an_encoder_by_wavelength_learns_from_light_and_radar(tmp_path: Path) -> None:
    by_wavelength = VIT | {"embedding": "wavelengths"}
    run(tmp_path / "first", encoder=by_wavelength, epochs=1)
    chosen = settings(init={"encoder": tmp_path / "first"}, encoder=by_wavelength, epochs=1)
    card = pretrain(chosen, Places(bands=5), sensor=BOTH, statistics=NUMBERS, snapshot=None, folder=tmp_path / "on")
    assert card.origin["bands"]["VV"] == "new, by polarisation"
    before, after = (load_encoder(tmp_path / name)[0].state_dict() for name in ("first", "on"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.patch_embed.polarisation" in moved
    assert "backbone.patch_embed.weight_generator.fc_weight.weight" in moved


def test_adapters_alone_learn_and_the_encoder_that_is_written_has_none(tmp_path: Path) -> None:
    run(tmp_path / "first", encoder=VIT, epochs=1)
    chosen = settings(
        init={"encoder": tmp_path / "first", "unmapped": "zero", "lora": 2},
        encoder=VIT,
        epochs=1,
        method={"name": "mocov3"},
    )
    pretrain(chosen, Places(bands=5), sensor=BOTH, statistics=NUMBERS, snapshot=None, folder=tmp_path / "on")
    before, after = (load_encoder(tmp_path / name)[0].state_dict() for name in ("first", "on"))
    kernels = "backbone.patch_embed.proj.weight"
    moved = {name for name in before if name != kernels and not torch.equal(before[name], after[name])}
    linear = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")
    assert moved == {name for name in before if ".blocks." in name and name.endswith(linear)}
    torch.testing.assert_close(after[kernels][:, :3], before[kernels], atol=0, rtol=0)
    assert after[kernels][:, 3:].abs().max() > 0
