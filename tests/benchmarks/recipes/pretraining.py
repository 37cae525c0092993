"""Pretrain an encoder for a row, or take the one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geossl.bands import Sensor, Statistics
from geossl.methods.settings import (
    DenseSettings,
    DinoSettings,
    LejepaSettings,
    MaeSettings,
    MethodSettings,
    MocoV2Settings,
    MocoV3Settings,
    RelativeSettings,
    SimclrSettings,
    TransformsSettings,
)
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import CARD, load_encoder
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings

from .elsewhere import Training

METHODS: dict[str, MethodSettings] = {
    "mae": MaeSettings(),
    "simclr": SimclrSettings(),
    "dense": DenseSettings(),
    "mocov2": MocoV2Settings(queue=512),
    "mocov3": MocoV3Settings(),
    "lejepa": LejepaSettings(),
    "dino": DinoSettings(),
    "relative": RelativeSettings(patch=16),
    "relative-8": RelativeSettings(patch=8),
    "rotation": TransformsSettings(),
    "simclr-season": SimclrSettings(pairs="season"),
    "dense-season": DenseSettings(pairs="season"),
    "mocov3-season": MocoV3Settings(pairs="season"),
    "lejepa-season": LejepaSettings(pairs="season"),
    "dino-season": DinoSettings(pairs="season"),
}
"""What ``--method`` names; patches of 8 pixels are for rstoolbox, whose chips of 32 are too small for those of 16."""


WAVELENGTHS = "-wavelengths"
"""How the name of an encoder ends that takes several sensors."""


def architecture(name: str, chip: int) -> EncoderSettings:
    """The encoder of a name such as unet-small, vit-tiny, which has patches of 8 pixels, or vit-tiny-wavelengths."""
    plain, by_wavelength = name.removesuffix(WAVELENGTHS), name.endswith(WAVELENGTHS)
    return EncoderSettings.model_validate(
        {
            "name": plain,
            "image": chip if plain.startswith("vit") else None,
            "embedding": "wavelengths" if by_wavelength else "bands",
        }
    )


@dataclass(frozen=True)
class Length:
    """How long an encoder is pretrained: so many minutes, or about so many steps however long they take."""

    minutes: float = 0.0
    steps: int = 0

    def __str__(self) -> str:
        return f"{self.steps}steps" if self.steps else f"{self.minutes:g}"

    def of(self, chosen: PretrainSettings, batches: int) -> PretrainSettings:
        """Settings for that long, with so many batches an epoch; only whole epochs are trained."""
        if self.steps:
            return chosen.model_copy(update={"epochs": max(1, round(self.steps / batches))})
        return chosen.model_copy(update={"epochs": 100_000, "minutes": self.minutes})


def settings(method: str, encoder: str, seed: int, *, chip: int, batch_size: int) -> PretrainSettings:
    """One thread, so that a row costs the same beside others."""
    return PretrainSettings(
        method=METHODS[method],
        encoder=architecture(encoder, chip),
        batch_size=batch_size,
        chip=chip,
        threads=1,
        seed=seed,
    )


def trained(training: Training) -> tuple[Encoder, Card]:
    """The encoder of a training, trained first where there is none."""
    if not (training.folder / CARD).exists():
        pretrain(
            training.settings,
            training.loader,
            sensor=training.sensor,
            statistics=training.statistics,
            snapshot=training.snapshot,
            folder=training.folder,
            pool=training.kinds,
        )
    return load_encoder(training.folder)


def untrained(name: str, sensor: Sensor, statistics: Statistics, seed: int, *, chip: int) -> tuple[Encoder, Card]:
    """The same architecture as it begins, and a card that says so."""
    chosen = architecture(name, chip)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(chosen, sensor.bands).eval()
    return encoder, Card(chosen, sensor, statistics, "random")


def pooled(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of several collections together, as if each band had been looked at once."""
    count, mean, std = (
        [[getattr(p, name)[b] for p in parts] for b in range(len(parts[0].mean))] for name in ("count", "mean", "std")
    )
    means, stds = [], []
    for n, m, s in zip(count, mean, std, strict=True):
        total = sum(n)
        both = sum(c * x for c, x in zip(n, m, strict=True)) / total
        square = sum(c * (y**2 + x**2) for c, x, y in zip(n, m, s, strict=True)) / total
        means.append(both)
        stds.append((square - both**2) ** 0.5)
    low, high, p02, p98 = (
        tuple(how(getattr(p, name)[b] for p in parts) for b in range(len(means)))
        for name, how in (("minimum", min), ("maximum", max), ("p02", min), ("p98", max))
    )
    return Statistics(tuple(sum(n) for n in count), tuple(means), tuple(stds), low, high, p02, p98)
