"""The calibration and the loop."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax

from geossl.augment import Normalize
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import TaskData
from geossl.downstream.finetune import (
    finetune,
    labelled_chips,
    parameter_groups,
    predict_chips,
    schedule,
    temperature,
)
from geossl.downstream.landcover import score
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.settings import FinetuneSettings
from geossl.errors import SettingsError
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings, HeadName

from .landscape import QUICK


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


@pytest.mark.parametrize("head", ["linear", "fpn"])
def test_a_frozen_encoder_stays_bit_for_bit(
    landcover_data: TaskData, encoder: Encoder, card: Card, head: HeadName
) -> None:
    network = LandcoverNetwork(copy.deepcopy(encoder), 3, head)
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    settings = QUICK.model_copy(update={"encoder": "frozen", "head": head, "steps": 5})
    normalize = Normalize.from_statistics(card.statistics)
    before = copy.deepcopy(network.head.state_dict())
    finetune(network, network.encoder, normalize, train, judges, score, settings, seed=0)
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name]), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in network.head.state_dict().items())


def test_low_rank_additions_end_up_in_the_weights(landcover_data: TaskData, card: Card) -> None:
    """LoRA leaves a plain encoder, in which the linear layers of the blocks moved by that rank, and nothing else."""
    torch.manual_seed(0)
    vit = build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=64), 2).eval()
    network = LandcoverNetwork(copy.deepcopy(vit), 3, "linear")
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    settings = QUICK.model_copy(update={"encoder": "lora", "lora_rank": 2, "steps": 3, "window": 64})
    finetune(
        network, network.encoder, Normalize.from_statistics(card.statistics), train, judges, score, settings, seed=0
    )
    after = network.encoder.state_dict()
    assert after.keys() == vit.state_dict().keys()
    moved = {name for name, tensor in vit.state_dict().items() if not torch.equal(tensor, after[name])}
    blocks = dict(vit.backbone.blocks.named_modules())
    assert moved == {f"backbone.blocks.{n}.weight" for n, layer in blocks.items() if isinstance(layer, torch.nn.Linear)}
    change = after["backbone.blocks.0.attn.qkv.weight"] - vit.state_dict()["backbone.blocks.0.attn.qkv.weight"]
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-3) == 2


def test_lora_says_what_it_needs(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    network = LandcoverNetwork(copy.deepcopy(encoder), 3)
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    settings = QUICK.model_copy(update={"encoder": "lora"})
    normalize = Normalize.from_statistics(card.statistics)
    with pytest.raises(SettingsError, match=r"finetune\.encoder: lora adapts .* unet-tiny has none"):
        finetune(network, network.encoder, normalize, train, judges, score, settings, seed=0)


def test_layers_learn_less_towards_the_image(encoder: Encoder) -> None:
    network = LandcoverNetwork(copy.deepcopy(encoder), 3)
    settings = FinetuneSettings(learning_rate=1e-2, encoder_rate=0.5, layer_decay=0.8, weight_decay=0.1)
    names = {id(p): name for name, p in network.named_parameters()}
    found = {names[id(p)]: g for g in parameter_groups(network, network.encoder, settings) for p in g["params"]}
    assert found.keys() == set(names.values())
    for name, group in found.items():
        if name.startswith("head."):
            assert group["lr"] == 1e-2, name
        else:
            stage = int(name.removeprefix("encoder.backbone.stages.").split(".")[0])
            assert group["lr"] == pytest.approx(0.5e-2 * 0.8 ** (3 - stage)), name
        assert group["weight_decay"] == (0.1 if network.get_parameter(name).ndim > 1 else 0), name


def test_an_encoder_rate_of_0_still_freezes() -> None:
    settings = FinetuneSettings.model_validate({"encoder_rate": 0})
    assert settings.encoder == "frozen"
    assert FinetuneSettings.model_validate(settings.model_dump()) == settings


def test_validation_uses_half_as_many_labels(landcover_data: TaskData) -> None:
    train, judges = labelled_chips(landcover_data, QUICK, labels=90, seed=0)
    assert (train.label != NO_LABEL).sum() == 90
    assert (judges.label != NO_LABEL).sum() == 45
    assert landcover_data.counts(TRAIN).sum() > 90
    assert landcover_data.counts(VAL).sum() > 45
