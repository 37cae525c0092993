"""Training on a CUDA GPU; skipped where there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from geossl.methods.registry import METHODS
from geossl.nets.weights import load_encoder
from tests.methods.processes import run_ranks
from tests.methods.ranks import CASES, require_as_one, whole
from tests.train import other_ranks

from . import test_kinds
from .synthetic import Places, rows, run
from .test_resume import at, interrupt, require_same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

VIT: dict[str, Any] = {
    "method": {"name": "mae", "decoder_dim": 64},
    "encoder": {"name": "vit-tiny", "patch": 4},
    "precision": "auto",
}
UNET: dict[str, Any] = {"method": {"name": "mocov2", "queue": 64}, "precision": "auto"}


SMALL: dict[str, dict[str, Any]] = {
    "mae": VIT,
    "mocov2": UNET,
    "relative": {"method": {"name": "relative", "patch": 8, "gap": 0, "jitter": 0}},
}
"""What a method needs beside its name, for chips of 16 pixels."""


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share the GPU: none waits for another."""
    monkeypatch.setattr("geossl.train.pretrain.own", list)


def changes_of(method: str) -> dict[str, Any]:
    return {"method": {"name": method}, "precision": "auto"} | SMALL.get(method, {})


def require_learnt(folder: Path) -> None:
    """The encoder is on the CPU and whole, its card says how it is, and losses are numbers."""
    encoder, card = load_encoder(folder)
    assert next(encoder.parameters()).device.type == "cpu"
    assert all(weight.isfinite().all() for weight in encoder.parameters())
    assert card.health
    assert all(math.isfinite(float(row["loss"])) for row in rows(folder))


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_there(tmp_path: Path, method: str) -> None:
    torch.cuda.reset_peak_memory_stats()
    run(tmp_path, **changes_of(method))
    assert torch.cuda.max_memory_allocated() > 1e6
    require_learnt(tmp_path)


@pytest.mark.parametrize("method", ["simclr", "dense", "mocov2", "mocov3", "lejepa", "dino"])
def test_it_trains_there_on_two_dates_and_on_two_sensors(tmp_path: Path, method: str) -> None:
    plain = changes_of(method)
    seasons = plain | {"method": plain["method"] | {"pairs": "season"}}
    run(tmp_path / "dates", Places(pairs=True), **seasons)
    require_learnt(tmp_path / "dates")
    test_kinds.run(tmp_path / "sensors", test_kinds.PAIRS, loader=test_kinds.Paired, **plain)
    require_learnt(tmp_path / "sensors")


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("step", [5, 7])
def test_interrupted_and_resumed_to_the_bit(tmp_path: Path, method: str, step: int) -> None:
    changes = changes_of(method) | {"deterministic": True}
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


@pytest.mark.parametrize("method", ["mae", "simclr", "dense", "mocov2", "mocov3", "lejepa", "dino"])
def test_it_trains_compiled(tmp_path: Path, method: str) -> None:
    run(tmp_path, **changes_of(method), compile=True)
    require_learnt(tmp_path)


@pytest.fixture(scope="module")
def nccl(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks on one GPU say of every case, each with half of the places."""
    folder = tmp_path_factory.mktemp("nccl")
    run_ranks("tests.methods.ranks", folder, "cuda")
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_of_nccl_learn_as_one_with_both_batches(
    case: str, nccl: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    require_as_one(whole(case, "cuda"), [rank[case] for rank in nccl])


@pytest.mark.parametrize("method", ["mae", "simclr", "lejepa", "dino"])
def test_two_hosts_train_by_nccl_and_go_on(tmp_path: Path, method: str) -> None:
    steps, stop = other_ranks.STEPS, 5
    changes = other_ranks.MAE if method == "mae" else {"method": {"name": method}, "encoder": {"name": "unet-tiny"}}
    whole = other_ranks.gang(tmp_path / "whole", 2, steps, **changes)
    cut = [*other_ranks.gang(tmp_path / "cut", 2, stop, **changes)]
    cut += other_ranks.gang(tmp_path / "cut", 2, steps, **changes)
    assert cut == whole
    for folder in ("cut", "whole"):
        require_learnt(tmp_path / folder)
        assert [int(row["step"]) for row in rows(tmp_path / folder)] == [*range(1, steps + 1)]
    ours, theirs = (torch.tensor([float(r["loss"]) for r in rows(tmp_path / f)]) for f in ("cut", "whole"))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.0)


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
