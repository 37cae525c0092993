"""Watching a training: more columns of its history, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geossl.nets.encoder import Encoder
from geossl.train import history

from .synthetic import rows, run
from .test_resume import at, interrupt


def restless(encoder: Encoder) -> float:
    """Draws random numbers, runs the encoder and leaves it in another mode."""
    assert not any(module.training for module in encoder.modules())
    assert not torch.is_grad_enabled()
    torch.rand(7)
    said = encoder(torch.ones(2, 3, 16, 16)).pooled.std().item()
    encoder.train()
    return said


def watched(folder: Path) -> dict[int, float]:
    return {int(row["step"]): float(row["knn"]) for row in rows(folder) if row["knn"]}


def test_the_training_does_not_notice(tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WATCH_EVERY", 10)
    run(tmp_path, watch={"knn": restless})
    assert (tmp_path / "encoder.safetensors").read_bytes() == (undisturbed / "encoder.safetensors").read_bytes()
    said = watched(tmp_path)
    assert list(said) == [0, 10, 15]  # before the first step, in between, at the end
    assert len(set(said.values())) == 3
    unwatched = [row for row in rows(tmp_path) if row["step"] != "0"]
    assert [{k: v for k, v in row.items() if k != "knn"} for row in unwatched] == rows(undisturbed)


def test_a_resumed_run_saw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WATCH_EVERY", 10)
    run(tmp_path / "whole", watch={"knn": restless})
    for step in (1, 12):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", watch={"knn": restless}, progress=at(step, interrupt))
    run(tmp_path / "cut", watch={"knn": restless})
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    one, other = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("cut", "whole"))
    assert one == other


def test_watchers_may_come_and_go(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, watch={"knn": restless}, progress=at(12, interrupt))
    run(tmp_path, watch={"other": restless})
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["0", "10", "15"]
    assert [bool(row["other"]) for row in found] == [False, False, True]
    assert "knn" not in found[0]


def test_a_run_that_the_clock_ends_is_watched_to_its_end(tmp_path: Path) -> None:
    run(tmp_path, watch={"knn": restless}, minutes=1e-6)
    assert list(watched(tmp_path)) == [0, 1]
