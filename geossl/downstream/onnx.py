"""A trained task as one ONNX file that QGIS's Deepness plugin runs.

Deepness (https://github.com/PUTvision/qgis-plugin-deepness) hands a model square tiles of one size, all
bands of one raster divided by 255, and takes the class with the highest output. So the graph undoes the
division, finds what is no-data, normalises, and gives the same probabilities as the maps are made of.
Two dates are the bands of the earlier image, then those of the later one.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.downstream import neighbourhood
from geossl.downstream.networks import LinearNetwork
from geossl.downstream.task import TrainedTask
from geossl.errors import GeosslError, SettingsError
from geossl.files import aside

NO_DATA = "no data"
"""The output beside the classes, where the sensor has a number for it: else it would become the first class."""

OPSET = 18
TOLERANCE = 1e-4
"""How far probabilities may be from those of the map."""

IR_VERSION = 8
"""Together what onnxruntime 1.14 (2023) reads, and every later one."""


class DeepnessGraph(nn.Module):
    """What the file computes: (B, dates · C, S, S) stored numbers / 255 → (B, K [+ 1], S, S) probabilities."""

    def __init__(self, task: TrainedTask) -> None:
        super().__init__()
        self.dates, self.bands = task.dates, len(task.sensor.bands)
        radiometry = task.sensor.radiometry
        self.whole = radiometry.dtype != "float32"
        self.nodata = radiometry.nodata
        self.network = _exportable(task.network)
        self.normalize = Normalize.from_statistics(task.statistics)
        self.threshold, self.temperature = task.card.threshold, task.card.temperature
        encoder = getattr(task.network, "encoder", None)
        self.stride = max(encoder.strides) if encoder is not None else 1

    def forward(self, scaled: Tensor) -> Tensor:
        batch, _, height, width = scaled.shape
        image = (scaled * 255.0).reshape(batch, self.dates, self.bands, height, width)
        if self.whole:
            image = image.round()
        if self.nodata is None:
            seen = torch.ones_like(image[:, :, 0]) > 0
        else:
            seen = ((image - self.nodata).abs() > 1e-6 * max(1.0, abs(self.nodata))).all(dim=2)
        x = torch.where(seen[:, :, None], (image - self.normalize.mean) / self.normalize.std, 0.0)
        pad = (0, -width % self.stride, 0, -height % self.stride)
        if any(pad):
            x, valid = F.pad(x, pad), F.pad(seen.float(), pad) > 0
        else:
            valid = seen
        logits = self.network(x, valid)[..., :height, :width]
        change = torch.zeros(logits.shape[1])
        change[1:] = self.threshold
        known = seen.all(dim=1, keepdim=True).float()
        found = ((logits - change[:, None, None]) / self.temperature).softmax(dim=1) * known
        return found if self.nodata is None else torch.cat([found, 1 - known], dim=1)


def class_names(task: TrainedTask) -> list[str]:
    """Of the file's outputs, in order."""
    return [*task.legend.names, *([] if task.sensor.radiometry.nodata is None else [NO_DATA])]


