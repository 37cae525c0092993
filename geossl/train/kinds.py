"""The kinds of imagery in a pool: every batch is normalised as its own kind, and embedded by its own bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from geossl.augment import Normalize
from geossl.bands import Sensor, Statistics
from geossl.errors import SettingsError
from geossl.nets.embedding import Spectrum
from geossl.train.settings import PretrainSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """What the numbers of a batch mean, and what they are normalised by."""

    sensor: Sensor
    statistics: Statistics
    """Per band, in stored units."""


class Kinds(nn.Module):
    """The kind of each member of a pool, in the order of the batches' ``member``; or the one kind of all batches.

    Raises
    ------
    SettingsError
        They are embedded by their wavelengths, and a band has none.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        super().__init__()
        self.normalize = nn.ModuleList(Normalize.from_statistics(kind.statistics) for kind in kinds)
        self._bands = [len(kind.sensor.bands) for kind in kinds]
        self._mixed = len(kinds) > 1
        self._kind = [kinds.index(kind) for kind in kinds]  # members of one kind have one number
        if self._mixed:
            for number, kind in enumerate(kinds):
                for name, tensor in Spectrum.of(kind.sensor.bands)._asdict().items():
                    self.register_buffer(f"{name}_{number}", tensor, persistent=False)

    def bands(self, batch: Mapping[str, Any]) -> int:
        """How many bands its images ought to have."""
        return self._bands[self._of(batch)]

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``image`` normalised; with several kinds it says in ``spectrum`` which bands it has, in ``kind`` whose it is."""
        number = self._of(batch)
        ready = {**batch, "image": self.normalize[number](batch["image"], batch["valid"])}
        if self._mixed:
            spectrum = Spectrum(*(getattr(self, f"{name}_{number}") for name in Spectrum._fields))
            ready |= {"spectrum": spectrum, "kind": self._kind[number]}
        return ready

    def _of(self, batch: Mapping[str, Any]) -> int:
        return int(batch["member"]) if self._mixed else 0


def require_mixable(settings: PretrainSettings, kinds: Sequence[Kind]) -> None:
    """Refuse what cannot learn from several sensors.

    Raises
    ------
    SettingsError
        Says why, and names the sensors.
    """
    names = " and ".join(dict.fromkeys(kind.sensor.name for kind in kinds))
    if settings.encoder.embedding == "bands":
        raise SettingsError(
            f"the encoder {settings.encoder.name} has kernels for the bands of one sensor, and the pool has {names}",
            "set encoder: {name: vit-small, embedding: wavelengths}, or pool imagery with the same bands and units",
        )
    if settings.method.name == "mae":
        raise SettingsError(
            f"method mae predicts the bands of one sensor, and the pool has {names}",
            "choose a method that compares views, such as simclr or dense",
        )
    if settings.init is not None and settings.init.lora is not None:
        raise SettingsError(
            f"init.lora learns new kernels for the bands of one sensor, and the pool has {names}",
            "leave init.lora out, so that everything learns",
        )
