from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geossl.errors import SettingsError
from geossl.methods.settings import TransformsSettings
from geossl.methods.transforms import (
    EXCHANGES,
    Transforms,
    from_quarters,
    quarters,
    under_every_exchange,
    under_every_turn,
)
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

QUIET: dict[str, Any] = {"gain": 0.0, "bias": 0.0, "noise": 0.0}
BOTH = pytest.mark.parametrize("transformations", ["rotation", "original-or-transformed"])


def build(transformations: str, encoder: str = "unet-tiny", bands: int = 2, **settings: Any) -> Transforms:
    torch.manual_seed(0)
    named = {"transformations": transformations} | settings
    return Transforms(
        TransformsSettings.model_validate(named), build_encoder(EncoderSettings(name=encoder, image=32), bands)
    )


def coordinates(batch: int, side: int) -> Tensor:
    """Each pixel says its row and column, from 1."""
    grid = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return 1 + torch.stack(grid).float().expand(batch, 2, side, side)


def all_valid(image: Tensor) -> Tensor:
    return torch.ones(len(image), *image.shape[-2:], dtype=torch.bool)


@BOTH
@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
@pytest.mark.parametrize("bands", [1, 7])
def test_the_loss_is_the_papers(transformations: str, encoder: str, bands: int) -> None:
    method = build(transformations, encoder, bands)
    image, valid = torch.randn(5, bands, 32, 32), torch.ones(5, 32, 32, dtype=torch.bool)
    valid[2] = False  # says nothing, and counts nowhere
    torch.manual_seed(3)
    losses = method({"image": image, "valid": valid})
    torch.manual_seed(3)
    riddle = method.pose(image, valid)
    logits = method.solve(riddle)[0].detach().double().numpy()
    # equation 2 of the paper: the mean over images and over their copies
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    copies = 4 if transformations == "rotation" else 2
    terms = [-np.log(chance[5 * copy + i, copy]) for copy in range(copies) for i in (0, 1, 3, 4)]
    assert abs(losses.total.item() - np.mean(terms)) < 1e-5
    assert len(losses.views) == copies


def test_every_image_is_shown_in_all_four_turns() -> None:
    image = torch.randn(3, 2, 32, 32)
    riddle = build("rotation", **QUIET).pose(image, all_valid(image))
    for number, (got, turns) in enumerate(zip(riddle.images, riddle.answer, strict=True)):
        want = np.rot90(image[number % 3].numpy(), turns.item(), axes=(1, 2))
        np.testing.assert_array_equal(got.numpy(), want)
    assert riddle.answer.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert riddle.counted.all()


def test_transformed_images_are_turned_or_exchanged_and_never_originals() -> None:
    method = build("original-or-transformed", **QUIET)
    image = coordinates(3000, 8)
    out = method.transform(image)
    turns = [image[0].rot90(k, (-2, -1)) for k in (1, 2, 3)]
    pieces = quarters(image[:1])
    exchanges = [from_quarters(pieces[:, order])[0] for order in EXCHANGES]
    counts = [int((out == each).flatten(1).all(dim=1).sum()) for each in [*turns, *exchanges]]
    assert sum(counts) == 3000
    assert all(abs(count - 500) < 100 for count in counts[:3])  # half of them, three ways
    assert all(abs(count - 1500 / 23) < 40 for count in counts[3:])  # the other half, 23 ways
    assert not any(torch.equal(each, image[0]) for each in [*turns, *exchanges])


def test_seams_are_hidden_in_originals_too() -> None:
    image = coordinates(40, 64)
    riddle = build("original-or-transformed", **QUIET).pose(image, all_valid(image))
    hidden = riddle.images[:, 0] == 0
    cross = torch.zeros(64, 64, dtype=torch.bool)
    cross[30:34] = cross[:, 30:34] = True
    assert torch.equal(hidden, cross.expand_as(hidden))
    assert torch.equal(riddle.images[:40], image.masked_fill(cross, 0))


def test_quarters_and_back() -> None:
    image = torch.randn(2, 3, 6, 8)
    pieces = quarters(image)
    assert torch.equal(pieces[1, 1], image[1, :, :3, 4:])
    assert torch.equal(pieces[1, 2], image[1, :, 3:, :4])
    assert torch.equal(from_quarters(pieces), image)


@BOTH
def test_what_is_hidden_says_nothing_of_the_answer(transformations: str) -> None:
    method = build(transformations, **QUIET)
    image, valid = coordinates(64, 32), torch.rand(64, 32, 32) > 0.02
    hidden = (method.pose(image, valid).images[:, 0] == 0).reshape(method.copies, 64, 32, 32)
    assert all(torch.equal(hidden[0], other) for other in hidden[1:])
    originals = method.pose(image, valid).images[:64]
    assert torch.equal(originals, originals.masked_fill(~valid.unsqueeze(1), 0))  # nothing invalid is shown
    # as sets of pixels: no transformation moves what is valid throughout
    throughout = under_every_turn(under_every_exchange(valid))
    assert torch.equal(throughout.rot90(1, (-2, -1)), throughout)
    pieces = quarters(throughout.unsqueeze(1))
    assert torch.equal(pieces, pieces[:, :1].expand_as(pieces))


@BOTH
def test_chips_that_are_mostly_invalid_teach_nothing(transformations: str) -> None:
    method = build(transformations)
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    valid[:, :12] = False  # enough on its own, and not under every turn
    losses = method({"image": torch.randn(4, 2, 32, 32).masked_fill(~valid.unsqueeze(1), 0), "valid": valid})
    losses.total.backward()
    assert losses.total == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in method.parameters())


@BOTH
@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_it_learns_what_was_done(transformations: str, encoder: str) -> None:
    # light falls from one side: along each column it grows brighter, along each row it does not
    method = build(transformations, encoder, **QUIET)
    torch.manual_seed(1)
    image = 0.3 * torch.randn(6, 2, 32, 32) + torch.randn(6, 2, 1, 1) + coordinates(6, 32)[:, :1] / 8 - 2
    batch = {"image": image, "valid": all_valid(image)}
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)

    def accuracy() -> float:
        riddle = method.pose(image.repeat(4, 1, 1, 1), batch["valid"].repeat(4, 1, 1))
        with torch.no_grad():
            return (method.solve(riddle)[0].argmax(dim=1) == riddle.answer).float().mean().item()

    before, history = accuracy(), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = method(batch).total
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert accuracy() > before + 0.2
    assert np.mean(history[-5:]) < 0.8 * history[0]


def test_quarters_need_an_even_side() -> None:
    image = torch.zeros(1, 2, 33, 33)
    with pytest.raises(SettingsError, match="33×33 px"):
        build("original-or-transformed").pose(image, all_valid(image))
