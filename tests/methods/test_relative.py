from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.errors import SettingsError
from geossl.methods.relative import DIRECTIONS, Puzzle, Relative
from geossl.methods.settings import RelativeSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

QUIET: dict[str, Any] = {"gain": 0.0, "bias": 0.0, "noise": 0.0}


def build(encoder: str = "unet-tiny", bands: int = 2, **settings: Any) -> Relative:
    torch.manual_seed(0)
    plain = {"patch": 16}
    return Relative(
        RelativeSettings.model_validate(plain | settings), build_encoder(EncoderSettings(name=encoder, image=48), bands)
    )


def coordinates(batch: int, height: int, width: int) -> Tensor:
    """Each pixel says its row and column."""
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid).float().expand(batch, 2, height, width)


def all_valid(image: Tensor) -> Tensor:
    return torch.ones(len(image), *image.shape[-2:], dtype=torch.bool)


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
@pytest.mark.parametrize("bands", [1, 7])
def test_the_loss_is_the_papers(encoder: str, bands: int) -> None:
    method = build(encoder, bands)
    image, valid = torch.randn(6, bands, 64, 64), torch.ones(6, 64, 64, dtype=torch.bool)
    valid[2] = False  # says nothing, and counts nowhere
    torch.manual_seed(3)
    got = method({"image": image, "valid": valid}).total.item()
    torch.manual_seed(3)
    puzzle = method.pose(image, valid)
    logits = method.solve(puzzle)[0].detach().double().numpy()
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    each = -np.log(chance[np.arange(6), puzzle.answer.numpy()])
    assert abs(got - each[[0, 1, 3, 4, 5]].mean()) < 1e-5


def test_the_second_patch_lies_where_the_answer_says() -> None:
    torch.manual_seed(0)
    method = build(gap=0.5, jitter=0.25, **QUIET)  # 8 px, give or take 4
    image = coordinates(4000, 72, 60)
    puzzle = method.pose(image, all_valid(image))
    for patch in (puzzle.first, puzzle.second):
        # untouched pixels, in order
        torch.testing.assert_close(patch - patch[..., :1, :1], coordinates(4000, 16, 16), atol=0, rtol=0)
    first, second = puzzle.first[..., 0, 0], puzzle.second[..., 0, 0]
    shake = second - first - 24 * torch.tensor(DIRECTIONS)[puzzle.answer]
    assert sorted(shake.unique().tolist()) == list(range(-4, 5))  # both axes, whole pixels
    assert puzzle.answer.bincount(minlength=8).min() > 400
    for corner in (first, second):
        assert corner.amin(dim=0).tolist() == [0, 0]
        assert corner.amax(dim=0).tolist() == [72 - 16, 60 - 16]
    for direction in range(8):  # wherever both fit, they are found
        inside = first[puzzle.answer == direction]
        assert (inside.amax(dim=0) - inside.amin(dim=0)).min() >= 60 - 2 * 16 - 8 - 4


def test_brightness_is_drawn_for_each_patch() -> None:
    method = build(gain=0.0, bias=0.5, noise=0.0)
    image = torch.zeros(500, 2, 64, 64)
    puzzle = method.pose(image, all_valid(image))
    pair = torch.cat([puzzle.first[..., 0, 0], puzzle.second[..., 0, 0]], dim=1).T  # both bands of both patches
    assert (torch.corrcoef(pair) - torch.eye(4)).abs().max() < 0.15
    assert abs(pair.std() - 0.5) < 0.05


def test_both_patches_hide_what_one_of_them_cannot_see() -> None:
    method = build(**QUIET)
    image = 1 + coordinates(200, 48, 48)
    valid = torch.rand(200, 48, 48) > 0.1
    puzzle = method.pose(image, valid)
    # a shown pixel says where it was; at each place both are shown or neither
    hidden = puzzle.first[:, 0] == 0
    assert torch.equal(hidden, puzzle.second[:, 0] == 0)
    chips = torch.arange(200).view(-1, 1, 1).expand_as(hidden)[~hidden]
    for patch in (puzzle.first, puzzle.second):
        row, column = (patch[:, axis][~hidden].long() - 1 for axis in (0, 1))
        assert valid[chips, row, column].all()
    assert 0.1 < hidden.float().mean() < 0.28


def test_chips_that_are_mostly_invalid_teach_nothing() -> None:
    method = build()
    image, valid = torch.randn(4, 2, 48, 48), torch.zeros(4, 48, 48, dtype=torch.bool)
    losses = method({"image": image.masked_fill(~valid.unsqueeze(1), 0), "valid": valid})
    losses.total.backward()
    assert losses.total == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in method.parameters())


@pytest.mark.parametrize(("encoder", "steps"), [("unet-tiny", 30), ("vit-tiny", 30)])
def test_it_learns_where(encoder: str, steps: int) -> None:
    # nothing hides that it grows brighter downwards in one band, and to the right in the other
    method = build(encoder, **QUIET)
    torch.manual_seed(1)
    image = torch.randn(24, 2, 48, 48) + torch.randn(24, 2, 1, 1) + coordinates(24, 48, 48) / 12 - 2
    batch = {"image": image, "valid": all_valid(image)}
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)

    def accuracy() -> float:
        puzzle = method.pose(image.repeat(4, 1, 1, 1), batch["valid"].repeat(4, 1, 1))
        with torch.no_grad():
            return (method.solve(puzzle)[0].argmax(dim=1) == puzzle.answer).float().mean().item()

    before, history = accuracy(), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = method(batch).total
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert before < 0.25  # chance is 1 in 8
    assert accuracy() > 0.6
    assert np.mean(history[-5:]) < 0.8 * history[0]


def test_patches_must_fit_encoder_and_chip() -> None:
    with pytest.raises(SettingsError, match=r"patch of 20 px.*unet-tiny\n.*multiple of 8 px"):
        build(patch=20)
    method = build(gap=0.5, jitter=0.25)
    with pytest.raises(SettingsError, match=r"need 44 px; the chips have 43×64\n.*smaller patch"):
        method.pose(torch.zeros(1, 2, 43, 64), torch.ones(1, 43, 64, dtype=torch.bool))
    # with just enough room, nothing falls outside
    image = 1 + coordinates(500, 44, 44)
    puzzle: Puzzle = method.pose(image, all_valid(image))
    assert puzzle.counted.all()