def metadata(task: TrainedTask, resolution: float) -> dict[str, str]:
    """What Deepness reads from the file, each value as JSON.

    Parameters
    ----------
    resolution:
        Metres per pixel of the imagery.
    """
    channels = task.dates * len(task.sensor.bands)
    bands = list(task.sensor.band_names)
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(number): name for number, name in enumerate(class_names(task))},
        "resolution": resolution * 100,  # centimetres per pixel
        "tile_size": task.window,
        "tiles_size": task.window,  # as its documentation spells it
        # in percent; what lacks context along a tile's edge is then taken from the neighbouring tile
        "tiles_overlap": math.ceil(100 * 2 * task.margin / task.window),
        "standardization_mean": [0.0] * channels,
        "standardization_std": [1.0] * channels,
        # the most probable class, however probable: what falls below a threshold would become the first one
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
        "geossl": {
            "model": task.id,
            "encoder": task.card.encoder or None,
            "snapshot": task.card.snapshot,
            "sensor": task.sensor.name,
            "bands": bands if task.dates == 1 else [f"{name} {date}" for date in ("before", "after") for name in bands],
            "dtype": task.sensor.radiometry.dtype,
            "nodata": task.sensor.radiometry.nodata,
        },
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def export_onnx(task: TrainedTask, path: Path, resolution: float) -> dict[str, str]:
    """Write a task as ONNX; the file at ``path`` is replaced in one move. Returns its metadata.

    Raises
    ------
    SettingsError
        The package that writes ONNX is not installed.
    GeosslError
        The task's head cannot be written as a graph, or the graph does not give the map's probabilities.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter asks for it when it runs
    except ImportError as error:
        raise SettingsError(
            f"writing ONNX needs the package {error.name!r}",
            "install geossl with its extra: `pip install geossl[export]`",
        ) from error
    if task.card.head == "forest":
        raise GeosslError(
            f"the model {task.id} is a random forest on {task.card.features}, which cannot be written as ONNX",
            "use its maps, or fine-tune a network with `settings.mode: finetune`",
        )
    graph = DeepnessGraph(task).eval().cpu()
    example = torch.zeros(2, graph.dates * graph.bands, task.window, task.window)
    with aside(path) as partial:
        try:
            with torch.inference_mode(), _quiet():
                torch.onnx.export(
                    graph,
                    (example,),
                    partial,
                    dynamo=True,
                    opset_version=OPSET,
                    external_data=False,
                    input_names=["image"],
                    output_names=["probabilities"],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    verbose=False,
                )
        except torch.onnx.OnnxExporterError as error:
            raise GeosslError(
                f"the model {task.id} ({task.card.head} head on {task.card.features}) cannot be written as ONNX",
                "export a task whose head is a network, or use its maps",
            ) from error
        model = onnx.load(partial)
        model.ir_version = min(model.ir_version, IR_VERSION)
        model.doc_string = __doc__ or ""
        written = metadata(task, resolution)
        onnx.helper.set_model_props(model, written)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, partial)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        if (away := _distance(session, task, graph)) > TOLERANCE:
            raise GeosslError(
                f"as ONNX the model {task.id} gives probabilities that are up to {away:.2g} away from those of the map",
                "use its maps; nothing was written",
            )
    return written


def _distance(session: Any, task: TrainedTask, graph: DeepnessGraph) -> float:
    """How far the file's probabilities are from the task's own, on random numbers around the usual ones."""
    rng = np.random.default_rng(0)
    dtype, bands = np.dtype(task.sensor.radiometry.dtype), len(task.sensor.bands)
    middle, spread = (np.reshape(each, (bands, 1, 1)) for each in (task.statistics.mean, task.statistics.std))
    shape = (2, task.dates, bands, task.window, task.window)
    image = middle + spread * gaussian_filter(rng.normal(size=shape), (0, 0, 0, 2, 2)) * 4
    if dtype.kind in "iu":
        image = image.round().clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    image = image.astype(dtype)
    valid = np.ones((2, task.dates, *shape[-2:]), np.bool_)
    if graph.nodata is not None:
        image[:, :, :, : task.window // 8] = graph.nodata
        valid = (image != graph.nodata).all(axis=2)
    scaled = (image.reshape(2, -1, *shape[-2:]) / 255.0).astype(np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: scaled})
    expected = task.predict(image, valid) if task.dates == 2 else task.predict(image[:, 0], valid[:, 0])
    return float(np.abs(found[:, : expected.shape[1]] - expected).max())


def _exportable(network: nn.Module) -> nn.Module:
    """A copy of a network whose statistics of neighbourhoods are computed by torch, so that a graph holds them."""
    network = copy.deepcopy(network)
    if isinstance(network, LinearNetwork):
        network.describe = multi_scale
    return network


def multi_scale(image: Tensor, valid: Tensor) -> Tensor:
    """:func:`geossl.downstream.neighbourhood.multi_scale` by torch: (B, C, H, W), (B, H, W) → (B, features, H, W)."""
    weight = valid[:, None].float()
    image = image * weight
    parts = [image]
    for side in neighbourhood.SCALES:
        share = _box(weight, side)
        known = share > 0.5 / side**2
        mean, squares = (torch.where(known, _box(each, side) / share, 0.0) for each in (image, image**2))
        parts += [mean, (squares - mean**2).clamp(min=0).sqrt()]
    return torch.cat(parts, dim=1)


def _box(x: Tensor, side: int) -> Tensor:
    """Mean over the square around each pixel, with zeros beyond the border; one axis after the other."""
    x = F.avg_pool2d(x, (1, side), 1, (0, side // 2))
    return F.avg_pool2d(x, (side, 1), 1, (side // 2, 0))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
