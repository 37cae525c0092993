"""The ONNX file behind Deepness's own preprocessing, by onnxruntime, against the probabilities of the map."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from geossl import probe
from geossl.bands import Radiometry, Sensor
from geossl.downstream.networks import ChangeNetwork, LandcoverNetwork, LinearNetwork
from geossl.downstream.onnx import NO_DATA, export_onnx
from geossl.downstream.task import TaskCard, TrainedTask
from geossl.downstream.trees import Forest, ForestNetwork
from geossl.errors import GeosslError
from geossl.legend import CHANGE
from geossl.nets.card import Card
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderName, EncoderSettings

from .landscape import LEGEND

WINDOW = 64

needs_olmoearth = pytest.mark.skipif(
    find_spec("olmoearth_pretrain_minimal") is None, reason="the extra `olmoearth` is not installed"
)


class Deepness:
    """How the plugin (release 0.7) runs a model: what it reads from the file, and what it does to tiles and outputs.

    Written after its ``model_base.py``, ``preprocessing_utils.py`` and ``map_processor_segmentation.py``.
    """

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (self.input,) = self.session.get_inputs()  # more are refused
        self.meta = self.session.get_modelmeta().custom_metadata_map
        names = sorted(json.loads(self.meta["class_names"]).items(), key=lambda pair: int(pair[0]))
        assert [int(key) for key, _ in names] == list(range(len(names))), "a missing class is refused"
        self.names = [name for _, name in names]
        channels = self.input.shape[-3]
        self.mean = np.array(json.loads(self.meta["standardization_mean"]), np.float32)
        self.std = np.array(json.loads(self.meta["standardization_std"]), np.float32)
        assert self.mean.shape == self.std.shape == (channels,)

    def probabilities(self, tiles: NDArray[Any]) -> NDArray[np.float32]:
        """Tiles (N, H, W, C) as QGIS hands them over, in the raster's own dtype."""
        tiles = tiles[:, :, :, : self.input.shape[-3]]
        scaled = np.float32(tiles * 1.0 / 255.0)
        scaled = (scaled - self.mean) / self.std
        (found,) = self.session.run(None, {self.input.name: np.transpose(scaled, (0, 3, 1, 2))})
        return found

    def classes(self, tiles: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the classes (N, H, W) that become polygons."""
        found = self.probabilities(tiles)
        found[found < float(json.loads(self.meta["seg_thresh"]))] = 0.0
        return np.argmax(found, axis=1)


def a_task(card: Card, kind: str, name: EncoderName = "unet-tiny", sensor: Sensor | None = None) -> TrainedTask:
    torch.manual_seed(1)
    settings = EncoderSettings(name=name)
    encoder = build_encoder(settings, card.sensor.bands)
    change = kind in ("change", "from-to")
    legend = CHANGE if kind == "change" else LEGEND
    network: torch.nn.Module
    if change:
        network = ChangeNetwork(encoder, len(legend))
    elif kind == "dense":
        network = LandcoverNetwork(encoder, 3)
    else:
        network = LinearNetwork(None if kind == "statistics" else encoder, 3, bands=2, statistics=True)
        rng = np.random.default_rng(0)
        weight = rng.normal(scale=0.1, size=network.weight.shape).astype(np.float32)
        network.set_head(weight, np.array([0.1, -0.3, 0.2], np.float32))
    features = {"statistics": "statistics", "linear": "encoder + statistics"}.get(kind, "encoder")
    made = TaskCard(
        "change" if change else "landcover", legend, sensor or card.sensor, card.statistics,
        settings, "lda" if "statistics" in features else "dense", features, card.id, {}, "S", {}, 0.5,
        temperature=1.7, threshold=0.8 if change else 0.0,
    )  # fmt: skip
    task = TrainedTask.create(made, network)
    task.window, task.margin = WINDOW, 16
    return task


def scene(task: TrainedTask, batch: int = 3) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stored numbers (B, D, C, H, W) with no-data in them, some flat ground, and where they are valid."""
    rng = np.random.default_rng(0)
    radiometry = task.sensor.radiometry
    image = rng.normal(600, 250, (batch, task.dates, 2, WINDOW, WINDOW)).clip(1, 1500)
    image[..., :20, :20] = 700
    image = (image / 8 if radiometry.dtype == "uint8" else image).astype(radiometry.dtype)
    valid = np.ones((batch, task.dates, WINDOW, WINDOW), np.bool_)
    if radiometry.nodata is not None:
        valid = rng.random(valid.shape) > 0.1
        valid[:, :, 30:50, 10:40] = False
        image = np.where(valid[:, :, None], image, np.array(radiometry.nodata, image.dtype))
    return image, valid


def tiles(image: NDArray[Any]) -> NDArray[Any]:
    """(B, D, C, H, W) as one raster of all bands, (B, H, W, D · C)."""
    batch, dates, bands, height, width = image.shape
    return image.reshape(batch, dates * bands, height, width).transpose(0, 2, 3, 1)


def check(task: TrainedTask, path: Path) -> Deepness:
    plugin = Deepness(path)
    for batch in (3, 1):
        image, valid = scene(task, batch)
        found = plugin.probabilities(tiles(image))
        expected = task.predict(image, valid) if task.dates == 2 else task.predict(image[:, 0], valid[:, 0])
        classes = len(task.legend)
        np.testing.assert_allclose(found[:, :classes], expected, atol=1e-4)
        seen = valid.all(axis=1)
        shown = plugin.classes(tiles(image))
        ranked = np.sort(expected, axis=1)
        clear = seen & (ranked[:, -1] - ranked[:, -2] > 2e-4)
        np.testing.assert_array_equal(shown[clear], expected.argmax(axis=1)[clear])
        if task.sensor.radiometry.nodata is not None:
            assert (shown[~seen] == plugin.names.index(NO_DATA)).all(), "no-data stays no-data"
    return plugin


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "statistics", "change", "from-to"])
def test_every_head_gives_the_probabilities_of_the_map(kind: str, card: Card, tmp_path: Path) -> None:
    task = a_task(card, kind)
    export_onnx(task, tmp_path / "model.onnx", 10.0)
    check(task, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "convnext-tiny", "vit-tiny", pytest.param("olmoearth-nano", marks=needs_olmoearth)]
)
def test_every_family_of_encoders_gives_the_probabilities_of_the_map(
    name: EncoderName, card: Card, tmp_path: Path
) -> None:
    task = a_task(card, "dense", name)
    export_onnx(task, tmp_path / "model.onnx", 10.0)
    check(task, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    "radiometry",
    [Radiometry("uint8"), Radiometry("uint16", nodata=0), Radiometry("float32", nodata=-9999.0)],
    ids=lambda radiometry: radiometry.dtype,
)
def test_stored_numbers_of_every_kind_survive_the_division(radiometry: Radiometry, card: Card, tmp_path: Path) -> None:
    task = a_task(card, "statistics", sensor=dataclasses.replace(card.sensor, radiometry=radiometry))
    export_onnx(task, tmp_path / "model.onnx", 10.0)
    plugin = check(task, tmp_path / "model.onnx")
    assert (NO_DATA in plugin.names) == (radiometry.nodata is not None)


