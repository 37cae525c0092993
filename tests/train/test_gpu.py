"""Training on a CUDA GPU; skipped where there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.nets.weights import load_encoder

from .synthetic import Places, rows, run
from .test_resume import at, interrupt, require_same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

VIT: dict[str, Any] = {
    "method": {"name": "mae", "decoder_dim": 64},
    "encoder": {"name": "vit-tiny", "patch": 4},
    "precision": "auto",
}
UNET: dict[str, Any] = {"method": {"name": "mocov2", "queue": 64}, "precision": "auto"}


@pytest.mark.parametrize("changes", [VIT, UNET, {}], ids=["mae", "mocov2", "simclr"])
def test_it_trains_there(tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.cuda.reset_peak_memory_stats()
    run(tmp_path, **changes | {"precision": "auto"})
    assert torch.cuda.max_memory_allocated() > 1e6
    encoder, card = load_encoder(tmp_path)
    assert next(encoder.parameters()).device.type == "cpu"
    assert all(weight.isfinite().all() for weight in encoder.parameters())
    assert card.health
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path))


@pytest.mark.parametrize("changes", [VIT, UNET], ids=["mae", "mocov2"])
@pytest.mark.parametrize("step", [5, 7])
def test_interrupted_and_resumed_to_the_bit(tmp_path: Path, changes: dict[str, Any], step: int) -> None:
    changes = changes | {"deterministic": True}
    run(tmp_path / "undisturbed", **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", progress=at(step, interrupt), **changes)
    loader = Places()
    run(tmp_path / "cut", loader, **changes)
    assert loader.handed_out == [divmod(n, 5) for n in range(step, 15)]
    require_same(tmp_path / "cut", tmp_path / "undisturbed")
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_determinism_the_same_samples_are_seen(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(7, interrupt), **VIT)
    loader = Places()
    run(tmp_path, loader, **VIT)
    assert loader.handed_out == [divmod(n, 5) for n in range(7, 15)]


def test_it_trains_compiled(tmp_path: Path) -> None:
    run(tmp_path, **VIT, compile=True)
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path))


def test_the_loss_is_the_cpus() -> None:
    from geossl.methods.mae import Mae
    from geossl.methods.settings import MaeSettings
    from geossl.nets.encoder import build_encoder
    from geossl.nets.settings import EncoderSettings

    torch.manual_seed(0)
    mae = Mae(MaeSettings(decoder_dim=64), build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=32), 5))
    image, valid, noise = torch.randn(4, 5, 32, 32), torch.rand(4, 32, 32) > 0.1, torch.rand(4, 16)
    there = mae.losses(image, valid, noise).total.item()
    mae = mae.cuda()
    assert mae.losses(image.cuda(), valid.cuda(), noise.cuda()).total.item() == pytest.approx(there, abs=1e-4)
