"""A trained task: the one thing that the map room needs, as an object and as a folder.

The folder holds ``model.safetensors`` and ``card.json``; nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.bands import Sensor, Statistics
from geossl.downstream.data import CONTEXT
from geossl.downstream.finetune import device
from geossl.downstream.networks import ChangeNetwork, LandcoverNetwork, LinearNetwork
from geossl.downstream.relative import UnlabelledNetwork
from geossl.downstream.trees import Forest, ForestNetwork
from geossl.errors import GeosslError, StoreError
from geossl.files import write_bytes
from geossl.legend import Legend
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings, HeadName

FORMAT = 2
"""Of the card. 2 knows heads that 1 does not (linear, forest); a card of format 1 is read as it is."""

WEIGHTS, CARD = "model.safetensors", "card.json"

Head = Literal["dense", "linear", "lda", "logistic", "forest", "unlabelled"]
FeatureSet = Literal["encoder", "statistics", "encoder + statistics"]

TRAINED: Mapping[HeadName, Head] = {"fpn": "dense", "linear": "linear"}
"""The heads that are trained on windows, by the name that settings give them."""


@dataclass(frozen=True)
class TaskCard:
    """What a task's model is, what it learnt from, and how it did."""

    task: Literal["landcover", "change"]
    legend: Legend
    sensor: Sensor
    statistics: Statistics
    """Per-band statistics, in stored units, that normalise its images."""
    architecture: EncoderSettings
    head: Head
    features: FeatureSet
    """What the head looks at; a head trained on windows looks at the encoder."""
    encoder: str
    """Id of the pretrained encoder; empty for a random start."""
    labels: Mapping[str, int]
    """Labelled pixels it learnt from, by class name."""
    snapshot: str
    """The cube snapshot with its images and labels."""
    settings: Mapping[str, Any]
    validation: float | None
    """Its score on validation blocks (cross-validated for a closed-form head): macro F1, or average precision;
    None where nothing was labelled."""
    temperature: float = 1.0
    """What logits are divided by."""
    threshold: float = 0.0
    """Change only: the logit of change of any class from which a pixel is called changed; with two classes,
    predictions cross 0.5 there."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores should know."""
    scores: tuple[Mapping[str, Any], ...] = ()
    code_version: str = ""
    created: str = ""
    """ISO 8601 time, UTC."""
    id: str = ""
    """``<task>-<head>-<8 hex digits of the content>``; given by :meth:`TrainedTask.create`."""
    weights: str = ""
    """BLAKE2b digest of the weights; given by :meth:`TrainedTask.create`."""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is its inverse."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {
            "legend": self.legend.to_dict(),
            "sensor": self.sensor.to_dict(),
            "statistics": self.statistics.to_dict(),
            "architecture": self.architecture.model_dump(),
            "labels": dict(self.labels),
            "settings": dict(self.settings),
            "notes": list(self.notes),
            "scores": [dict(row) for row in self.scores],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data) | {
            "legend": Legend.from_dict(data["legend"]),
            "sensor": Sensor.from_dict(data["sensor"]),
            "statistics": Statistics.from_dict(data["statistics"]),
            "architecture": EncoderSettings.model_validate(data["architecture"]),
            "notes": tuple(data["notes"]),
            "scores": tuple(data["scores"]),
        }
        return cls(**values)


_last = threading.local()
"""What this thread normalised last, as one piece of memory."""


def _floats(shape: Sequence[int], where: torch.device) -> Tensor:
    """Memory for images in float32: that of the last ones, since a CPU is slow to make so much, batch after batch."""
    floats: Tensor | None = getattr(_last, "floats", None)
    if floats is None or floats.numel() < math.prod(shape) or floats.device != where:
        _last.floats = floats = torch.empty(math.prod(shape), device=where)
    return floats[: math.prod(shape)].view(*shape)


