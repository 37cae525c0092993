from __future__ import annotations

import pytest
import torch
from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss

from geossl.methods.lejepa import Lejepa, sigreg

from .views import batch_of, build, outputs

ALL = torch.ones(200, dtype=torch.bool)


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_the_loss_is_lightlys_and_leaves_out_what_was_not_seen(encoder: str) -> None:
    method: Lejepa = build("lejepa", encoder, hidden=32, regularization=0.1, crop=1.0)
    batch = batch_of(6)
    batch["valid"][1] = False
    projected = outputs(method.head)
    first, second = method.two_views(batch)
    torch.manual_seed(3)  # of the directions
    loss = method.losses(first, second, batch).total.item()
    views = projected[0].unflatten(0, (2, 6))[:, [0, 2, 3, 4, 5]]
    torch.manual_seed(3)
    want = 0.9 * lejepa_invariance_loss(all_proj=views, global_proj=views) + 0.1 * SIGReg()(views)
    assert abs(loss - want.item()) < 1e-5


def test_a_normal_distribution_is_what_it_wants() -> None:
    torch.manual_seed(0)
    normal = torch.randn(1, 200, 8)
    expected = sigreg(normal, ALL)
    for other in (
        torch.zeros(1, 200, 8),  # collapsed
        2 * normal,
        normal + 1,
        normal * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 0]),  # one direction is not used
        normal[..., :1].expand(-1, -1, 8),  # all say the same
    ):
        assert sigreg(other, ALL) > 1.5 * expected


def test_of_a_collapsed_encoder_it_is_the_integral_over_what_is_missing() -> None:
    t = torch.linspace(0, 3, 20_001, dtype=torch.float64)
    normal = torch.exp(-t.square() / 2)
    want = 200 * 2 * torch.trapezoid((1 - normal).square() * normal, t)
    torch.testing.assert_close(sigreg(torch.zeros(2, 200, 8), ALL).double(), want, rtol=1e-3, atol=0)


def test_where_nothing_was_seen_there_is_nothing_to_learn() -> None:
    method: Lejepa = build("lejepa", hidden=32)
    batch = batch_of(4)
    batch["valid"][:] = False
    total = method(batch).total
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())
