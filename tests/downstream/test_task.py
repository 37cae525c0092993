"""Predictions: the folder's round trip, no-data, odd sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load

from geossl.downstream import neighbourhood
from geossl.downstream.networks import ChangeNetwork, LandcoverNetwork, LinearNetwork
from geossl.downstream.task import TaskCard, TrainedTask, load_task, save_task
from geossl.errors import StoreError
from geossl.features import hypercolumns
from geossl.legend import CHANGE, Legend
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderName, EncoderSettings

from .landscape import LEGEND


def a_card(card: Card, legend: Legend, **changes: Any) -> TaskCard:
    values: dict[str, Any] = {
        "task": "landcover", "legend": legend, "sensor": card.sensor, "statistics": card.statistics,
        "architecture": card.architecture, "head": "dense", "features": "encoder", "encoder": card.id,
        "labels": {"water": 3}, "snapshot": "S", "settings": {}, "validation": 0.5, "temperature": 1.7,
    }  # fmt: skip
    return TaskCard(**values | changes)


@pytest.fixture(params=["dense", "dense linear", "linear", "statistics", "change", "change linear"])
def task(request: pytest.FixtureRequest, encoder: Encoder, card: Card) -> TrainedTask:
    torch.manual_seed(1)
    if request.param == "dense":
        return TrainedTask.create(a_card(card, LEGEND), LandcoverNetwork(encoder, 3).eval())
    if request.param == "change":
        return TrainedTask.create(a_card(card, CHANGE, task="change", threshold=0.8), ChangeNetwork(encoder, 2))
    if request.param == "dense linear":
        return TrainedTask.create(a_card(card, LEGEND, head="linear"), LandcoverNetwork(encoder, 3, "linear"))
    if request.param == "change linear":
        return TrainedTask.create(
            a_card(card, CHANGE, task="change", head="linear"), ChangeNetwork(encoder, 2, "linear")
        )
    features = "encoder + statistics" if request.param == "linear" else "statistics"
    network = LinearNetwork(encoder if request.param == "linear" else None, 3, bands=2, statistics=True)
    rng = np.random.default_rng(0)
    bias = np.array([0.1, -np.inf, 0.2], np.float32)
    network.set_head(rng.normal(scale=0.1, size=network.weight.shape).astype(np.float32), bias)
    return TrainedTask.create(a_card(card, LEGEND, head="lda", features=features), network)


def scene(task: TrainedTask, height: int = 64, width: int = 64) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    dates = () if task.dates == 1 else (2,)
    return rng.integers(0, 1500, (2, *dates, 2, height, width)).astype(np.int16), rng.random(
        (2, *dates, height, width)
    ) > 0.2


def test_folder_round_trip_predicts_identically(task: TrainedTask, tmp_path: Path) -> None:
    save_task(tmp_path / task.id, task)
    loaded = load_task(tmp_path / task.id)
    assert loaded.card == task.card
    assert (loaded.predict(*scene(task)) == task.predict(*scene(task))).all()
    assert {path.name for path in (tmp_path / task.id).iterdir()} == {"model.safetensors", "card.json"}


def test_probabilities_add_up_and_no_data_stays_no_data(task: TrainedTask) -> None:
    image, valid = scene(task)
    seen = valid if task.dates == 1 else valid.all(axis=1)
    total = task.predict(image, valid).sum(axis=1)
    assert total[seen] == pytest.approx(1, abs=1e-5)
    assert (total[~seen] == 0).all()


def test_what_lies_under_no_data_does_not_matter(task: TrainedTask) -> None:
    image, valid = scene(task)
    other = np.where(np.expand_dims(valid, -3), image, np.int16(-1))
    assert (task.predict(image, valid) == task.predict(other, valid)).all()


def test_any_size_is_predicted_as_part_of_a_larger_one(task: TrainedTask) -> None:
    """Padding to the network's stride is invisible away from the border."""
    image, valid = scene(task, 128, 128)
    whole, part = task.predict(image, valid), task.predict(image[..., :121, :117], valid[..., :121, :117])
    assert part.shape == (2, len(task.legend), 121, 117)
    assert part[..., :40, :40] == pytest.approx(whole[..., :40, :40], abs=1e-4)


