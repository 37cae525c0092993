"""``python -m tests.benchmarks.recipes.change_tasks``: our change model on OSCD beside what the field uses instead.

Cities are left out as in :mod:`.change`; our encoder is pretrained once, on the unlabelled cities alone. Everything that learns sees the same 500 labelled pixels of the cities
that teach, in the same windows, for the same number of steps; whichever weights did best on the city that stops the
training are kept. torchgeo's networks are trained by its own ``ChangeDetection`` task with its own optimiser and rate.
What needs no label is fitted to each city left out by itself.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchgeo.tasks import ChangeDetection

from geossl.augment import Normalize
from geossl.bands import Statistics
from geossl.chips.split import TRAIN, VAL
from geossl.downstream import change, unlabelled
from geossl.downstream.data import Chips, Describe
from geossl.downstream.describe import normalized
from geossl.downstream.finetune import VALIDATE_EVERY, finetune, predict_chips
from geossl.downstream.floors import change_vector
from geossl.downstream.networks import ChangeNetwork
from geossl.downstream.settings import ChangeSettings, FinetuneSettings
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.nets.settings import EncoderSettings
from geossl.project.project import Project

from . import pretraining, sets
from .change import CHIP, EVERY, FOLDS, Fold, joined, over, statistics
from .landcover import lattice
from .pretraining import Length
from .rows import FLOOR, SCRATCH, Ledger, Measured, table

LABELS = 500
ENCODER, METHOD, LENGTH = "unet-small", "simclr-season", Length(steps=420)
TRAINING = FinetuneSettings(steps=100, encoder_rate=1, windows=256)
PEERS = {
    "FC-Siam-diff, torchgeo": {"model": "fcsiamdiff", "backbone": "resnet18"},
    "FC-Siam-conc, torchgeo": {"model": "fcsiamconc", "backbone": "resnet18"},
    "ChangeViT, torchgeo": {"model": "changevit", "backbone": "vit_tiny_patch16_224"},
}
"""Networks of torchgeo's change task that take any number of bands; its BTC takes three."""


def measure(number: int, ledger: Ledger) -> None:
    """All rows of one fold that are missing."""
    out, _ = FOLDS[number]

    def missing(model: str, method: str) -> bool:
        return not ledger.has(set="oscd", repetition=out[0], model=model, method=method)

    fold: Fold | None = None
    for model, method in _rows():
        if missing(model, method):
            fold = fold or Fold.of(number)
            ledger.add(_row(fold, model, method))
            print(model, method, f"fold {number}", flush=True)


def _rows() -> Iterator[tuple[str, str]]:
    yield from ((model, FLOOR) for model in ("CVA", "CVA, 5×5 means", "IR-MAD"))
    yield from (("whole network, siamese", method) for method in (SCRATCH, METHOD))
    yield from ((model, SCRATCH) for model in PEERS)


def _row(fold: Fold, model: str, method: str) -> Iterator[Measured]:
    about: dict[str, Any] = {"protocol": "-", "method": method, "encoder": "-", "minutes": 0.0, "model": model}
    if model in ("CVA", "CVA, 5×5 means"):
        side = 1 if model == "CVA" else 5
        yield from _scored(fold, dict.fromkeys(fold.judges, change_vector(fold.statistics, side)), about)
    elif model == "IR-MAD":
        yield from _scored(fold, {city: _irmad(fold, city) for city in fold.judges}, about)
    elif model in PEERS:
        network = _peer(fold, PEERS[model])
        about["encoder"] = PEERS[model]["backbone"]
        yield from _scored(fold, dict.fromkeys(fold.judges, _logit(network, fold.statistics)), about)
    else:
        about["encoder"] = ENCODER
        if method == SCRATCH:
            sensor = fold.taught[0].sensor
            encoder, card = pretraining.untrained(ENCODER, sensor, fold.statistics, fold.number, chip=CHIP)
        else:
            encoder, card = of_unlabelled_cities()
            about |= {"protocol": "inductive", **asdict(LENGTH)}
        network = _ours(fold, encoder, card.statistics)
        yield from _scored(fold, dict.fromkeys(fold.judges, _logit(network, card.statistics)), about)


def of_unlabelled_cities() -> tuple[Encoder, Card]:
    """An encoder that saw no city with labels."""
    projects = [Project.load(sets.city(city)) for city in sets.UNLABELLED]
    of = statistics(projects)
    return pretraining.trained(over(projects, "unlabelled", METHOD, ENCODER, LENGTH, seed=0, statistics=of))


