"""Change is learnt from two dates, with its threshold from validation blocks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geossl.chips.split import TRAIN, VAL
from geossl.downstream import change
from geossl.downstream.data import TaskData
from geossl.downstream.floors import change_vector, contender
from geossl.downstream.heldout import count
from geossl.downstream.settings import ChangeSettings
from geossl.downstream.task import TrainedTask
from geossl.errors import LabelError
from geossl.grid import Tile
from geossl.legend import CHANGE
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.scores import average_precision_of, f1

from . import landscape
from .landscape import GRID, QUICK, SPLIT, make_data

SETTINGS = ChangeSettings(finetune=QUICK)


def test_clearings_are_found_on_held_out_ground(change_data: TaskData, change_task: TrainedTask) -> None:
    assert change_task.dates == 2
    counts = count(change_data, [contender("it", change_task)], every=2)["it"]
    assert average_precision_of(counts.histogram.sum(axis=0)) > 0.9
    # at the threshold from validation blocks, about as much is called changed as has changed
    assert f1(counts.confusion.sum(axis=0))[1] > 0.8


def test_test_blocks_never_leak(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    def painted(wrong: bool) -> landscape.Paint:
        def paint(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
            images, codes = landscape.clearings(ix, seed)
            held = ~np.isin(SPLIT.subset_mask(Tile(GRID, ix, 0)), (TRAIN, VAL))
            codes[held] = 1 - codes[held] if wrong else codes[held]
            return images, codes

        return paint

    quick = ChangeSettings(finetune=QUICK.model_copy(update={"steps": 5}))
    cards = [
        change.fit(make_data(tmp_path / str(wrong), painted(wrong), CHANGE), encoder, card, quick).card
        for wrong in (False, True)
    ]
    assert cards[0].weights == cards[1].weights
    assert cards[0].threshold == cards[1].threshold
    assert cards[0].temperature == cards[1].temperature


def test_labels_without_change_are_refused(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    def no_change_in_validation(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
        images, codes = landscape.clearings(ix, seed)
        codes[SPLIT.subset_mask(Tile(GRID, ix, 0)) == VAL] = 0
        return images, codes

    data = make_data(tmp_path, no_change_in_validation, CHANGE)
    with pytest.raises(LabelError, match="in the validation blocks of 'truth' are 'no change'"):
        change.fit(data, encoder, card, SETTINGS)


def test_other_labels_are_refused(
    landcover_data: TaskData, change_data: TaskData, encoder: Encoder, card: Card
) -> None:
    with pytest.raises(LabelError, match="1 date\\(s\\) and are of landcover"):
        change.fit(landcover_data, encoder, card, SETTINGS)
    once = TaskData(change_data.collection, change_data.labels, SPLIT, [dt.date(2020, 1, 1)])
    with pytest.raises(LabelError, match="change needs a date before"):
        change.fit(once, encoder, card, SETTINGS)


def test_change_vector_is_the_length_of_the_normalised_difference(card: Card) -> None:
    image = np.zeros((2, 2, 8, 8), np.int16)
    image[1, 0], image[1, 1, 4:] = 600, 800  # 3 and 4 standard deviations
    valid = np.ones((2, 8, 8), bool)
    valid[0, 0, 0] = False
    length = change_vector(card.statistics, 1)(image, valid)
    assert length[0, 7] == pytest.approx(5, abs=1e-5)
    assert length[0, 1] == pytest.approx(3, abs=1e-5)
    assert length[0, 0, 0] == 0
    # means of the difference, not of its length: around (4, 4) four fifths of the rows differ in the second band
    wide = change_vector(card.statistics, 5)(image, np.ones_like(valid))
    assert wide[0, 4, 4] == pytest.approx(np.hypot(3, 4 * 3 / 5), abs=1e-4)
