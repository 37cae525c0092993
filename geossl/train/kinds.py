"""The kinds of imagery in a pool: every image is normalised as its own kind, and embedded by its own bands."""

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
    beside: Kind | None = None
    """Of the other image of each place, where batches have two."""

    @property
    def images(self) -> tuple[Kind, ...]:
        """Itself, and what is beside it."""
        return (self,) if self.beside is None else (self, self.beside)

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"sensor": self.sensor.to_dict(), "statistics": self.statistics.to_dict()}
        return plain if self.beside is None else {**plain, "beside": self.beside.to_dict()}


class Kinds(nn.Module):
    """The kind of each member of a pool, in the order of the batches' ``member``; or the one kind of all batches.

    Raises
    ------
    SettingsError
        They are embedded by their wavelengths, and a band has none.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        super().__init__()
        images = [[(image.sensor, image.statistics) for image in kind.images] for kind in kinds]
        known = list(dict.fromkeys(image for each in images for image in each))
        self.normalize = nn.ModuleList(Normalize.from_statistics(statistics) for _, statistics in known)
        self._bands = [len(sensor.bands) for sensor, _ in known]
        self._several = len(kinds) > 1
        self._mixed = self._several or len(known) > 1
        # of a member's images and of those beside them; those of one kind have one number
        self._kinds = [(known.index(each[0]), known.index(each[-1])) for each in images]
        if self._mixed:
            for number, (sensor, _) in enumerate(known):
                for name, tensor in Spectrum.of(sensor.bands)._asdict().items():
                    self.register_buffer(f"{name}_{number}", tensor, persistent=False)

    def bands(self, batch: Mapping[str, Any]) -> int:
        """How many bands its images ought to have."""
        return self._bands[self._of(batch)[0]]

    def bands_beside(self, batch: Mapping[str, Any]) -> int:
        """How many bands the images beside them ought to have."""
        return self._bands[self._of(batch)[1]]

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``image`` normalised; with several kinds it says in ``spectrum`` which bands it has, in ``kind`` whose it is.

        Likewise what is ``beside`` it.
        """
        own, beside = self._of(batch)
        ready = self._ready(batch, own)
        return ready | {"beside": self._ready(batch["beside"], beside)} if "beside" in batch else ready

    def _ready(self, batch: Mapping[str, Any], number: int) -> dict[str, Any]:
        ready = {**batch, "image": self.normalize[number](batch["image"], batch["valid"])}
        if self._mixed:
            spectrum = Spectrum(*(getattr(self, f"{name}_{number}") for name in Spectrum._fields))
            ready |= {"spectrum": spectrum, "kind": number}
        return ready

    def _of(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """The kinds of its images and of those beside them."""
        return self._kinds[int(batch["member"]) if self._several else 0]


def require_mixable(settings: PretrainSettings, kinds: Sequence[Kind]) -> None:
    """Refuse what cannot learn from several sensors.

    Raises
    ------
    SettingsError
        Says why, and names the sensors.
    """
    names = " and ".join(dict.fromkeys(image.sensor.name for kind in kinds for image in kind.images))
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
