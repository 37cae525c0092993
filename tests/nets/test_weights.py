from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from geossl.bands import Statistics, sensor
from geossl.errors import RadiometryError, StoreError
from geossl.files import write_bytes
from geossl.nets import weights
from geossl.nets.card import FORMAT, Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import load_encoder, save_encoder

SENSOR = sensor("sentinel-2-l2a").subset(("blue", "green", "red"))
STATISTICS = Statistics((9, 9, 9), (0.1, 200.0, 3.5), (1.0, 2.0, 3.0), *[(0.0, 1.0, 2.0)] * 4)


def example(name: str = "unet-tiny", seed: int = 0) -> tuple[Encoder, Card]:
    torch.manual_seed(seed)
    settings = EncoderSettings(name=name, image=32)
    card = Card(
        architecture=settings,
        sensor=SENSOR,
        statistics=STATISTICS,
        method="simclr",
        settings={"epochs": 3},
        snapshot="ABC123",
        created="2026-11-23T06:00:00+00:00",
        scores=({"task": "landcover", "mean": 0.5},),
        health={"std": 0.3, "alignment": None},
    )
    return build_encoder(settings, 3), card


@pytest.mark.parametrize("name", ["unet-tiny", "vit-tiny", "resnet18"])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, name: str) -> None:
    encoder, card = example(name)
    encoder(torch.randn(4, 3, 32, 32))  # moves batch norm's running statistics
    saved = save_encoder(tmp_path / "e", encoder, card)
    loaded, read = load_encoder(tmp_path / "e")
    assert read == saved
    assert dataclasses.replace(read, id="", weights="") == card
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["card.json", "encoder.safetensors"]


def test_the_id_is_the_contents(tmp_path: Path) -> None:
    first = save_encoder(tmp_path / "a", *example())
    encoder, card = example()
    later = save_encoder(tmp_path / "b", encoder, dataclasses.replace(card, created="2027-01-01T00:00:00+00:00"))
    other = save_encoder(tmp_path / "c", *example(seed=1))
    assert first.id == later.id != other.id
    assert first.id.startswith("simclr-unet-tiny-")
    assert len(first.id) == len("simclr-unet-tiny-") + 8


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    save_encoder(tmp_path, *example())
    path = tmp_path / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        load_encoder(tmp_path)


def test_a_writing_that_is_cut_off_leaves_no_wrong_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_encoder(tmp_path, *example())

    def cut(path: Path, content: bytes) -> None:
        if path.name == "card.json":
            raise KeyboardInterrupt
        write_bytes(path, content)

    monkeypatch.setattr(weights, "write_bytes", cut)
    with pytest.raises(KeyboardInterrupt):
        save_encoder(tmp_path, *example(seed=1))
    with pytest.raises(StoreError, match="no encoder at"):
        load_encoder(tmp_path)


def test_missing_and_newer_and_broken_cards_say_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no encoder at"):
        load_encoder(tmp_path / "nowhere")
    save_encoder(tmp_path, *example())
    path = tmp_path / "card.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    for bad, message in [
        ({**good, "format": FORMAT + 1}, "update geossl"),
        ({key: value for key, value in good.items() if key != "sensor"}, "damaged: 'sensor'"),
        ({**good, "architecture": {"name": "unknown"}}, "damaged"),
        ([], "is no card"),
    ]:
        path.write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(StoreError, match=message):
            load_encoder(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="damaged"):
        load_encoder(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, *example())
    path = tmp_path / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**card, "architecture": {"name": "unet-small"}}), encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be loaded"):
        load_encoder(tmp_path)


def test_imagery_of_other_bands_is_refused_by_name(tmp_path: Path) -> None:
    card = save_encoder(tmp_path, *example())
    card.require(SENSOR, "the cube at ./store")
    with pytest.raises(RadiometryError, match=f"{card.id}.*the cube at ./store.*bands"):
        card.require(SENSOR.subset(("red", "green", "blue")), "the cube at ./store")
