"""The card of an encoder: everything that one must know to use its weights correctly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from geossl.bands import Sensor, Statistics, require_same_radiometry
from geossl.errors import GeosslError, StoreError
from geossl.nets.settings import EncoderSettings

FORMAT = 3  # 2: embedding and origin; 3: groups


@dataclass(frozen=True)
class Card:
    """What an encoder is, what it was trained on, and how it did."""

    architecture: EncoderSettings
    sensor: Sensor
    """Bands, order, wavelengths and radiometry of the images it takes."""
    statistics: Statistics
    """The per-band statistics, in stored units, that normalised its images."""
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The training's settings, JSON-ready."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What it started from, band by band, and what was new; empty where it started from chance."""
    snapshot: str | None = None
    """The cube snapshot it was trained on; None where the images came from elsewhere."""
    code_version: str = ""
    created: str = ""
    """ISO 8601 time, UTC."""
    scores: tuple[Mapping[str, Any], ...] = ()
    """Rows of scores, if it was evaluated."""
    health: Mapping[str, Any] = field(default_factory=dict)
    """Figures that tell a collapsed training from a healthy one."""
    id: str = ""
    """``<method>-<encoder>-<8 hex digits of the content>``; given when it is saved."""
    weights: str = ""
    """BLAKE2b digest of the weights file; given when it is saved."""
    format: int = FORMAT

    def require(self, sensor: Sensor, where: str) -> None:
        """Refuse imagery (called ``where`` in the message) of other bands or units than the encoder's."""
        require_same_radiometry(self.sensor, sensor, us=f"the encoder {self.id}", them=where)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is its inverse."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {
            "architecture": self.architecture.model_dump(),
            "sensor": self.sensor.to_dict(),
            "statistics": self.statistics.to_dict(),
            "settings": dict(self.settings),
            "origin": dict(self.origin),
            "scores": [dict(row) for row in self.scores],
            "health": dict(self.health),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "the card") -> Self:
        """Read a card.

        Raises
        ------
        StoreError
            ``where`` is no card, or was written by a newer geossl.
        """
        if not isinstance(data.get("format"), int) or data["format"] > FORMAT:
            raise StoreError(
                f"{where} has format {data.get('format')!r}; this geossl reads up to {FORMAT}", "update geossl"
            )
        try:
            values = dict(data) | {
                "architecture": EncoderSettings.model_validate(data["architecture"]),
                "sensor": Sensor.from_dict(data["sensor"]),
                "statistics": Statistics.from_dict(data["statistics"]),
                "scores": tuple(data.get("scores", ())),
            }
            return cls(**values)
        except (KeyError, TypeError, ValidationError, GeosslError) as error:
            raise StoreError(f"{where} is damaged: {error}", "train or copy the encoder again") from error
