from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from geossl.chips.split import VAL, Split, SplitSettings
from geossl.downstream import online
from geossl.downstream.data import TaskData
from geossl.downstream.online import OnlineKnn, balanced
from geossl.errors import LabelError
from geossl.features import hypercolumns
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.probe import KNN

from .landscape import landcover, make_data


def test_it_tells_what_the_image_shows_and_no_more(landcover_data: TaskData, encoder: Encoder, card: Card) -> None:
    knn = OnlineKnn(landcover_data, card.statistics, size=64)
    with torch.no_grad():
        assert knn(encoder) > 0.8  # each class has its own mean
        for p in (blind := copy.deepcopy(encoder)).parameters():
            p.zero_()
        assert knn(blind) < 0.6  # it says the same of every point


def test_the_figure_is_that_of_hypercolumns_at_the_points(
    landcover_data: TaskData, encoder: Encoder, card: Card
) -> None:
    knn = OnlineKnn(landcover_data, card.statistics, size=32)
    features = []
    for points in (knn._teach, knn._judge):
        rows = []
        with torch.no_grad():
            for image, valid, at, label in zip(points.image, points.valid, points.at, points.label, strict=True):
                normal = knn._normalize(torch.from_numpy(image), torch.from_numpy(valid))
                columns = hypercolumns(encoder, normal)[0].numpy()
                x, y = ((at.numpy() + 1) * 32 / 2 - 0.5).round().astype(int).T
                rows += [(columns[:, j, i], k) for i, j, k in zip(x, y, label, strict=True) if k != NO_LABEL]
        features.append(([row[0] for row in rows], [row[1] for row in rows]))
    (known, classes), (asked, truth) = ((np.stack(x), np.array(y)) for x, y in features)
    want = (KNN(3).fit(known, classes).predict_proba(asked).argmax(axis=1) == truth).mean()
    with torch.no_grad():
        assert knn(encoder) == pytest.approx(want, abs=0.01)


def test_validation_blocks_judge(tmp_path: Path, card: Card) -> None:
    data = make_data(tmp_path, landcover)
    knn = OnlineKnn(data, card.statistics, size=32)
    judges = data.chips(VAL, 32, limit=online.CHIPS, seed=0)
    assert {image.tobytes() for image in knn._judge.image} == {image.tobytes() for image in judges.image}
    assert not {image.tobytes() for image in knn._judge.image} & {image.tobytes() for image in knn._teach.image}


def test_the_cost_is_bounded(landcover_data: TaskData, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "CHIPS", 5)
    monkeypatch.setattr(online, "TILES", 1)
    knn = OnlineKnn(landcover_data, card.statistics, size=32)
    assert len(knn._teach.image) == 5
    assert knn._judge.label.shape == (5, online.POINTS)
    assert len(landcover_data.tile_ids) == 2  # the task's own list stays


def test_two_dates_are_compared(change_data: TaskData, encoder: Encoder, card: Card) -> None:
    with torch.no_grad():
        assert OnlineKnn(change_data, card.statistics, size=64)(encoder) > 0.7


def test_labels_that_cannot_teach_are_refused(tmp_path: Path, card: Card) -> None:
    data = make_data(tmp_path, landcover, split=Split(SplitSettings(block=256, buffer=4, seed=1)), tiles=1)
    with pytest.raises(LabelError):
        OnlineKnn(data, card.statistics, size=64)


def test_points_are_shared_out_over_the_classes() -> None:
    label = np.array([0] * 90 + [1] * 3 + [4] + [NO_LABEL] * 20, np.uint8)
    for seed in range(5):
        chosen = balanced(label, 8, np.random.default_rng(seed))
        assert np.bincount(label[chosen], minlength=5).tolist() == [4, 3, 0, 0, 1]
    few = balanced(label[-22:], 4, np.random.default_rng(0))
    assert (label[-22:][few] == NO_LABEL).tolist() == [False, False, True, True]
    assert len(set(few)) == 4
