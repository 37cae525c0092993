"""A training that goes on with another number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geossl.errors import SettingsError, TrainingError
from tests.train.other_ranks import CHIPS, EPOCHS, STEPS, TOGETHER, Noted, gang, train

from . import synthetic


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(3, 5), (8, 13)], ids=["within an epoch", "at its end"])
def test_two_ranks_then_one_then_two(tmp_path: Path, stops: tuple[int, int]) -> None:
    undisturbed = gang(tmp_path / "undisturbed", 2, STEPS)
    found = [part for world, stop in ((2, stops[0]), (1, stops[1]), (2, STEPS)) for part in gang(tmp_path, world, stop)]
    # the same batches of all ranks together, in the same order
    assert [(epoch, batch, sorted(chips)) for epoch, batch, chips in found] == [
        (epoch, batch, sorted(chips)) for epoch, batch, chips in undisturbed
    ]
    for epoch in range(EPOCHS):
        chips = [chip for e, _, some in found for chip in some if e == epoch]
        assert len(set(chips)) == len(chips) == CHIPS // TOGETHER * TOGETHER
    ours, theirs = synthetic.rows(tmp_path), synthetic.rows(tmp_path / "undisturbed")
    assert [int(row["step"]) for row in ours] == [*range(1, STEPS + 1)]
    assert [row["learning_rate"] for row in ours] == [row["learning_rate"] for row in theirs]
    # masks are drawn for each rank, so that losses are not the same; they fall alike
    loss, wanted = (torch.tensor([float(row["loss"]) for row in rows]) for rows in (ours, theirs))
    torch.testing.assert_close(loss, wanted, rtol=0.2, atol=0.0)
    assert loss[-3:].mean() < 0.7 * loss[:3].mean()


def test_one_rank_goes_on_with_the_batches_of_two(tmp_path: Path) -> None:
    loader = Noted(0, 1)
    assert (len(loader), loader.batch_size) == (16, 4)
    loader.load_state_dict({"epoch": 1, "batch": 3, "together": 8})
    assert (len(loader), loader.batch_size) == (8, 8)
    list(loader)
    both = [Noted(rank, 2) for rank in (0, 1)]
    for rank in both:
        rank.set_epoch(1)
        list(rank)
    for (epoch, number, chips), *shares in zip(loader.seen, both[0].seen[3:], both[1].seen[3:], strict=True):
        assert all(share[:2] == (epoch, number) for share in shares)
        assert sorted(chips) == sorted(chip for share in shares for chip in share[2])
    with pytest.raises(SettingsError, match="batches of 8 chips on all processes together cannot be shared out to 3"):
        Noted(0, 3).load_state_dict(loader.state_dict())


def test_other_chips_are_no_way_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, 0, 1, stop=2)
    with pytest.raises(TrainingError, match="had 16 batches an epoch, and the loader has 11"):
        train(tmp_path, 0, 1, stop=2, chips=45)