@dataclass
class TrainedTask:
    """A model that turns stored images into class probabilities."""

    card: TaskCard
    network: nn.Module = field(repr=False)
    window: int = field(init=False)
    """Side in pixels of the windows it is best applied to."""
    margin: int = field(init=False)
    """Pixels at a window's edge whose predictions lack context."""

    def __post_init__(self) -> None:
        self.window, self.margin = reach(self.network)

    @classmethod
    def create(cls, card: TaskCard, network: nn.Module) -> Self:
        """A task just learnt: gives the card its id, from the weights and everything it says but scores and time."""
        card = dataclasses.replace(card, weights=_digest(_weights(network)))
        content = json.dumps(card.to_dict() | {"id": "", "created": "", "scores": []}, sort_keys=True)
        short = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
        return cls(dataclasses.replace(card, id=f"{card.task}-{card.head}-{short}"), network.eval())

    @property
    def id(self) -> str:
        return self.card.id

    @property
    def legend(self) -> Legend:
        return self.card.legend

    @property
    def sensor(self) -> Sensor:
        return self.card.sensor

    @property
    def statistics(self) -> Statistics:
        return self.card.statistics

    @property
    def dates(self) -> int:
        """Images a prediction needs: 1, or 2 (before, after)."""
        return 2 if self.card.task == "change" else 1

    def predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Class probabilities of windows of any size; NumPy in, NumPy out.

        Parameters
        ----------
        image:
            Stored numbers, (B, C, H, W), or (B, 2, C, H, W) for two dates.
        valid:
            Where the ground was seen, (B, H, W) or (B, 2, H, W).

        Returns
        -------
        (B, K, H, W) float32. They add up to 1, and are all 0 where a date is not valid: no-data
        stays no-data, however windows are blended.
        """
        if self.dates == 1:
            image, valid = image[:, None], valid[:, None]
        where = device()
        # half the time of a convolution on a CPU, and no copy where it is so already
        network = self.network.to(where).to(memory_format=torch.channels_last).eval()
        normalize = Normalize.from_statistics(self.statistics).to(where)
        height, width = image.shape[-2:]
        encoder = getattr(network, "encoder", None)
        stride = max(encoder.strides) if encoder is not None else 1
        pad = (0, -width % stride, 0, -height % stride)
        seen = torch.from_numpy(np.ascontiguousarray(valid)).to(where)
        whole = bool(valid.all())  # as most windows are; then each pass over them that does nothing is left out
        with torch.inference_mode():
            stored = torch.from_numpy(np.ascontiguousarray(image)).to(where)
            x = normalize(stored, None if whole else seen, out=_floats(stored.shape, where))
            padded = (F.pad(x, pad), F.pad(seen, pad)) if any(pad) else (x, seen)
            logits = network(*padded)[..., :height, :width]
            if self.card.threshold:
                logits[:, 1:] -= self.card.threshold
            if self.card.temperature != 1:
                logits /= self.card.temperature
            proba = logits.softmax(dim=1)
            if not whole:
                proba *= seen.all(dim=1, keepdim=True)
        return proba.cpu().numpy()

    def describe(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """:meth:`predict` for one window of D dates: (D, C, H, W) and (D, H, W) → (K, H, W)."""
        if self.dates == 1:
            image, valid = image[0], valid[0]
        return self.predict(image[None], valid[None])[0]


def reach(network: nn.Module) -> tuple[int, int]:
    """Window and margin that suit a network, in pixels.

    A window's border lacks context, and what a trained ResNet-18 says there differs from what it says of a larger
    window by 2e-2 in probability 32 px from the edge, 1e-2 at 48, 1e-3 at 80 and 3e-4 at 96 (Zion, land cover), a
    quarter of its receptive field. Small UNets see no further than 60 px. A transformer looks at all of its window,
    so that no margin makes windows agree. `python -m tests.benchmarks.seam` prints such figures.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, Encoder) or encoder.settings.transformer:
        return 256, CONTEXT
    if encoder.receptive_field > 4 * CONTEXT:
        return 512, 96
    return 256, CONTEXT


def build_network(card: TaskCard, state: Mapping[str, Tensor]) -> nn.Module:
    """The network that a card describes, with its weights."""
    classes, bands = len(card.legend), len(card.sensor.bands)
    encoder = build_encoder(card.architecture, card.sensor.bands)
    network: nn.Module
    if card.head == "unlabelled":
        method, of = card.settings.get("method", "embedding"), card.settings.get("of", "clearing")
        network = UnlabelledNetwork(method, of, encoder, card.sensor)
    elif card.head in TRAINED.values():
        kind: HeadName = "linear" if card.head == "linear" else "fpn"
        of_task = ChangeNetwork if card.task == "change" else LandcoverNetwork
        network = of_task(encoder, classes, kind)
    else:
        seen = None if card.features == "statistics" else encoder
        statistics = card.features != "encoder"
        if card.head == "forest":
            forest = Forest(len(state["forest.root"]), len(state["forest.feature"]), classes)
            network = ForestNetwork(seen, forest, statistics=statistics)
        else:
            network = LinearNetwork(seen, classes, bands=bands, statistics=statistics)
    network.load_state_dict(state)
    return network.eval()


def save_task(folder: Path, task: TrainedTask) -> None:
    """Write a task's folder.

    The card is removed first and written last: whoever finds a card finds its weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, _weights(task.network))
    write_bytes(folder / CARD, (json.dumps(task.card.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def load_task(folder: Path) -> TrainedTask:
    """The task in a folder.

    Raises
    ------
    StoreError
        There is none, it is damaged, or a newer geossl wrote it.
    """
    again = "fine-tune again, or copy the folder again"
    path = folder / CARD
    try:
        data = json.loads(path.read_bytes())
        if data["format"] > FORMAT:
            raise StoreError(f"{path} has format {data['format']!r}; this geossl reads up to {FORMAT}", "update geossl")
        card = TaskCard.from_dict(data)
        weights = (folder / WEIGHTS).read_bytes()
        if _digest(weights) != card.weights:
            raise StoreError(f"{folder / WEIGHTS} is damaged: it is not the file that {CARD} describes", again)
        network = build_network(card, load(weights))
    except FileNotFoundError as error:
        raise StoreError(f"no trained task at {folder}", "fine-tune one, or name another folder") from error
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, ValidationError, SafetensorError, GeosslError) as error:
        raise StoreError(f"the task at {folder} is damaged: {error}", again) from error
    return TrainedTask(card, network)


def _weights(network: nn.Module) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
