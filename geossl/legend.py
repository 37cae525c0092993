"""What the codes of a label raster or a map mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geossl.errors import LabelError

NO_LABEL = 255
"""The code that is never a class: unlabelled in labels, no-data in maps."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class LandClass:
    """One class of a legend."""

    code: int
    """0 … 254, as stored in rasters."""
    name: str
    color: str
    """``#rrggbb``."""

    def __post_init__(self) -> None:
        if not 0 <= self.code < NO_LABEL:
            raise LabelError(f"class {self.name!r}: code {self.code!r} is not between 0 and {NO_LABEL - 1}")
        if not _COLOR.fullmatch(self.color):
            raise LabelError(f"class {self.name!r}: colour {self.color!r} is not of the form #rrggbb")

    @property
    def rgb(self) -> tuple[int, int, int]:
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class Legend:
    """An ordered set of classes. Networks see positions 0 … K−1, rasters hold codes."""

    classes: tuple[LandClass, ...]
    title: str = ""

    def __post_init__(self) -> None:
        for what in ("code", "name"):
            values = [getattr(c, what) for c in self.classes]
            if twice := {v for v in values if values.count(v) > 1}:
                raise LabelError(f"legend {self.title!r} has the same {what} twice: {sorted(twice)}")
        if len(self.classes) < 2:
            raise LabelError(f"legend {self.title!r} needs at least two classes")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[LandClass]:
        return iter(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        return tuple(c.code for c in self.classes)

    def to_index(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes → positions 0 … K−1; anything that is not a class → :data:`NO_LABEL`. Any shape."""
        table = np.full(256, NO_LABEL, np.uint8)
        table[list(self.codes)] = np.arange(len(self), dtype=np.uint8)
        return table[codes]

    def to_code(self, index: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Positions → codes; :data:`NO_LABEL` stays. Any shape."""
        table = np.full(256, NO_LABEL, np.uint8)
        table[: len(self)] = self.codes
        return table[index]

    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """Code → RGBA for a raster palette; no-data is transparent."""
        return {c.code: (*c.rgb, 255) for c in self.classes} | {NO_LABEL: (0, 0, 0, 0)}

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "classes": [{"code": c.code, "name": c.name, "color": c.color} for c in self.classes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        classes: Sequence[Mapping[str, Any]] = data["classes"]
        return cls(tuple(LandClass(int(c["code"]), c["name"], c["color"]) for c in classes), data.get("title", ""))


CHANGE = Legend(
    (LandClass(0, "no change", "#d9d9d9"), LandClass(1, "clearing", "#d7191c")),
    title="Clearing",
)
"""The legend of every two-date clearing map."""
