"""Land cover is learnt from training blocks alone, by either mode, and the same under one seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geossl.chips.split import TEST, TRAIN, VAL
from geossl.downstream import landcover
from geossl.downstream.data import TaskData
from geossl.downstream.floors import contender
from geossl.downstream.heldout import count
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.task import TrainedTask
from geossl.errors import LabelError, RadiometryError
from geossl.grid import Tile
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.scores import accuracy, macro_f1

from . import landscape
from .landscape import GRID, LEGEND, QUICK, SPLIT, make_data

FEW = LandcoverSettings(mode="few", labels=150)
FINETUNE = LandcoverSettings(mode="finetune", labels=300, finetune=QUICK)


def held_out(data: TaskData, task: TrainedTask) -> NDArray[np.int64]:
    return count(data, [contender("it", task)], every=2)["it"].confusion.sum(axis=0)


@pytest.mark.parametrize("settings", [FEW, FINETUNE], ids=["few", "finetune"])
def test_held_out_ground_is_mapped(
    landcover_data: TaskData, encoder: Encoder, card: Card, settings: LandcoverSettings
) -> None:
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    task = landcover.fit(landcover_data, encoder, card, settings)
    assert macro_f1(held_out(landcover_data, task)) > 0.85
    assert task.card.validation is not None
    assert task.card.validation > 0.8
    assert sum(task.card.labels.values()) == settings.labels
    assert task.card.snapshot == landcover_data.collection.snapshot
    # the encoder given stays as it is
    assert all(torch.equal(weights[name], tensor) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("settings", [FEW, FINETUNE], ids=["few", "finetune"])
def test_test_blocks_never_leak(tmp_path: Path, encoder: Encoder, card: Card, settings: LandcoverSettings) -> None:
    """Other labels in test blocks and buffers give the very same model."""

    def painted(wrong: bool) -> landscape.Paint:
        def paint(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
            images, codes = landscape.landcover(ix, seed)
            held = ~np.isin(SPLIT.subset_mask(Tile(GRID, ix, 0)), (TRAIN, VAL))
            if wrong:
                codes[held] = np.roll(codes, 77)[held]
            return images, codes

        return paint

    settings = settings.model_copy(update={"finetune": QUICK.model_copy(update={"steps": 10})})
    weights, scores = [], []
    for wrong in (False, True):
        data = make_data(tmp_path / str(wrong), painted(wrong))
        assert data.counts(TEST).any()
        task = landcover.fit(data, encoder, card, settings)
        weights.append(task.card.weights)
        scores.append(accuracy(held_out(data, task)))
    assert weights[0] == weights[1]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_one_seed_gives_one_model_and_another_another(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    quick = FINETUNE.model_copy(update={"mode": "auto", "finetune": QUICK.model_copy(update={"steps": 10})})
    first, again = (landcover.fit(landcover_data, encoder, card, quick) for _ in range(2))
    other = landcover.fit(landcover_data, encoder, card, quick.model_copy(update={"seed": 1}))
    assert first.id == again.id
    assert first.id != other.id


def test_auto_keeps_what_validates_better(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    barely = QUICK.model_copy(update={"steps": 1, "learning_rate": 1e-6})
    task = landcover.fit(landcover_data, encoder, card, LandcoverSettings(mode="auto", labels=150, finetune=barely))
    assert task.card.head != "dense"
    assert "on validation blocks" in task.card.notes[-1]


def test_candidates_are_chosen_by_what_helps(tmp_path: Path, card: Card, encoder: Encoder) -> None:
    """An encoder that says nothing loses against statistics; the card then names no encoder."""
    data = make_data(tmp_path, landscape.landcover)
    dumb = type(encoder)(encoder.settings, 2, torch.nn.Identity(), [2], [1], 1)
    dumb.backbone.forward = lambda image: [torch.zeros_like(image)]
    task = landcover.fit(data, dumb, card, FEW, candidates=(("encoder", "lda"), ("statistics", "lda")))
    assert task.card.features == "statistics"
    assert task.card.encoder == ""


def test_a_class_without_training_labels_is_never_predicted(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    def no_grass(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        images, codes = landscape.landcover(ix, seed)
        codes[codes == LEGEND.codes[1]] = NO_LABEL
        return images, codes

    data = make_data(tmp_path, no_grass)
    task = landcover.fit(data, encoder, card, FEW)
    assert task.card.notes == ("no training label is 'grass': it is never predicted",)
    proba = task.predict(data.images(data.tile_ids[0])[0], np.ones((1, 256, 256), bool))
    assert (proba[:, 1] == 0).all()
    assert macro_f1(held_out(data, task)) > 0.9


def test_without_validation_labels_auto_does_with_few_and_finetune_refuses(
    tmp_path: Path, encoder: Encoder, card: Card
) -> None:
    def no_validation(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        images, codes = landscape.landcover(ix, seed)
        codes[SPLIT.subset_mask(Tile(GRID, ix, 0)) == VAL] = NO_LABEL
        return images, codes

    data = make_data(tmp_path, no_validation)
    task = landcover.fit(data, encoder, card, FEW.model_copy(update={"mode": "auto"}))
    assert task.card.notes == ("validation blocks hold no two labelled classes: the network was not fine-tuned",)
    with pytest.raises(LabelError, match="no clear pixel in the validation blocks is labelled"):
        landcover.fit(data, encoder, card, FINETUNE)


def test_one_class_alone_is_refused(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    def only_water(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        images, codes = landscape.landcover(ix, seed)
        codes[codes != LEGEND.codes[0]] = NO_LABEL
        return images, codes

    with pytest.raises(LabelError, match="in the training blocks of 'truth' are 'water'") as refused:
        landcover.fit(make_data(tmp_path, only_water), encoder, card, FEW)
    assert "label at least two classes" in str(refused.value)


def test_a_class_that_validation_lacks_is_named(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    def paint(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        images, codes = landscape.landcover(ix, seed)
        codes[(SPLIT.subset_mask(Tile(GRID, ix, 0)) == VAL) & (codes == LEGEND.codes[2])] = NO_LABEL
        return images, codes

    barely = FINETUNE.model_copy(update={"finetune": QUICK.model_copy(update={"steps": 1})})
    task = landcover.fit(make_data(tmp_path, paint), encoder, card, barely)
    assert [note for note in task.card.notes if "no validation label is 'forest'" in note]
    assert task.card.labels["forest"] > 0


def test_an_encoder_for_other_imagery_is_refused(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    other = dataclasses.replace(card, sensor=card.sensor.subset(("nir", "red")))
    with pytest.raises(RadiometryError, match="bands: nir, red ≠ red, nir"):
        landcover.fit(landcover_data, encoder, other, FEW)
    scaled = dataclasses.replace(card.sensor, radiometry=dataclasses.replace(card.sensor.radiometry, scale=1e-4))
    with pytest.raises(RadiometryError, match="scale"):
        landcover.fit(landcover_data, encoder, dataclasses.replace(card, sensor=scaled), FEW)