def _scored(fold: Fold, describes: dict[str, Describe], about: dict[str, Any]) -> Iterator[Measured]:
    """Average precision in each city left out."""
    found = {city: data.gather(lattice(data, EVERY), describes[city])[:, 0] for city, data in fold.judges.items()}
    yield from fold.measured(LABELS, found, **about)


def _irmad(fold: Fold, city: str) -> Describe:
    data = fold.judges[city]
    card = Card(EncoderSettings(), data.sensor, fold.statistics, "none")
    task = unlabelled.fit(data, None, card, ChangeSettings(method="irmad", of="any"))
    return lambda image, valid: task.describe(image, valid)[1:]


def _windows(fold: Fold) -> tuple[Chips, Chips]:
    """What teaches, and what stops."""
    teach = [
        data.chips(TRAIN, TRAINING.window, limit=TRAINING.windows // len(fold.taught), seed=fold.number, only=pixels)
        for data, pixels in zip(fold.taught, fold.pixels(LABELS), strict=True)
    ]
    few = fold.stops.sample(LABELS // 2, seed=fold.number, subset=VAL)
    return joined(teach), fold.stops.chips(VAL, TRAINING.window, limit=32, seed=fold.number, only=few)


def _ours(fold: Fold, encoder: Encoder, statistics: Statistics) -> nn.Module:
    torch.manual_seed(fold.number)
    network = ChangeNetwork(copy.deepcopy(encoder), 2)
    teach, stops = _windows(fold)
    normalize = Normalize.from_statistics(statistics)
    finetune(network, network.encoder, normalize, teach, stops, change.score, TRAINING, seed=fold.number)
    return network


class _Batches(IterableDataset[dict[str, Tensor]]):
    """Endless windows at random, mirrored and turned, as torchgeo's task takes them."""

    def __init__(self, chips: Chips, normalize: Normalize, seed: int) -> None:
        self.chips, self.normalize, self.rng = chips, normalize, np.random.default_rng(seed)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            for i in self.rng.permutation(len(self.chips)):
                turn, mirror = int(self.rng.integers(4)), bool(self.rng.integers(2))
                parts = [
                    torch.from_numpy(np.rot90(a[i], turn, (-2, -1))[..., :: -1 if mirror else 1].copy())
                    for a in (self.chips.image, self.chips.valid, self.chips.label)
                ]
                yield {"image": self.normalize(parts[0], parts[1]), "mask": parts[2][None].long()}


class _KeepBest(lightning.Callback):
    """The weights that did best on the windows that stop ours, looked at as often."""

    def __init__(self, stops: Chips, normalize: Normalize) -> None:
        self.stops, self.normalize = stops, normalize
        self.best, self.weights = -np.inf, {}

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step % VALIDATE_EVERY == 0:
            reached = change.score(*predict_chips(_TwoLogits(module.model), self.normalize, self.stops))
            if reached > self.best:
                self.best, self.weights = reached, copy.deepcopy(module.model.state_dict())
            module.model.train()


class _TwoLogits(nn.Module):
    """A network of torchgeo's as ours are called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002  # one signature for all
        return self.model(image)


def _peer(fold: Fold, chosen: dict[str, str]) -> nn.Module:
    torch.manual_seed(fold.number)
    bands = len(fold.statistics.mean)
    task = ChangeDetection(
        **chosen,  # type: ignore[arg-type]
        in_channels=bands,
        task="multiclass",
        num_classes=2,
        loss="ce",
        ignore_index=NO_LABEL,
    )
    teach, stops = _windows(fold)
    normalize = Normalize.from_statistics(fold.statistics)
    keep = _KeepBest(stops, normalize)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=TRAINING.steps,
        callbacks=[keep],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(_Batches(teach, normalize, fold.number), TRAINING.batch_size))
    task.model.load_state_dict(keep.weights)
    return _TwoLogits(task.model).eval()


def _logit(network: nn.Module, statistics: Statistics) -> Describe:
    """(1, H, W) the logit of change."""
    network.eval()

    def describe(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        x = torch.from_numpy(normalized(image, valid, statistics))[None]
        with torch.inference_mode():
            found = network(x, torch.from_numpy(valid)[None])[0]
        return (found[1:] - found[:1]).numpy()

    return describe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recipes.change_tasks", description=__doc__)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    ledger = Ledger(sets.OUT / "change_tasks.jsonl")
    if not wanted.table:
        for number in range(len(FOLDS)):
            measure(number, ledger)
    print("\n".join(table(ledger.all)))


if __name__ == "__main__":
    main()
