"""A small labelled landscape whose classes show in the imagery, and an untrained encoder for it."""

from __future__ import annotations

import datetime as dt

import pytest
import torch

from geossl.bands import Statistics
from geossl.downstream import change
from geossl.downstream.data import TaskData
from geossl.downstream.settings import ChangeSettings
from geossl.downstream.task import TrainedTask
from geossl.legend import CHANGE
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings

from .landscape import QUICK, SENSOR, clearings, landcover, make_data


@pytest.fixture(scope="session")
def landcover_data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    return make_data(tmp_path_factory.mktemp("landcover"), landcover)


@pytest.fixture(scope="session")
def change_data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    data = make_data(tmp_path_factory.mktemp("change"), clearings, CHANGE, tiles=1)
    assert data.dates == (dt.date(2020, 6, 15), dt.date(2022, 6, 15))
    return data


@pytest.fixture(scope="session")
def card() -> Card:
    statistics = Statistics(
        (1,) * 2, (550.0, 650.0), (200.0, 200.0), (0.0,) * 2, (2000.0,) * 2, (0.0,) * 2, (1000.0,) * 2
    )
    return Card(EncoderSettings(name="unet-tiny"), SENSOR, statistics, "none", id="none-unet-tiny-0")


@pytest.fixture(scope="session")
def encoder(card: Card) -> Encoder:
    torch.manual_seed(3)
    return build_encoder(card.architecture, 2).eval()


@pytest.fixture(scope="session")
def change_task(change_data: TaskData, encoder: Encoder, card: Card) -> TrainedTask:
    return change.fit(change_data, encoder, card, ChangeSettings(finetune=QUICK))
