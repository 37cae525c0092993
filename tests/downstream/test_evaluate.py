"""Held-out counts, floors and rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geossl.chips.split import TEST, TRAIN
from geossl.downstream import landcover
from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import PRETRAINED, WITHOUT_ENCODER, Evaluation, evaluate_encoder, evaluate_task
from geossl.downstream.floors import RANDOM, SCRATCH, random_encoder
from geossl.downstream.heldout import Contender, count
from geossl.downstream.settings import ChangeSettings, EvaluateSettings, LandcoverSettings
from geossl.downstream.task import TrainedTask
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

from .landscape import QUICK


def score(evaluation: Evaluation, model: str, metric: str) -> dict[str, Any]:
    (row,) = (row for row in evaluation.rows if row["model"] == model and row["metric"] == metric)
    return row


def red(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    return image[0].astype(np.float32)


def by_hand(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return (
        np.stack([features[:, 0] < 450, features[:, 0] > 750, (features[:, 0] >= 450) & (features[:, 0] <= 750)], 1)
        * 1.0
    )


@pytest.mark.parametrize("every", [1, 3])
def test_counts_are_those_of_a_plain_loop_over_test_pixels(landcover_data: TaskData, every: int) -> None:
    found = count(landcover_data, [Contender("rule", red, by_hand)], every=every)["rule"]
    expected: dict[int, NDArray[np.int64]] = {}
    for _, ground in landcover_data.grounds():
        image = landcover_data.images(ground.tile_id)[0][0]
        predicted = by_hand(image.reshape(2, -1).T.astype(np.float32)).argmax(axis=1).reshape(256, 256)
        origin = landcover_data.collection.tile(ground.tile_id).pixel_origin
        for row, col in np.argwhere((ground.subset == TEST) & (ground.label != NO_LABEL)):
            if (row + origin[0]) % every == 0 and (col + origin[1]) % every == 0:
                counts = expected.setdefault(int(ground.block[row, col]), np.zeros((3, 3), np.int64))
                counts[ground.label[row, col], predicted[row, col]] += 1
    assert (found.confusion == np.stack([expected[block] for block in sorted(expected)])).all()


def test_landcover_is_scored_beside_every_floor(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    settings = LandcoverSettings(mode="few", labels=150, finetune=QUICK.model_copy(update={"steps": 10}))
    task = landcover.fit(landcover_data, encoder, card, settings)
    evaluation = evaluate_task(landcover_data, task, card, settings, EvaluateSettings(every=3), name="cover")
    forests = [f"random forest, {f}" for f in ("pixel", "3×3 and 5×5 statistics", "multi-scale statistics")]
    floors = ["majority class", *forests, "LDA, multi-scale statistics", RANDOM, SCRATCH]
    ours = PRETRAINED if task.card.encoder else WITHOUT_ENCODER
    assert list(evaluation.confusions) == [ours, *floors]
    assert len({matrix.sum() for matrix in evaluation.confusions.values()}) == 1  # all on the same pixels
    truth = landcover_data.counts(TRAIN).argmax()
    assert evaluation.confusions["majority class"][:, truth].sum() == evaluation.confusions[ours].sum()
    for row in evaluation.rows:
        assert (row["task"], row["split"], row["labels"]) == ("cover", "block-32 buffer-4 seed-1", 150)
        assert row["low"] <= row["mean"] <= row["high"]
    assert score(evaluation, forests[0], "macro_f1")["mean"] > 0.85
    over_majority, over_scratch = (
        next(d for d in evaluation.differences if d["against"] == other and d["metric"] == "macro_f1")
        for other in ("majority class", SCRATCH)
    )
    assert over_majority["verdict"] == "gain"
    assert {row["name"] for row in evaluation.classes[ours]} == set(landcover_data.legend.names)
    for row in evaluation.classes[ours]:
        assert all(row[m]["low"] <= row[m]["mean"] <= row[m]["high"] for m in ("f1", "iou", "recall", "precision"))
    pixels = evaluation.reliability[ours]
    assert pixels[:, 0].sum() == evaluation.confusions[ours].sum()
    assert pixels[:, 2].sum() == np.trace(evaluation.confusions[ours])
    assert score(evaluation, ours, "calibration_error")["mean"] < 0.1
    assert not any(d["metric"] == "calibration_error" for d in evaluation.differences)
    expected = score(evaluation, ours, "macro_f1")["mean"] - score(evaluation, SCRATCH, "macro_f1")["mean"]
    assert over_scratch["mean"] == pytest.approx(expected)
    json.dumps([evaluation.rows, evaluation.differences])


def test_change_is_scored_beside_every_floor(
    change_data: TaskData, change_task: TrainedTask, encoder: Encoder, card: Card
) -> None:
    settings = ChangeSettings(finetune=QUICK.model_copy(update={"steps": 5}))
    evaluation = evaluate_task(
        change_data, change_task, card, settings, EvaluateSettings(every=3), name="clearings", encoder=encoder
    )
    assert list(evaluation.confusions) == [
        PRETRAINED,
        "majority class",
        "CVA",
        "CVA, 5×5 means",
        "IR-MAD",
        SCRATCH,
        "no labels, embedding",
        "no labels, irmad",
        "no labels, cva",
    ]
    precision = {model: score(evaluation, model, "average_precision")["mean"] for model in evaluation.confusions}
    matrix = evaluation.confusions[PRETRAINED]
    assert precision["majority class"] == pytest.approx(matrix[1].sum() / matrix.sum())
    # noise averages out over 5 × 5 pixels
    assert precision["majority class"] < precision["CVA"] < precision["CVA, 5×5 means"]
    assert score(evaluation, "CVA", "f1")["mean"] > 0.6  # its threshold comes from validation blocks
    assert score(evaluation, "majority class", "f1")["mean"] == 0
    # without a label the better half of what was lost is found all the same
    assert precision["no labels, cva"] > 0.6


def test_without_floors_only_the_model_is_scored(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    settings = LandcoverSettings(mode="few", labels=60)
    task = landcover.fit(landcover_data, encoder, card, settings)
    evaluation = evaluate_task(landcover_data, task, card, settings, EvaluateSettings(floors=False), name="cover")
    assert {row["model"] for row in evaluation.rows} == {PRETRAINED if task.card.encoder else WITHOUT_ENCODER}
    assert evaluation.differences == []


def test_an_encoder_that_learnt_nothing_shows_no_gain(landcover_data: TaskData, card: Card) -> None:
    unlearnt, _ = random_encoder(card, seed=0)
    settings = EvaluateSettings(labels=(30, 90), draws=2, every=4)
    evaluation = evaluate_encoder(landcover_data, unlearnt, card, settings, name="frozen")
    same = [d for d in evaluation.differences if d["against"].startswith("LDA, random")]
    assert len(same) == 2 * 2 * 3  # labels, with and without statistics, metrics
    assert all(d["mean"] == 0 and d["verdict"] == "no gain" for d in same)
    assert {row["labels"] for row in evaluation.rows} == {30, 90}
    # two draws count every test pixel twice
    assert evaluation.confusions["LDA, pretrained, 90 labels"].sum() % 2 == 0
    assert all(row["mean"] > 0.6 for row in evaluation.rows if row["labels"] == 90 and row["metric"] == "accuracy")
