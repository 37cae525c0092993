"""What became of a file of labels on the grid: what it says, and what of it could not be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

MOST = 1000
"""Most feature ids that are kept of each kind; all are counted."""

_SHOWN = 8


@dataclass
class Features:
    """Some features of a file."""

    count: int = 0
    ids: list[str] = field(default_factory=list)
    """As QGIS (``$id``) and ogrinfo number them; the first :data:`MOST`."""

    @classmethod
    def of(cls, ids: Sequence[str]) -> Self:
        return cls(len(ids), list(ids[:MOST]))

    def __str__(self) -> str:
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        return f"feature{'s' if self.count != 1 else ''} {', '.join(self.ids[:_SHOWN])}{more}"

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass
class LabelReport:
    """What labels came to. JSON-ready by :meth:`to_dict`; kept with the layer in the cube."""

    pixel_area: float = 0.0
    """Square metres of one pixel."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Class name → labelled pixels."""
    shapes: int = 0
    """Features of the file; 0 for rasters."""
    outside: int = 0
    """Features that touch no tile with imagery."""
    blank: Features = field(default_factory=Features)
    """Features on the imagery that say no class."""
    other_dates: int = 0
    """Features that are dated too far from the task's image, or not at all."""
    slivers: Features = field(default_factory=Features)
    """Features on the imagery that hold no pixel's centre, and so label nothing."""
    repaired: Features = field(default_factory=Features)
    """Features whose geometry was invalid and was repaired."""
    aside: dict[str, str] = field(default_factory=dict)
    """Id of a feature that cannot be used → why; the first :data:`MOST`."""
    set_aside: int = 0
    overlaps: list[tuple[str, str, int]] = field(default_factory=list)
    """Two classes that claim the same ground, and on how many pixels; the largest first."""
    later_wins: bool = False
    """Whether the later shape of the file labels such a pixel; else it has no label."""
    undecided: int = 0
    """Pixels (of shapes: features) cleared in a year that lies only partly between the two dates: no label."""
    undated: Features = field(default_factory=Features)
    """Clearings without a date: no label."""

    def lines(self) -> Iterator[str]:
        """In plain words, the labels first."""
        total = sum(self.pixels.values())
        classes = ", ".join(f"{name} {count:,}" for name, count in self.pixels.items())
        yield f"{total:,} pixels ({self._area(total)}): {classes}"
        if absent := [name for name, count in self.pixels.items() if not count]:
            yield f"no label says {', '.join(absent)}: a model never predicts what nobody showed it"
        for first, second, count in self.overlaps:
            becomes = "the later shape of the file wins" if self.later_wins else "no label there"
            yield f"{first} and {second} overlap on {count:,} pixels ({self._area(count)}): {becomes}"
        if self.outside:
            yield f"{self.outside:,} of {self.shapes:,} shapes lie outside the imagery"
        if self.slivers:
            yield f"{self.slivers.count:,} shapes hold no pixel's centre and label nothing: {self.slivers}"
        if self.blank:
            yield f"{self.blank.count:,} shapes say no class: {self.blank}"
        if self.undated:
            yield f"{self.undated.count:,} clearings have no date, so there is no label: {self.undated}"
        if self.other_dates:
            yield f"{self.other_dates:,} shapes are of another date than the task's image, or of none"
        if self.undecided:
            what = "shapes" if self.shapes else "pixels"
            yield f"{self.undecided:,} {what} were cleared in a year that lies only partly between the dates: no label"
        if self.repaired:
            yield f"{self.repaired.count:,} invalid geometries repaired: {self.repaired}"
        for number, why in list(self.aside.items())[:_SHOWN]:
            yield f"set aside: feature {number}: {why}"
        if self.set_aside > _SHOWN:
            yield f"set aside: {self.set_aside - _SHOWN} more features"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"overlaps": [list(pair) for pair in self.overlaps]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        some = {name: Features(**data[name]) for name in ("blank", "slivers", "repaired", "undated")}
        return cls(**{**data, **some, "overlaps": [(a, b, int(count)) for a, b, count in data["overlaps"]]})

    def _area(self, pixels: int) -> str:
        hectares = pixels * self.pixel_area / 1e4
        return f"{hectares:,.0f} ha" if hectares >= 100 else f"{hectares:,.2f} ha"
