"""A step whose batch is computed in parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.errors import TrainingError
from geossl.methods.method import Method
from geossl.methods.mocov2 import MocoV2
from geossl.methods.registry import build_method
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.train.kinds import Kind, Kinds
from geossl.train.module import Pretraining, split

from .accumulate_ranks import Step, chips, gradients
from .synthetic import SENSOR, STATISTICS, Places, run, settings
from .test_resume import at, interrupt, require_same


def pretraining(method: Method, /, **changes: Any) -> Pretraining:
    return Pretraining(settings(**changes), method, Kinds([Kind(SENSOR, STATISTICS)]), batches=5)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_gradients_are_those_of_the_whole_batch(precision: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        (one, whole), (four, parts) = (gradients(Step(parts), chips()) for parts in (1, 4))
    torch.testing.assert_close(four, one, rtol=0.01 if precision == "bf16" else 1e-5, atol=0)
    for a, b in zip(parts, whole, strict=True):
        assert (a - b).norm() / b.norm().clamp(min=1e-6) < (0.03 if precision == "bf16" else 1e-4)


def test_two_ranks_with_two_parts_each_are_one_rank(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.accumulate_ranks", str(tmp_path)]
    ranks = [subprocess.Popen([*command, rank], cwd=Path(__file__).parents[2]) for rank in ("0", "1")]
    assert [rank.wait() for rank in ranks] == [0, 0]
    _, whole = gradients(Step(1), chips())
    for rank in (0, 1):
        for step in torch.load(tmp_path / f"{rank}.pt", weights_only=True):
            for a, b in zip(step, whole, strict=True):
                assert (a - b).norm() / b.norm().clamp(min=1e-6) < 1e-4


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
