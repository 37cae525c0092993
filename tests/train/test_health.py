from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geossl.errors import TrainingError
from geossl.train.health import HealthMonitor, alignment, effective_rank, feature_std, measure, uniformity

from .synthetic import Places, rows, run


def test_figures_agree_with_their_definitions() -> None:
    torch.manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(20, 6), dim=1)
    b = torch.nn.functional.normalize(a + 0.1 * torch.randn(20, 6), dim=1)
    x, y = a.double().numpy(), b.double().numpy()
    assert alignment(a, b) == pytest.approx(np.mean(((x - y) ** 2).sum(1)), rel=1e-5)
    apart = [((x[i] - x[j]) ** 2).sum() for i in range(20) for j in range(i)]
    assert uniformity(a) == pytest.approx(np.log(np.mean(np.exp(-2 * np.array(apart)))), rel=1e-4)
    assert feature_std(a) == pytest.approx(np.sqrt(x.var(axis=0).sum()), rel=1e-5)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    share = values / values.sum()
    assert effective_rank(a) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_the_rank_counts_directions() -> None:
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(16, 16)).Q
    for count in (1, 3, 8):
        features = torch.randn(400, count) @ directions[:count] + 50  # a large common part
        assert effective_rank(features) == pytest.approx(count, rel=0.02)
    assert effective_rank(torch.ones(5, 4)) == pytest.approx(1)


def test_a_collapse_is_told_after_patience_and_forgiven_before() -> None:
    torch.manual_seed(0)
    monitor = HealthMonitor(patience=3)
    good, constant = torch.randn(16, 8), torch.ones(16, 8) + 1e-4 * torch.randn(16, 8)
    line = torch.randn(16, 1) * torch.randn(1, 8)
    for bad in (constant, line):
        for step in range(2):
            monitor.observe(step, 1.0, [bad])
        monitor.observe(2, 1.0, [good])
    monitor.observe(0, 1.0, [constant])
    monitor.observe(1, 1.0, [line])
    with pytest.raises(TrainingError, match=r"collapsed at step 2.*\n.*lower the learning rate.*larger batches"):
        monitor.observe(2, 1.0, [constant])


@pytest.mark.parametrize(("loss", "feature"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_numbers_that_are_none_stop_at_once(loss: float, feature: float) -> None:
    views = [torch.full((4, 2), feature)]
    with pytest.raises(TrainingError, match="no longer finite"):
        HealthMonitor().observe(1, loss, views)


def test_at_the_end_one_bad_observation_is_enough() -> None:
    torch.manual_seed(0)
    monitor = HealthMonitor()
    monitor.conclude(None)  # nothing was seen
    monitor.conclude(monitor.observe(10, 1.0, [torch.randn(16, 8)]))
    with pytest.raises(TrainingError, match=r"collapsed when its training ended.*not kept(.|\n)*learning rate"):
        monitor.conclude(monitor.observe(20, 1.0, [torch.ones(16, 8)]))


def test_three_images_are_too_few_to_judge() -> None:
    monitor = HealthMonitor(patience=1)
    assert monitor.observe(0, 1.0, [torch.ones(3, 8)]) is None
    with pytest.raises(TrainingError):
        monitor.observe(0, 1.0, [torch.ones(4, 8)])


def test_one_view_has_no_alignment() -> None:
    assert measure([torch.randn(8, 4)]).alignment is None


def test_an_absurd_learning_rate_is_stopped(tmp_path: Path) -> None:
    mae, vit = {"name": "mae", "mask_ratio": 0.5}, {"name": "vit-tiny", "patch": 8}
    with pytest.raises(TrainingError, match="lower the learning rate"):
        run(tmp_path, Places(batches=70), epochs=1, method=mae, encoder=vit, learning_rate=1.0, warmup=0.0)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]  # it fell all the same
    assert not (tmp_path / "card.json").exists()


def test_imagery_that_is_all_alike_is_stopped(tmp_path: Path) -> None:
    quiet = {"name": "simclr", "gain": 0.0, "bias": 0.0, "noise": 0.0}
    with pytest.raises(TrainingError, match="chips all alike"):
        run(tmp_path, Places(batches=60, alike=True), epochs=1, method=quiet)


@pytest.mark.parametrize(
    "short", [{"epochs": 1}, {"epochs": 50, "minutes": 1e-6}], ids=["two-observations", "one-step-by-the-clock"]
)
def test_a_run_too_short_for_patience_leaves_no_collapsed_encoder(tmp_path: Path, short: dict[str, Any]) -> None:
    quiet = {"name": "simclr", "gain": 0.0, "bias": 0.0, "noise": 0.0}
    loaders = [Places(batches=20, alike=True) for _ in range(2)]
    for loader in loaders:  # and no more when it is asked again
        with pytest.raises(TrainingError, match="collapsed when its training ended"):
            run(tmp_path, loader, method=quiet, **short)
    assert loaders[0].handed_out
    assert loaders[1].handed_out == []
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "history.csv"}
    assert float(rows(tmp_path)[-1]["std"]) < 0.05


@pytest.mark.parametrize("method", [{"name": "simclr"}, {"name": "mae", "mask_ratio": 0.5}, {"name": "dino"}])
def test_a_healthy_run_passes(tmp_path: Path, method: dict[str, object]) -> None:
    encoder = {"name": "vit-tiny", "patch": 8} if method["name"] == "mae" else {"name": "unet-tiny"}
    card = run(tmp_path, Places(batches=20), epochs=1, method=method, encoder=encoder)
    assert card.health["std"] > 0.1
    assert card.health["rank"] > 2
