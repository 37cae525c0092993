"""Each export is loaded by the very code that its README prints, and gives geossl's features."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from geossl.bands import Sensor, Statistics, sensor
from geossl.errors import SettingsError, StoreError
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.export import NOTE, Library, export_encoder
from geossl.nets.settings import EncoderSettings

S2 = sensor("sentinel-2-l2a").subset(("B02", "B04", "B08", "B11", "B12"))
BOTH = Sensor("s1-s2", (*S2.bands[:3], *sensor("sentinel-1-rtc").bands), S2.radiometry)
STATISTICS = Statistics((9,) * 5, (300.0, 400.0, 500.0, 600.0, 0.0), (90.0, 80.0, 70.0, 60.0, 0.0), *[(0.0,) * 5] * 4)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}

RESNET = {"name": "resnet18"}
CONVNEXT = {"name": "convnext-tiny"}
VIT = {"name": "vit-tiny", "patch": 8, "image": 32}
VIT_16 = {"name": "vit-tiny", "patch": 16, "image": 64}
WAVES = VIT_16 | {"embedding": "wavelengths"}


def encoder(settings: dict[str, Any], of: Sensor = S2) -> tuple[Encoder, Card]:
    """An encoder with no parameter or statistic as it is when fresh, so that none can be forgotten unseen."""
    torch.manual_seed(3)
    chosen = EncoderSettings(**settings)
    net = build_encoder(chosen, of.bands)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.add_(0.02 * torch.randn_like(tensor))
    return net.eval(), Card(chosen, of, STATISTICS, method="simclr", id="simclr-of-a-test", snapshot="SNAPSHOT")


def loaded(folder: Path, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Maps and pooled features by the code in the README alone."""
    load, features = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"image": image}
    exec(load, names)
    with torch.inference_mode():
        exec(features, names)
    return list(names["maps"]), names["pooled"]


@pytest.mark.parametrize(
    ("library", "settings", "of", "side"),
    [
        ("timm", RESNET, S2, 96),
        ("timm", CONVNEXT, S2, 96),
        ("timm", VIT, S2, 32),
        ("timm", VIT, S2, 48),
        ("timm", WAVES, BOTH, 64),
        ("torchgeo", RESNET, S2, 96),
        ("torchgeo", VIT_16, S2, 224),
        ("torchgeo", WAVES, BOTH, 224),
    ],
)
def test_features_are_those_of_geossl(
    tmp_path: Path, library: Library, settings: dict[str, Any], of: Sensor, side: int
) -> None:
    net, card = encoder(settings, of)
    export_encoder(net, card, library, tmp_path / "out")
    image = torch.randn(2, 5, side, side)
    maps, pooled = loaded(tmp_path / "out", image)
    with torch.inference_mode():
        want = net(image)
    assert want.pooled.std() > 0.01
    for mine, theirs in zip([*want.maps, want.pooled], [*maps, pooled], strict=True):
        torch.testing.assert_close(theirs, mine, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_terratorch_has_the_features_of_geossl(tmp_path: Path) -> None:
    """TerraTorch pins an older torchgeo, so that it lives in an interpreter of its own."""
    python = os.environ.get("TERRATORCH_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("TERRATORCH_PYTHON names no interpreter that has terratorch")
    cases = {"resnet": (RESNET, S2), "convnext": (CONVNEXT, S2), "vit": (VIT, S2), "wavelengths": (WAVES, BOTH)}
    image, want = torch.randn(2, 5, 64, 64), {}
    for name, (settings, of) in cases.items():
        net, card = encoder(settings, of)
        export_encoder(net, card, "terratorch", tmp_path / name)
        with torch.inference_mode():
            found = net(image)
        want[name] = [*found.maps, found.pooled]
    torch.save(image, tmp_path / "image.pt")
    there = Path(__file__).with_name("terratorch_features.py")
    done = subprocess.run([python, there, tmp_path, *cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, features in torch.load(tmp_path / "features.pt").items():
        for mine, theirs in zip(want.pop(name), features, strict=True):
            torch.testing.assert_close(theirs, mine, **TOLERANCE)
    assert not want


def test_torchgeos_segmentation_starts_from_the_same_file(tmp_path: Path) -> None:
    from torchgeo.tasks import SemanticSegmentation

    net, card = encoder(RESNET)
    export_encoder(net, card, "torchgeo", tmp_path / "out")
    task = SemanticSegmentation(
        model="unet", backbone="resnet18", weights=str(tmp_path / "out" / "encoder.ckpt"), in_channels=5, num_classes=3
    )
    image = torch.randn(1, 5, 64, 64)
    with torch.inference_mode():
        theirs = task.model.eval().encoder(image)[1:]
        for mine, other in zip(net(image).maps, theirs, strict=True):
            torch.testing.assert_close(other, mine, **TOLERANCE)


def test_what_goes_with_the_weights_is_said_beside_them(tmp_path: Path) -> None:
    net, card = encoder(WAVES, BOTH)
    done = export_encoder(net, card, "timm", tmp_path / "out")
    note = json.loads((tmp_path / "out" / NOTE).read_text(encoding="utf-8"))
    assert note["normalization"]["bands"] == list(BOTH.band_names)
    assert note["normalization"]["std"] == [90.0, 80.0, 70.0, 60.0, 1.0]  # a constant band is divided by 1
    assert note["normalization"]["radiometry"]["scale"] == 1e-4
    assert Card.from_dict(note["card"]) == card
    assert (note["load"], tuple(note["lost"])) == (done.load, done.lost)
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| 3 | VV | – | 600 | 60 |" in readme
    assert "fixed for the bands above" in readme
    # timm carries the statistics too, where it else has those of photographs
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["pretrained_cfg"]["mean"] == list(STATISTICS.mean)
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


@pytest.mark.parametrize(
    ("library", "settings", "message"),
    [
        ("timm", {"name": "unet-tiny"}, r"unet-tiny is geossl's own(.|\n)*pretrain resnet"),
        ("timm", WAVES | {"embedding": "dofa"}, "one pixel off"),
        ("torchgeo", VIT, r"none is called vit_tiny_patch8_224(.|\n)*export it to timm"),
        ("torchgeo", CONVNEXT, "look for a head"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    tmp_path: Path, library: Library, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        export_encoder(*encoder(settings), library, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_torchgeo_itself_cannot_load_what_is_refused(tmp_path: Path) -> None:
    from torchgeo.tasks import Classification

    net = timm.create_model("convnext_tiny", in_chans=5, num_classes=0)
    state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"hyper_parameters": {"model": "convnext_tiny"}, "state_dict": state}, tmp_path / "encoder.ckpt")
    with pytest.raises(AttributeError, match="out_features"):
        Classification(model="convnext_tiny", weights=str(tmp_path / "encoder.ckpt"), in_channels=5, num_classes=3)


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    net, card = encoder(RESNET)
    export_encoder(net, card, "torchgeo", tmp_path / "out")
    export_encoder(net, card, "timm", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
    }
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="no export"):
        export_encoder(net, card, "timm", tmp_path / "else")
    assert (tmp_path / "else" / "thesis.tex").exists()
