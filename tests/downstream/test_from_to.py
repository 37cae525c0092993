"""Change from what to what: one legend with more than two classes from labels to polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from numpy.typing import NDArray

from geossl.downstream import change
from geossl.downstream.data import TaskData
from geossl.downstream.evaluate import PRETRAINED, evaluate_task
from geossl.downstream.floors import SCRATCH
from geossl.downstream.settings import ChangeSettings, EvaluateSettings
from geossl.downstream.task import TrainedTask, load_task, save_task
from geossl.legend import LandClass, Legend
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.settings import MapSettings
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

from .landscape import QUICK, make_data, patches

FROM_TO = Legend(
    tuple(
        LandClass(code, name, color)
        for code, name, color in (
            (0, "stable", "#d9d9d9"),
            (12, "forest to field", "#d7191c"),
            (21, "field to forest", "#1a9641"),
        )
    )
)
SETTINGS = ChangeSettings(finetune=QUICK)


def _paint(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """Squares of forest and field, some of which become the other."""
    rng = np.random.default_rng((seed, ix))
    field, moved = patches(rng, 2) == 1, patches(rng, 3) == 0
    look = np.array([[400, 800], [800, 400]])  # red and near infrared of forest, of field
    before, after = look[field.astype(int)], look[(field ^ moved).astype(int)]
    images = [
        (each.transpose(2, 0, 1) + rng.normal(scale=60, size=(2, 256, 256))).astype(np.int16)
        for each in (before, after)
    ]
    return images, np.where(moved, np.where(field, 21, 12), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    return make_data(tmp_path_factory.mktemp("from-to"), _paint, FROM_TO, tiles=1)


@pytest.fixture(scope="module")
def task(data: TaskData, encoder: Encoder, card: Card) -> TrainedTask:
    return change.fit(data, encoder, card, SETTINGS)


@pytest.mark.slow
def test_both_directions_are_told_apart_and_scored(data: TaskData, task: TrainedTask, card: Card) -> None:
    quick = ChangeSettings(finetune=QUICK.model_copy(update={"steps": 5}), labels=300)
    found = evaluate_task(data, task, card, quick, EvaluateSettings(every=3), name="from-to")
    rows = {(row["model"], row["metric"]): row["mean"] for row in found.rows}
    assert rows[PRETRAINED, "macro_f1"] > 0.8
    assert {model for model, _ in rows} == {
        PRETRAINED,
        "majority class",
        "random forest, pixel",
        "random forest, 5×5 means",
        SCRATCH,
    }
    # the pixel's own two dates say which way it went
    assert rows["random forest, pixel", "macro_f1"] > 0.8
    # of what is called changed and what is, whichever way
    matrix = found.confusions[PRETRAINED]
    hit = matrix[1:, 1:].sum()
    expected = 2 * hit / (matrix[1:].sum() + matrix[:, 1:].sum())
    assert rows[PRETRAINED, "f1_of_change"] == pytest.approx(expected)


def test_the_map_has_polygons_of_every_change_and_none_of_what_stayed(
    data: TaskData, task: TrainedTask, tmp_path: Path
) -> None:
    save_task(tmp_path / "task", task)
    settings = MapSettings(minimum_ha=0.5)
    steps = {tile_id: data.steps(tile_id) or () for tile_id in data.require_dates()}
    report = predict_map(
        load_task(tmp_path / "task"), data.collection, steps, tiles_folder(tmp_path, "it"), settings=settings
    )
    release = publish_map(
        report,
        tmp_path,
        "it",
        legend=task.legend,
        grid=data.collection.grid,
        encoder=None,
        settings=settings,
        polygon_codes=task.legend.codes[1:],
    )
    polygons = pyogrio.read_dataframe(release.polygons)
    assert set(polygons["class_name"]) == {"forest to field", "field to forest"}
    with rasterio.open(release.classes) as raster:
        found = raster.read(1)
    truth = data.labels.read(data.tile_ids[0])
    assert (found == truth).mean() > 0.85
