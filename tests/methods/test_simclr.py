from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from geossl.methods.settings import SimclrSettings
from geossl.methods.simclr import Simclr
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings


def build(encoder: str = "unet-tiny", **settings: Any) -> Simclr:
    torch.manual_seed(0)
    return Simclr(SimclrSettings.model_validate(settings), build_encoder(EncoderSettings(name=encoder, image=32), 3))


def closed_form(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    """Equation 1 of the paper, averaged over both directions of every pair."""
    z = np.concatenate([first, second]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n = len(first)
    total = 0.0
    for i in range(2 * n):
        similarity = np.exp(z @ z[i] / temperature)
        total -= np.log(similarity[(i + n) % (2 * n)] / (similarity.sum() - similarity[i]))
    return total / (2 * n)


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
@pytest.mark.parametrize("pairs", ["same", "season"])
def test_the_loss_is_the_papers(encoder: str, pairs: str) -> None:
    method = build(encoder, pairs=pairs, temperature=0.3)
    dates = (2,) if pairs == "season" else ()
    batch = {"image": torch.randn(6, *dates, 3, 32, 32), "valid": torch.ones(6, *dates, 32, 32, dtype=torch.bool)}
    projected: list[torch.Tensor] = []
    method.head.register_forward_hook(lambda *arguments: projected.append(arguments[-1].detach()))
    loss = method(batch).total.item()
    first, second = projected[0].numpy().reshape(2, 6, -1)
    assert abs(loss - closed_form(first, second, 0.3)) < 1e-5


def test_season_pairs_compare_the_two_dates() -> None:
    quiet: dict[str, Any] = {"crop": 1.0, "gain": 0.0, "bias": 0.0, "noise": 0.0}
    image = torch.randn(8, 2, 3, 32, 32)
    valid = torch.ones(8, 2, 32, 32, dtype=torch.bool)
    seen: list[torch.Tensor] = []
    method = build(pairs="season", **quiet)
    assert method.wants_pairs
    method.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    method({"image": image, "valid": valid})
    first, second = seen[0].chunk(2)
    # flips and turns move pixels but keep each band's values
    torch.testing.assert_close(first.mean(dim=(2, 3)), image[:, 0].mean(dim=(2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(second.mean(dim=(2, 3)), image[:, 1].mean(dim=(2, 3)), atol=1e-4, rtol=0)
    assert not build(pairs="same").wants_pairs


def test_same_pairs_see_two_different_views_of_one_image() -> None:
    method = build()
    seen: list[torch.Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    method({"image": torch.randn(8, 3, 32, 32), "valid": torch.ones(8, 32, 32, dtype=torch.bool)})
    first, second = seen[0].chunk(2)
    assert ((first - second).flatten(1).norm(dim=1) > 1).all()


def test_simclr_tells_places_apart() -> None:
    method = build(noise=0.0)
    image = torch.randn(16, 3, 1, 1).expand(-1, -1, 32, 32) + 0.1 * torch.randn(16, 3, 32, 32)
    batch = {"image": image, "valid": torch.ones(16, 32, 32, dtype=torch.bool)}
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        method(batch).total.backward()
        optimizer.step()
    with torch.no_grad():
        a, b = (F.normalize(view, dim=1) for view in method(batch).views)
    assert ((a @ b.T).argmax(dim=1) == torch.arange(16)).float().mean() > 0.8


def _contrast(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    first, second, weight = torch.load(folder / "in.pt")
    linear = torch.nn.Linear(6, 5, bias=False)
    linear.weight.data.copy_(weight)
    parallel = DistributedDataParallel(linear)
    mine = slice(4 * rank, 4 * rank + 4)
    loss = build(temperature=0.3).contrast(parallel(first[mine]), parallel(second[mine]))
    loss.backward()
    torch.save((loss.detach(), linear.weight.grad), folder / f"out{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_contrast_as_one_with_both_batches(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, second, weight = torch.randn(8, 6), torch.randn(8, 6), torch.randn(5, 6)
    torch.save((first, second, weight), tmp_path / "in.pt")
    spawn(_contrast, (tmp_path,), nprocs=2)
    weight.requires_grad_()
    whole = build(temperature=0.3).contrast(first @ weight.T, second @ weight.T)
    whole.backward()
    (loss0, grad0), (loss1, grad1) = (torch.load(tmp_path / f"out{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close((loss0 + loss1) / 2, whole.detach(), atol=1e-5, rtol=0)
    for grad in (grad0, grad1):
        torch.testing.assert_close(grad, weight.grad, atol=1e-5, rtol=0)
