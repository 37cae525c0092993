from __future__ import annotations

import pytest
import torch

from .processes import run_ranks
from .ranks import CASES, Result, whole


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What two processes say of every case, each with half of the places."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("tests.methods.ranks", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_as_one_with_both_batches(case: str, ranks: list[dict[str, Result]]) -> None:
    loss, gradients, buffers = whole(case)
    (loss0, *_), (loss1, *_) = (rank[case] for rank in ranks)
    torch.testing.assert_close((loss0 + loss1) / 2, loss, atol=1e-5, rtol=0)
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-3
    for rank in ranks:
        _, theirs, kept = rank[case]
        torch.testing.assert_close(theirs, gradients, atol=1e-5, rtol=0)
        torch.testing.assert_close(kept, buffers, atol=1e-5, rtol=0)
