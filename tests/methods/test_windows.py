from __future__ import annotations

import pytest
import torch

from geossl.methods.windows import cut, random_below


@pytest.mark.parametrize("between", [(), (3,), (2, 3)])
def test_windows_are_slices(between: tuple[int, ...]) -> None:
    x = torch.randn(4, *between, 9, 7)
    corners = [(0, 0), (3, 3), (5, 2), (1, 1)]
    got = cut(x, torch.tensor(corners), 4)
    want = [x[i, ..., top : top + 4, left : left + 4] for i, (top, left) in enumerate(corners)]
    assert torch.equal(got, torch.stack(want))
    assert torch.equal(cut(x > 0, torch.tensor(corners), 4), got > 0)


def test_limits_are_reached_and_kept() -> None:
    torch.manual_seed(0)
    drawn = random_below(torch.tensor([0, 1, 4]).expand(5000, 3))
    for column, limit in zip(drawn.T, (0, 1, 4), strict=True):
        counts = column.bincount()
        assert len(counts) == limit + 1
        assert counts.min() > 0.9 * 5000 / (limit + 1)
