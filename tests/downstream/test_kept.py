"""What is kept of a frozen encoder is what it says, and it is asked once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from geossl.augment import Normalize
from geossl.downstream import finetune as training
from geossl.downstream.data import TaskData
from geossl.downstream.finetune import finetune, labelled_chips
from geossl.downstream.kept import KeptMaps
from geossl.downstream.landcover import score
from geossl.downstream.networks import LandcoverNetwork
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

from .landscape import QUICK


def test_maps_are_the_encoders_turned_as_asked(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    network = LandcoverNetwork(encoder, 3).eval()
    normalize = Normalize.from_statistics(card.statistics)
    chips, _ = labelled_chips(landcover_data, QUICK, labels=None, seed=0)
    kept = KeptMaps(network, normalize, chips, bf16=False)
    rows = np.array([3, 0, 3])
    maps = kept.turned(rows, np.array([1, 0, 2]), np.array([False, True, True]))
    with torch.no_grad():
        image = normalize(torch.from_numpy(chips.image[rows]), torch.from_numpy(chips.valid[rows]))
        expected = encoder(image[:, 0]).maps
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours[0, 0], torch.rot90(theirs[0], 1, (-2, -1)))
        torch.testing.assert_close(ours[1, 0], theirs[1].flip(-1))
        torch.testing.assert_close(ours[2, 0], torch.rot90(theirs[2], 2, (-2, -1)).flip(-1))
    for ours, theirs in zip(kept.plain(rows), expected, strict=True):
        torch.testing.assert_close(ours[:, 0], theirs)


@pytest.mark.parametrize("room", [True, False])
def test_a_frozen_encoder_sees_each_window_once_if_there_is_room(
    landcover_data: TaskData, encoder: Encoder, card: Card, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    if not room:
        monkeypatch.setattr(training.KeptMaps, "fits", lambda *_, **__: False)
    network = LandcoverNetwork(copy.deepcopy(encoder), 3, "linear")
    train, judges = labelled_chips(landcover_data, QUICK, labels=None, seed=0)
    seen = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        nonlocal seen
        seen += len(args[0])

    network.encoder.register_forward_pre_hook(count)
    settings = QUICK.model_copy(update={"encoder": "frozen", "head": "linear", "steps": 30, "learning_rate": 2e-2})
    trained = finetune(
        network, network.encoder, Normalize.from_statistics(card.statistics), train, judges, score, settings, seed=0
    )
    assert trained.score > 0.8
    once = len(train) + 2 * len(judges)  # validation windows again at the end, as exactly as they will be seen
    assert (seen <= once) == room


def test_what_would_not_fit_is_not_kept(landcover_data: TaskData, encoder: Encoder) -> None:
    network = LandcoverNetwork(encoder, 3)
    chips, _ = labelled_chips(landcover_data, QUICK, labels=None, seed=0)
    each = sum(d * (64 // s) ** 2 for d, s in zip(encoder.dims, encoder.strides, strict=True)) * 4
    assert KeptMaps.fits(network, chips, bf16=False) == (len(chips) * each <= 2**30)
    wide = copy.copy(network)
    wide.encoder = copy.copy(encoder)
    wide.encoder.dims = tuple(d * 10_000 for d in encoder.dims)
    assert not KeptMaps.fits(wide, chips, bf16=True)
