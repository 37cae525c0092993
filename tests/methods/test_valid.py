from __future__ import annotations

from pathlib import Path

import torch

from geossl.methods.valid import mean_over, seen

from .processes import run_ranks


def test_half_of_a_mask_is_enough() -> None:
    valid = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    valid[0, 1, :2] = True
    valid[1, 2, :2] = True
    valid[1, 2, 0, 0] = False
    assert seen(valid).tolist() == [[False, True, False], [False, False, False]]


def test_the_mean_is_over_what_counts() -> None:
    values, counted = torch.tensor([1.0, 2.0, 100.0]), torch.tensor([True, True, False])
    assert mean_over(values, counted) == 1.5
    assert mean_over(values, torch.tensor([0.5, 0.25, 0.0])) == 4 / 3
    assert mean_over(values, torch.zeros(3)) == 0


def test_two_ranks_that_count_unequally_many_learn_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(8, 3), torch.randn(1, 3)
    counted = torch.tensor([True, False, False, False, True, True, True, False])
    torch.save((inputs, weight, counted), tmp_path / "in.pt")
    run_ranks("tests.methods.counting", tmp_path)
    weight.requires_grad_()
    (inputs @ weight.T)[counted].square().mean().backward()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), weight.grad, atol=1e-6, rtol=0)