def test_the_file_says_what_deepness_asks_for(card: Card, tmp_path: Path) -> None:
    task = a_task(card, "dense")
    path = tmp_path / "model.onnx"
    path.write_text("an older one")
    export_onnx(task, path, 10.0)
    plugin = check(task, path)
    assert plugin.names == [*LEGEND.names, NO_DATA]
    assert str(json.loads(plugin.meta["model_type"])).capitalize() == "Segmentor"
    assert float(json.loads(plugin.meta["resolution"])) == 1000
    assert int(json.loads(plugin.meta["tile_size"])) == WINDOW
    assert plugin.input.shape == ["batch", 2, WINDOW, WINDOW]
    assert plugin.session.get_outputs()[0].shape == ["batch", len(LEGEND) + 1, WINDOW, WINDOW]
    # of two neighbouring tiles each gives the half of what they share, hence no pixel of a margin is used
    overlap = int(WINDOW * int(json.loads(plugin.meta["tiles_overlap"])) / 100 * 2) // 2
    assert overlap // 2 >= task.margin - 1
    said = json.loads(plugin.meta["geossl"])
    assert (said["model"], said["bands"]) == (task.id, list(card.sensor.band_names))
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_forest_is_refused_in_words_and_leaves_the_last_file(card: Card, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fitted = probe.RandomForest(3, trees=5).fit(rng.normal(size=(90, 22)), np.arange(90) % 3)
    network = ForestNetwork(None, Forest.of(fitted.model, 3), statistics=True)
    dense = a_task(card, "dense").card
    task = TrainedTask.create(dataclasses.replace(dense, head="forest", features="statistics"), network)
    path = tmp_path / "model.onnx"
    path.write_text("good")
    with pytest.raises(GeosslError, match="is a random forest on statistics, which cannot be written as ONNX"):
        export_onnx(task, path, 10.0)
    assert path.read_text() == "good"
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_head_that_is_no_graph_is_refused_and_leaves_the_last_file(card: Card, tmp_path: Path) -> None:
    class Tree(torch.nn.Module):
        """What a graph cannot hold: a fitted scikit-learn model."""

        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(0)
            self.model = DecisionTreeClassifier(max_depth=3).fit(rng.normal(size=(90, 2)), np.arange(90) % 3)

        def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
            pixels = image[:, 0].permute(0, 2, 3, 1).reshape(-1, 2).cpu().numpy()
            found = self.model.predict_proba(pixels).reshape(len(image), *image.shape[-2:], 3)
            return torch.from_numpy(found.astype(np.float32)).permute(0, 3, 1, 2)

    task = dataclasses.replace(a_task(card, "dense"), network=Tree())
    path = tmp_path / "model.onnx"
    path.write_text("good")
    with pytest.raises(GeosslError, match=r"cannot be written as ONNX|away from those of the map"):
        export_onnx(task, path, 10.0)
    assert path.read_text() == "good"
    assert sorted(tmp_path.iterdir()) == [path]
