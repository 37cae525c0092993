"""The loss, the calibration and the loop."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax

from geossl.augment import Normalize
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import TaskData
from geossl.downstream.finetune import balanced_loss, finetune, labelled_chips, predict_chips, schedule, temperature
from geossl.downstream.landcover import score
from geossl.downstream.networks import LandcoverNetwork
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

from .landscape import QUICK


def test_loss_weighs_classes_not_pixels() -> None:
    """Repeating the pixels of one class changes nothing; unlabelled pixels count for nothing."""
    logits = torch.randn(1, 3, 1, 5, generator=torch.manual_seed(0))
    label = torch.tensor([[[0, 1, 1, 2, NO_LABEL]]], dtype=torch.uint8)
    losses = -logits.log_softmax(1)[0, :, 0]
    expected = (losses[0, 0] + (losses[1, 1] + losses[1, 2]) / 2 + losses[2, 3]) / 3
    assert balanced_loss(logits, label) == pytest.approx(expected.item())
    again = torch.cat([logits, logits[..., :1].expand(-1, -1, -1, 5)], dim=-1)
    more = torch.cat([label, torch.zeros_like(label)], dim=-1)
    assert balanced_loss(again, more) == pytest.approx(expected.item(), rel=1e-5)


def test_loss_of_no_label_is_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = balanced_loss(logits, torch.full((1, 2, 2), NO_LABEL, dtype=torch.uint8))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("sure", [0.5, 1.0, 4.0])
def test_temperature_undoes_wrong_sureness(sure: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(20_000, 3)).astype(np.float32)
    truth = np.array([rng.choice(3, p=p) for p in softmax(logits.astype(float), axis=1)], np.uint8)
    assert temperature(logits * sure, truth) == pytest.approx(sure, rel=0.06)


def test_temperature_leaves_out_classes_never_taught() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3)).astype(np.float32)
    truth = logits.argmax(axis=1).astype(np.uint8)
    known = truth < 2
    logits[:, 2] = -np.inf
    assert temperature(logits, truth) == pytest.approx(temperature(logits[known], truth[known]))


def test_training_keeps_the_best_weights_and_learns(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    torch.manual_seed(0)
    normalize = Normalize.from_statistics(card.statistics)
    network = LandcoverNetwork(copy.deepcopy(encoder), 3)
    train, judges = labelled_chips(landcover_data, QUICK, labels=None, seed=0)
    before = score(*predict_chips(network, normalize, judges))
    trained = finetune(network, network.encoder, normalize, train, judges, score, QUICK, seed=0)
    truth, logits = predict_chips(network, normalize, judges)
    assert trained.score > max(0.8, before)
    assert score(truth, logits) == pytest.approx(trained.score, abs=0.02)
    assert (truth == trained.truth).all()


def test_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [schedule(done) for done in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.2
    assert np.argmax(rates) == 10
    assert max(rates) == pytest.approx(1)
    assert rates[-1] == pytest.approx(0)
    assert schedule(1.5) == pytest.approx(0)


def test_a_time_limit_ends_the_training(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    network = LandcoverNetwork(copy.deepcopy(encoder), 3)
    train, judges = labelled_chips(landcover_data, QUICK, labels=30, seed=0)
    settings = QUICK.model_copy(update={"steps": 1_000_000, "minutes": 1e-4})
    normalize = Normalize.from_statistics(card.statistics)
    assert finetune(network, network.encoder, normalize, train, judges, score, settings, seed=0).step <= 25


def test_a_frozen_encoder_stays_bit_for_bit(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    network = LandcoverNetwork(copy.deepcopy(encoder), 3)
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    settings = QUICK.model_copy(update={"encoder_rate": 0.0, "steps": 5})
    normalize = Normalize.from_statistics(card.statistics)
    finetune(network, network.encoder, normalize, train, judges, score, settings, seed=0)
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name]), name


def test_validation_uses_half_as_many_labels(landcover_data: TaskData) -> None:
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    assert (train.label != NO_LABEL).sum() == 90
    assert (judges.label != NO_LABEL).sum() == 45
    assert landcover_data.counts(TRAIN).sum() > 90
    assert landcover_data.counts(VAL).sum() > 45