def test_the_threshold_is_where_change_begins(encoder: Encoder, card: Card) -> None:
    torch.manual_seed(1)
    network = ChangeNetwork(encoder, 2)
    plain, raised = (
        TrainedTask.create(a_card(card, CHANGE, task="change", threshold=t, temperature=1.0), network)
        for t in (0.0, 0.7)
    )
    image, valid = scene(plain)
    p, q = (np.clip(t.predict(image, valid)[:, 1][valid.all(axis=1)], 1e-6, 1 - 1e-6) for t in (plain, raised))
    assert np.log(p / (1 - p)) - 0.7 == pytest.approx(np.log(q / (1 - q)), abs=1e-3)


def test_linear_network_is_the_head_on_hypercolumns_and_statistics(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    network = LinearNetwork(encoder, 3, bands=2, statistics=True).eval()
    weight = rng.normal(size=network.weight.shape).astype(np.float32)
    network.set_head(weight, np.array([1, 2, 3], np.float32))
    x = torch.randn(1, 2, 64, 64, generator=torch.manual_seed(0))
    valid = np.ones((64, 64), bool)
    with torch.inference_mode():
        logits = network(x[:, None], torch.from_numpy(valid)[None, None])[0].numpy()
        columns = hypercolumns(encoder, x)[0].numpy()
    table = np.concatenate([columns, neighbourhood.multi_scale(x[0].numpy(), valid)])
    expected = np.einsum("kf,fyx->kyx", weight, table) + np.array([1, 2, 3])[:, None, None]
    assert logits == pytest.approx(expected, abs=1e-3)


def test_the_id_follows_the_content(encoder: Encoder, card: Card) -> None:
    network = LandcoverNetwork(encoder, 3)
    one = TrainedTask.create(a_card(card, LEGEND), network)
    assert one.id.startswith("landcover-dense-")
    assert TrainedTask.create(a_card(card, LEGEND, created="later", scores=({"mean": 1.0},)), network).id == one.id
    assert TrainedTask.create(a_card(card, LEGEND, temperature=2.0), network).id != one.id


def test_damaged_folders_say_so(task: TrainedTask, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trained task at"):
        load_task(tmp_path)
    save_task(tmp_path, task)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"is not the file that card\.json describes"):
        load_task(tmp_path)
    newer = task.card.to_dict() | {"format": 99}
    (tmp_path / "card.json").write_text(json.dumps(newer))
    with pytest.raises(StoreError, match="update geossl"):
        load_task(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(StoreError, match="is damaged"):
        load_task(tmp_path)


@pytest.mark.parametrize("head", ["dense", "lda"])
def test_folders_of_the_first_format_are_read(encoder: Encoder, card: Card, tmp_path: Path, head: str) -> None:
    """What they said and held is still said and held the same way, so all that differs is the number."""
    network = LandcoverNetwork(encoder, 3) if head == "dense" else LinearNetwork(encoder, 3, bands=2, statistics=True)
    task = TrainedTask.create(a_card(card, LEGEND, head=head, format=1, features="encoder + statistics"), network)
    save_task(tmp_path, task)
    assert json.loads((tmp_path / "card.json").read_text())["format"] == 1
    names = set(load(tmp_path / "model.safetensors"))
    first_conv = "encoder.backbone.stages.0.0.weight"
    assert names >= ({first_conv, "head.laterals.0.weight", "head.classify.bias"} if head == "dense" else {"weight"})
    loaded = load_task(tmp_path)
    assert loaded.card.format == 1
    assert (loaded.predict(*scene(task)) == task.predict(*scene(task))).all()


def test_scores_can_be_added_to_a_card(task: TrainedTask, tmp_path: Path) -> None:
    scored = dataclasses.replace(task, card=dataclasses.replace(task.card, scores=({"metric": "f1", "mean": 0.5},)))
    save_task(tmp_path, scored)
    assert load_task(tmp_path).card.scores == ({"metric": "f1", "mean": 0.5},)


@pytest.mark.parametrize(
    ("name", "window", "margin"), [("unet-small", 256, 32), ("resnet18", 512, 96), ("vit-tiny", 256, 32)]
)
def test_networks_that_look_far_get_wide_margins(card: Card, name: EncoderName, window: int, margin: int) -> None:
    settings = EncoderSettings(name=name)
    network = LandcoverNetwork(build_encoder(settings, 2), 3)
    task = TrainedTask.create(a_card(card, LEGEND, architecture=settings), network)
    assert (task.window, task.margin) == (window, margin)
