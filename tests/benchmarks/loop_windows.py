"""``python -m tests.benchmarks.loop_windows``: how many of a map's windows does one new scene concern?

No clock is read: windows are what a map takes its time for, and where they lie says which of them look at a tile
that changed. Of 100 tiles, one or two beside each other in the middle are new. Counted are the windows of all tiles
that look at those (what predicting such tiles whole would take), and those that are predicted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from geossl.maps.blend import Lattice
from geossl.maps.settings import MapSettings

TILES, SIZE = 10, 1024
MODELS = {"of small networks": (128, 16), "of most networks": (256, 32), "of networks that look far": (512, 96)}
"""Windows and margins in pixels."""

_Place = tuple[int, int]
"""Row and column of a tile."""


class _Model:
    def __init__(self, window: int, margin: int) -> None:
        self.window, self.margin = window, margin


def main() -> None:
    """Print the table."""
    table = Table("windows", "changed tiles", "of all", "tiles whole", "what is predicted")
    for what, (window, margin) in MODELS.items():
        lattice = Lattice.of(_Model(window, margin), MapSettings())  # type: ignore[arg-type]  # all it is asked for
        everything = _windows(lattice, itertools.product(range(TILES), repeat=2))
        for changed in ([(4, 4)], [(4, 4), (4, 5)]):
            concerned = [
                place for place in itertools.product(range(TILES), repeat=2) if _looks(lattice, place, changed)
            ]
            whole, parts = _windows(lattice, concerned), _parts(lattice, concerned, changed)
            shares = (f"{len(found)} ({len(found) / len(everything):.1%})" for found in (whole, parts))
            table.add_row(f"{window} px, margins {margin}: {what}", str(len(changed)), str(len(everything)), *shares)
    Console(width=140).print(table)


def _span(index: int) -> range:
    return range(index * SIZE, (index + 1) * SIZE)


def _windows(lattice: Lattice, places: Iterable[_Place]) -> set[tuple[int, int]]:
    """The windows that whole tiles are predicted from."""
    of_each = (itertools.product(lattice.over(_span(row)), lattice.over(_span(column))) for row, column in places)
    return set(itertools.chain.from_iterable(of_each))


def _looks(lattice: Lattice, place: _Place, changed: list[_Place]) -> bool:
    """Whether a tile is predicted from windows that reach into a changed one."""
    return any(
        all(_meet(lattice.reach(_span(a)), _span(b)) for a, b in zip(place, other, strict=True)) for other in changed
    )


def _parts(lattice: Lattice, places: Iterable[_Place], changed: list[_Place]) -> set[tuple[int, int]]:
    """The windows that are predicted: of changed tiles all, of others those of the pixels that a change touches."""
    found = _windows(lattice, changed)
    for place, other in itertools.product(places, changed):
        spans = [_meet(lattice.touched(_span(b)), _span(a)) for a, b in zip(place, other, strict=True)]
        if all(spans):
            found |= set(itertools.product(*(lattice.over(span) for span in spans)))
    return found


def _meet(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


if __name__ == "__main__":
    main()
