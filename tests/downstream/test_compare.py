"""Models on the gate blocks: counted where nothing is reported, told apart, and refused where they cannot be compared."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from geossl.chips.split import GATE, Split
from geossl.downstream import landcover
from geossl.downstream.compare import gate_counts, gate_metric
from geossl.downstream.data import TaskData
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.task import TrainedTask
from geossl.errors import LabelError
from geossl.legend import NO_LABEL, LandClass, Legend
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.registry import gate


@pytest.fixture(scope="module")
def data(landcover_data: TaskData) -> TaskData:
    """The same ground with gate blocks."""
    settings = landcover_data.split.settings.model_copy(update={"gate": 0.2})
    return TaskData(landcover_data.collection, landcover_data.labels, Split(settings))


@pytest.fixture(scope="module")
def champion(data: TaskData, encoder: Encoder, card: Card) -> TrainedTask:
    return landcover.fit(data, encoder, card, LandcoverSettings(mode="few", labels=150))


def test_a_worse_model_is_refused_and_an_equal_one_is_not(data: TaskData, champion: TrainedTask) -> None:
    worse = copy.deepcopy(champion)
    for name in ("weight", "bias"):  # takes two classes for each other
        buffer = worse.network.get_buffer(name)
        buffer.copy_(buffer[[1, 0, 2]])
    counts = gate_counts(data, {"challenger": worse, "champion": champion, "anchor": champion})
    labelled = sum(int(((ground.subset == GATE) & (ground.label != NO_LABEL)).sum()) for _, ground in data.grounds())
    assert {name: found.sum() for name, found in counts.items()} == dict.fromkeys(counts, labelled)
    assert len(counts["champion"]) >= 12
    assert (counts["anchor"] == counts["champion"]).all()
    metric = gate_metric(champion)
    assert gate(counts["champion"], counts["champion"], counts["anchor"], healthy=True, metric=metric).passed
    decision = gate(counts["challenger"], counts["champion"], counts["anchor"], healthy=True, metric=metric)
    assert not decision.passed
    assert "may be worse than the champion" in decision.reasons[0]


def test_gate_blocks_teach_nothing_and_are_not_reported(data: TaskData) -> None:
    for _, ground in data.grounds():
        gates = np.unique(ground.block[ground.subset == GATE])
        assert gates.size
        assert set(np.unique(ground.subset[np.isin(ground.block, gates)])) <= {0, GATE}


def test_a_model_of_other_classes_is_not_compared(data: TaskData, champion: TrainedTask) -> None:
    classes = tuple(LandClass(c.code, f"new {c.name}", c.color) for c in champion.legend)
    other = TrainedTask(dataclasses.replace(champion.card, legend=Legend(classes)), champion.network)
    with pytest.raises(LabelError, match=r"the champion .* knows the classes new water.*cannot be compared"):
        gate_counts(data, {"challenger": champion, "champion": other})
