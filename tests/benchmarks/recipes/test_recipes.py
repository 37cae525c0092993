"""The arithmetic of the rows, and that what is left out is left out."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geossl.bands import Statistics
from geossl.chips.split import TEST, TRAIN, VAL
from geossl.errors import TrainingError
from geossl.nets.weights import load_encoder
from tests.train import synthetic

from . import change, pretraining, sets
from .elsewhere import JOB, Training, pack, train
from .glance import glance
from .patches import Patches
from .rows import FLOOR, RANDOM, SCRATCH, Estimate, Ledger, Measured, table


def measured(method: str, model: str, values: list[float], **about: object) -> list[Measured]:
    row = Measured("zion", "-", method, "-", 0.0, model, 100, "macro_f1", "", 0.0)
    row = dataclasses.replace(row, **about)  # type: ignore[arg-type]
    return [dataclasses.replace(row, repetition=f"seed {i}", value=v) for i, v in enumerate(values)]


def test_an_interval_is_students() -> None:
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / math.sqrt(3))  # deviation 1, two degrees of freedom
    assert math.isnan(Estimate.of([1.0]).half)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.10, 0.11, 0.12], "gain"),
        ([-0.10, -0.11, -0.12], "loss"),
        ([0.01, 0.11, 0.21], "no gain"),  # one sign, but the interval holds 0
        ([0.10, 0.11, -0.01], "no gain"),
        ([0.10, 0.11], "too few"),
    ],
)
def test_a_gain_needs_one_sign_and_an_interval_without_0(values: list[float], said: str) -> None:
    assert Estimate.of(values).verdict(values) == said


def test_differences_are_of_pairs_with_the_identical_head() -> None:
    floors = measured(FLOOR, "LDA, multi-scale", [0.50, 0.30]) + measured(FLOOR, "majority class", [0.10, 0.10])
    of_encoder = {"encoder": "unet-small"}
    random = measured(RANDOM, "LDA, encoder", [0.40, 0.20], **of_encoder)
    other_head = measured(RANDOM, "kNN-5, encoder", [0.90, 0.90], **of_encoder)
    ours = measured("simclr", "LDA, encoder", [0.55, 0.45], protocol="inductive", minutes=1.5, **of_encoder)
    lines = table(floors + random + other_head + ours)
    (line,) = (line for line in lines if "| simclr |" in line)
    # against the random encoder with the same head, then against the best floor
    number = r"[+-]?0\.\d{3}"
    found = re.search(rf"\| 2 \| ({number}) ± .* \(({number}) ± .*; ({number}) ± .*\) \|$", line)
    assert found
    assert found.groups() == ("0.500", "+0.200", "+0.100")
    assert not any("simclr" in line for line in table(floors + random + ours, {"dense"}))


def test_whole_networks_are_compared_with_scratch_at_one_rate() -> None:
    about = {"encoder": "unet-small"}
    scratch = measured(SCRATCH, "whole network", [0.40, 0.20], **about)
    for model in ("whole network", "whole network, encoder at 0.3"):
        ours = measured("dense", model, [0.55, 0.45], protocol="inductive", **about)
        (line,) = (line for line in table(scratch + ours) if "| dense |" in line)
        assert "0.500 ± 0.635 (+0.200 ± 0.635 too few; -)" in line


def test_what_is_measured_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out" / "measured.jsonl")
    ledger.add(measured("dense", "LDA, encoder", [0.1, 0.2]))
    again = Ledger(ledger.path)
    assert again.all == ledger.all
    assert again.has(method="dense", repetition="seed 1")
    assert not again.has(method="dense", repetition="seed 2")


def test_pooled_statistics_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(mean, 3, (n, 2)) for mean, n in ((5, 100), (9, 300))]

    def of(x: np.ndarray) -> Statistics:
        rows = (x.mean(0), x.std(0), x.min(0), x.max(0), x.min(0), x.max(0))
        return Statistics((len(x),) * 2, *(tuple(map(float, row)) for row in rows))

    found, wanted = pretraining.pooled([of(part) for part in parts]), of(np.concatenate(parts))
    assert found.count == wanted.count
    for name in ("mean", "std", "minimum", "maximum"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name))


def test_every_labelled_city_is_left_out_once_and_never_stops_its_own_training() -> None:
    out = [city for cities, _ in change.FOLDS for city in cities]
    assert sorted(out) == sorted(sets.LABELLED)
    assert all(stop not in cities for cities, stop in change.FOLDS)
    assert any({"bercy", "paris"} <= set(cities) for cities, _ in change.FOLDS)  # neighbours


@pytest.mark.slow
@pytest.mark.parametrize("subset", [TRAIN, VAL, TEST])
def test_a_city_belongs_to_one_subset(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subset: int
) -> None:
    monkeypatch.setattr(sets, "OUT", tmp_path)
    data = change.city_data("rennes", subset)
    labelled = {each: int(data.counts(each).sum()) for each in (TRAIN, VAL, TEST)}
    assert labelled.pop(subset) > 100_000
    assert set(labelled.values()) == {0}


def test_tiles_of_bigearthnet_teach_or_judge_as_wholes(shared_data: Path) -> None:
    import csv

    patches = Patches.of(1)
    with (shared_data / "bigearthnet-v2-patches" / "index.csv").open() as file:
        tiles = np.array([row["tile"] for row in csv.DictReader(file)])
    assert not set(tiles[patches.teaches]) & set(tiles[~patches.teaches])
    assert patches.teaches.sum() >= 40
    assert (~patches.teaches).sum() >= 12


def test_what_is_packed_is_trained_elsewhere(tmp_path: Path) -> None:
    class Few(synthetic.Places):
        """The same two batches in every epoch."""

        def set_epoch(self, epoch: int) -> None:
            super().set_epoch(min(epoch, 0))

    folders = [tmp_path / "encoders" / name for name in ("one", "other")]
    for folder in folders:
        chosen = synthetic.settings(epochs=3)
        what = Few(batches=2), synthetic.SENSOR, synthetic.STATISTICS, "SNAPSHOT"
        pack(Training(tmp_path / "elsewhere", chosen, *what), folder)
    (chips,) = (tmp_path / "encoders").glob("*.npz")  # both share them
    with np.load(chips) as file:
        assert file["image"].shape == (16, 3, 16, 16)  # each chip once
    assert "16 chips, 6 steps" in train(folders[0])
    _, card = load_encoder(folders[0])
    assert (card.sensor, card.statistics, card.snapshot) == (synthetic.SENSOR, synthetic.STATISTICS, "SNAPSHOT")
    assert [path.name for path in folders[1].iterdir()] == [JOB]


def test_a_pretraining_that_collapsed_is_told_and_not_tried_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    row: dict[str, Any] = {
        "protocol": "inductive",
        "method": "mocov2",
        "encoder": "unet-tiny",
        "minutes": 0.0,
        "steps": 300,
    }
    with ledger.training(["seed 1"], set="zion", **row):
        _collapse()
    assert Ledger(ledger.path).has(set="zion", repetition="seed 1", **row)
    ledger.add(measured(FLOOR, "LDA, multi-scale", [0.5]))
    *_, last, _ = table(ledger.all)
    assert last == "Collapsed, and left no encoder: zion, inductive mocov2 on unet-tiny, 300 steps: seed 1."
    assert sum("macro_f1" in line for line in table(ledger.all)) == 1


def _collapse() -> None:
    raise TrainingError("the encoder has collapsed at step 290", "lower the learning rate")


def test_at_a_glance_all_heads_are_one_difference_and_floors_meet_the_best_head() -> None:
    rows = [
        *measured(FLOOR, "LDA, multi-scale", [0.50, 0.30, 0.40]),
        *measured(FLOOR, "majority class", [0.10, 0.10, 0.10]),
    ]
    about = {"encoder": "unet-small"}
    for head, random, ours in (
        ("LDA, encoder", 0.20, [0.42, 0.44, 0.46]),
        ("kNN-5, encoder", 0.10, [0.20, 0.21, 0.22]),
    ):
        rows += measured(RANDOM, head, [random] * 3, **about)
        rows += measured("dense", head, ours, protocol="inductive", steps=180, **about)
    # (.22 + .10) / 2, (.24 + .11) / 2, (.26 + .12) / 2; and .44 beside .40 by their means
    told = "| zion | dense | unet-small | 180 steps | inductive | 3 | +0.175 ± 0.037 gain | +0.040 ± 0.277 no gain | "
    assert glance(rows)[2] == told + "- |"
    rows += measured("dense", "whole network", [0.9] * 3, protocol="inductive", **about)
    assert glance(rows)[2:] == [told + "- |", ""]
    rows += measured(SCRATCH, "whole network", [0.40, 0.40, 0.40], **about)
    assert glance(rows)[2:] == [told + "+0.040 ± 0.050 no gain |", ""]
