from __future__ import annotations

import pytest
import torch

from .processes import run_ranks
from .ranks import CASES, Result, require_as_one, whole


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What two processes say of every case, each with half of the places."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("tests.methods.ranks", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_as_one_with_both_batches(case: str, ranks: list[dict[str, Result]]) -> None:
    require_as_one(whole(case), [rank[case] for rank in ranks])
