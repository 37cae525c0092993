"""The models behind maps as STAC Items, by the Machine Learning Model extension (MLM).

They are a collection below their map's own, ``<name>/models``; each map's Item leads to its model's.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac

import geossl
from geossl.files import write_json
from geossl.maps.stac import CLASSIFICATION, MODELS, PROCESSING, classes_of, link

if TYPE_CHECKING:
    from geossl.downstream.task import TrainedTask

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"


def describe_model(task: TrainedTask, weights: str) -> pystac.Item:
    """A trained task as an Item; where it lies is left to :func:`write_model`.

    Parameters
    ----------
    weights:
        Address of the weights file as seen from the Item.
    """
    import torch

    card, sensor, window = task.card, task.sensor, task.window
    statistics = task.statistics
    dates = ("time",) if task.dates > 1 else ()
    shape = [-1, *([task.dates] if dates else []), len(sensor.bands), window, window]
    tasks = ["semantic-segmentation"]
    properties: dict[str, Any] = {
        "title": card.id,
        "description": f"{card.task} of {', '.join(card.legend.names)}: {card.head} head on {card.features}",
        "created": card.created,
        "mlm:name": card.id,
        "mlm:architecture": card.architecture.name,
        "mlm:tasks": tasks,
        "mlm:framework": "PyTorch",
        "mlm:framework_version": str(torch.__version__),
        "mlm:total_parameters": sum(weights.numel() for weights in task.network.state_dict().values()),
        "mlm:pretrained": bool(card.encoder),
        "mlm:pretrained_source": card.encoder or None,
        "mlm:hyperparameters": dict(card.settings) or {"head": card.head},
        "mlm:input": [
            {
                "name": "stored numbers",
                "bands": list(sensor.band_names),
                "input": {
                    "shape": shape,
                    "dim_order": ["batch", *dates, "bands", "height", "width"],
                    "data_type": sensor.radiometry.dtype,
                },
                "value_scaling": [
                    {"type": "z-score", "mean": mean, "stddev": std if std > 0 else 1.0}
                    for mean, std in zip(statistics.mean, statistics.std, strict=True)
                ],
                "resize_type": None,
            }
        ],
        "mlm:output": [
            {
                "name": "class probabilities",
                "tasks": tasks,
                "result": {
                    "shape": [-1, len(card.legend), window, window],
                    "dim_order": ["batch", "class", "height", "width"],
                    "data_type": "float32",
                },
                "classification:classes": [found.to_dict() for found in classes_of(card.legend)],
            }
        ],
        "bands": [
            {"name": band.name, **({"eo:common_name": band.common_name} if band.common_name else {})}
            for band in sensor.bands
        ],
        "processing:software": {"geossl": card.code_version or geossl.__version__},
        "processing:lineage": (
            f"Learnt from the cube snapshot {card.snapshot}, "
            f"{f'by the encoder {card.encoder}' if card.encoder else 'without a pretrained encoder'}."
        ),
        "geossl:encoder": card.encoder or None,
        "geossl:snapshot": card.snapshot,
        "geossl:labels": dict(card.labels),
    }
    item = pystac.Item(
        card.id,
        geometry=None,
        bbox=None,
        datetime=dt.datetime.fromisoformat(card.created) if card.created else dt.datetime.now(dt.UTC),
        properties=properties,
        stac_extensions=[MLM, CLASSIFICATION, PROCESSING],
    )
    asset = pystac.Asset(
        weights, title="Weights", media_type="application/vnd.safetensors", roles=["mlm:model", "mlm:weights"]
    )
    asset.extra_fields["mlm:artifact_type"] = "safetensors"
    # STAC allows an Item to describe bands where an asset has them; the extension looks for them in the Item
    asset.extra_fields["bands"] = [{"name": band.name} for band in sensor.bands]
    item.add_asset("model", asset)
    return item


def write_model(folder: Path, model: pystac.Item, made: pystac.Item) -> None:
    """Write a model's Item below the folder of its map; its place on the ground is that of the map it made."""
    model = model.clone()
    model.geometry, model.bbox = made.geometry, made.bbox
    links = [
        link("root", "../../catalog.json"),
        link("parent", "./collection.json"),
        link("collection", "./collection.json"),
    ]
    content = model.to_dict(include_self_link=False) | {"collection": f"{folder.name}-{MODELS}", "links": links}
    write_json(folder / MODELS / f"{model.id}.json", content)


def keep_models(folder: Path, ids: Collection[str]) -> None:
    """(Re)write the collection of a map's models in one move; then delete all others."""
    models = folder / MODELS
    paths = sorted(path for path in models.glob("[!.]*.json") if path.stem in ids)
    if not paths:
        return
    found = [pystac.Item.from_dict(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    west, south, east, north = zip(*(item.bbox for item in found if item.bbox is not None), strict=True)
    times = [item.datetime for item in found if item.datetime is not None]
    collection = pystac.Collection(
        f"{folder.name}-{MODELS}",
        description=f"The models that made the maps {folder.name}.",
        title="Models",
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[min(times), max(times)]]),
        ),
        license="other",
    )
    links = [link("root", "../../catalog.json"), link("parent", "../collection.json")]
    links += [link("item", f"./{path.name}", path.stem, pystac.MediaType.GEOJSON) for path in paths]
    write_json(models / "collection.json", collection.to_dict(include_self_link=False) | {"links": links})
    for path in models.glob("[!.]*.json"):
        if path not in paths and path.name != "collection.json":
            path.unlink()
