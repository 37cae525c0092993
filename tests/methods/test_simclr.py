from __future__ import annotations

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch.nn import functional as F

from geossl.methods.contrast import nt_xent
from geossl.methods.simclr import Simclr

from .views import SIDE, batch_of, build


def closed_form(first: np.ndarray, second: np.ndarray, temperature: float, same: np.ndarray | None = None) -> float:
    """Equation 1 of the paper, averaged over both directions of every pair; ``same`` (n, n) are no negatives."""
    z = np.concatenate([first, second]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n = len(first)
    same = np.eye(n, dtype=bool) if same is None else same
    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        similarity = np.exp(z @ z[i] / temperature)
        negatives = sum(similarity[j] for j in range(2 * n) if not same[i % n, j % n])
        total -= np.log(similarity[partner] / (similarity[partner] + negatives))
    return total / (2 * n)


def projected(method: Simclr) -> list[torch.Tensor]:
    """What the method's head says, filled when the method runs."""
    seen: list[torch.Tensor] = []
    method.head.register_forward_hook(lambda *arguments: seen.append(arguments[-1].detach()))
    return seen


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
@pytest.mark.parametrize("pairs", ["same", "season"])
def test_the_loss_is_the_papers_and_lightlys(encoder: str, pairs: str) -> None:
    method = build("simclr", encoder, pairs=pairs, temperature=0.3)
    heads = projected(method)
    loss = method(batch_of(6, dates=2 if pairs == "season" else 1)).total.item()
    first, second = heads[0].chunk(2)
    assert abs(loss - closed_form(first.numpy(), second.numpy(), 0.3)) < 1e-5
    assert abs(loss - NTXentLoss(0.3)(first, second).item()) < 1e-5


def test_a_place_that_was_not_seen_does_not_count() -> None:
    method = build("simclr", temperature=0.3, crop=1.0)
    heads = projected(method)
    batch = batch_of(6)
    batch["valid"][1] = False
    batch["valid"][4, :, 2:] = False  # 6 % are left
    batch["valid"][5, :, 4:] = False  # 12 %
    batch["image"] = batch["image"].masked_fill(~batch["valid"].unsqueeze(1), 0)
    loss = method(batch).total.item()
    first, second = heads[0].numpy().reshape(2, 6, -1)[:, [0, 2, 3, 5]]
    assert abs(loss - closed_form(first, second, 0.3)) < 1e-5


def test_a_batch_that_shows_nothing_has_no_loss_and_no_nan() -> None:
    method = build("simclr")
    batch = {"image": torch.zeros(4, 3, SIDE, SIDE), "valid": torch.zeros(4, SIDE, SIDE, dtype=torch.bool)}
    losses = method(batch)
    losses.total.backward()
    assert losses.total == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_a_place_is_not_told_apart_from_itself_at_another_date() -> None:
    method = build("simclr", temperature=0.3)
    heads = projected(method)
    # chips of 320 m: 0 and 2 are one place, 3 overlaps 1 by more than half, 4 by less
    xy = torch.tensor([[5000.0, 7e6], [9000, 7e6], [5000, 7e6], [9100, 7e6 - 150], [9000, 7e6 + 200]])
    batch = batch_of(5) | {"xy": xy, "gsd": torch.full((5,), 10.0)}
    loss = method(batch).total.item()
    first, second = heads[0].numpy().reshape(2, 5, -1)
    same = np.eye(5, dtype=bool)
    same[[0, 2, 1, 3], [2, 0, 3, 1]] = True
    assert abs(loss - closed_form(first, second, 0.3, same)) < 1e-5
    assert abs(loss - closed_form(first, second, 0.3)) > 1e-3


def test_the_loss_keeps_its_digits_under_autocast() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 8, 16)
    plain = {"temperature": 0.05, "counted": torch.ones(8, dtype=torch.bool), "same": torch.eye(8, dtype=torch.bool)}
    with torch.autocast("cpu", torch.bfloat16):
        inside = nt_xent(first, second, **plain)
    assert torch.equal(inside, nt_xent(first, second, **plain))


def test_same_pairs_see_two_different_views_of_one_image() -> None:
    method = build("simclr")
    seen: list[torch.Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    method(batch_of(8))
    first, second = seen[0].chunk(2)
    assert ((first - second).flatten(1).norm(dim=1) > 1).all()


def test_simclr_tells_places_apart() -> None:
    method = build("simclr", noise=0.0)
    image = torch.randn(16, 3, 1, 1).expand(-1, -1, SIDE, SIDE) + 0.1 * torch.randn(16, 3, SIDE, SIDE)
    batch = {"image": image, "valid": torch.ones(16, SIDE, SIDE, dtype=torch.bool)}
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        method(batch).total.backward()
        optimizer.step()
    with torch.no_grad():
        a, b = (F.normalize(view, dim=1) for view in method(batch).views)
    assert ((a @ b.T).argmax(dim=1) == torch.arange(16)).float().mean() > 0.8
