"""A step whose batch is computed in parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.augment import Normalize
from geossl.errors import TrainingError
from geossl.methods.method import Losses, Method
from geossl.methods.mocov2 import MocoV2
from geossl.methods.registry import build_method
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.train.module import Pretraining, split

from .synthetic import STATISTICS, Places, run, settings
from .test_resume import at, interrupt, require_same


class PerChip(Method):
    """A loss that is a mean over chips, and so does not care in which parts it is computed."""

    def forward(self, batch: Mapping[str, Any]) -> Losses:
        pooled = self.encoder(batch["image"]).pooled
        return Losses((pooled - batch["gsd"].unsqueeze(1)).square().mean(), (pooled,))


def pretraining(method: Method, /, **changes: Any) -> Pretraining:
    return Pretraining(settings(**changes), method, Normalize.from_statistics(STATISTICS), batches=5)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_gradients_are_those_of_the_whole_batch(precision: str) -> None:
    torch.manual_seed(0)
    method = PerChip(build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=16), 3))
    batch = {"image": torch.randn(8, 3, 16, 16), "gsd": torch.arange(8.0), "wavelengths": torch.ones(3)}
    found = []
    for parts in (1, 4):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = pretraining(method, accumulate=parts).training_step(batch, 0)
        out["loss"].backward()
        assert out["views"][0].shape == (8, 192)
        gradients = [weight.grad.clone() for weight in method.parameters() if weight.grad is not None]
        found.append((out["loss"].detach(), *gradients))
    for one, four in zip(*found, strict=True):
        error = (one - four).norm() / one.norm().clamp(min=1e-6)
        assert error < (0.03 if precision == "bf16" else 1e-4)


def test_a_queue_takes_the_keys_of_all_parts() -> None:
    changes = {"method": {"name": "mocov2", "queue": 64}, "accumulate": 2}
    torch.manual_seed(0)
    method = build_method(settings(**changes).method, build_encoder(EncoderSettings(name="unet-tiny"), 3))
    assert isinstance(method, MocoV2)
    before = method.queue.clone()
    batch = {"image": torch.randn(8, 3, 16, 16), "valid": torch.ones(8, 16, 16, dtype=torch.bool)}
    pretraining(method, **changes).training_step(batch, 0)
    method.after_step(1, 10)
    assert (method.queue != before).any(dim=1).nonzero().flatten().tolist() == list(range(8))
    assert method.oldest == 8


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    run(tmp_path / "undisturbed", accumulate=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", progress=at(7, interrupt), accumulate=2)
    loader = Places()
    run(tmp_path / "cut", loader, accumulate=2)
    assert loader.handed_out == [divmod(n, 5) for n in range(7, 15)]
    require_same(tmp_path / "cut", tmp_path / "undisturbed")


def test_parts_are_equal() -> None:
    batch = {"image": torch.arange(6.0), "wavelengths": torch.ones(6)}
    assert [part["image"].tolist() for part in split(batch, 3)] == [[0, 1], [2, 3], [4, 5]]
    assert all(part["wavelengths"].shape == (6,) for part in split(batch, 3))
    for parts in (4, 6):
        with pytest.raises(TrainingError, match=f"6 chips cannot be computed in {parts}"):
            split(batch, parts)
    with pytest.raises(ValueError, match="makes no 3 equal parts"):
        settings(accumulate=3)
