"""What was asked for, and the places that are most like it.

Likeness is the cosine between embeddings, seen from the centre of all (:class:`geossl.search.table.About`).
A place has many dates, and many neighbours that look like it. So that they are not the answer ten
times over, answers are taken from the most similar chip down, and a chip that overlaps or touches
what was asked for, or the chip of a better answer, is passed over, whatever its date: between any two
answers lies other ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geossl.errors import SettingsError
from geossl.search.places import Corners, distinct, near
from geossl.search.table import Embeddings, Floats, Where, unit

_COLUMNS = ["scene", "time", "tile", "row", "col", "clear_fraction"]


@dataclass(frozen=True)
class Hit:
    """One answer: a chip of a place at the date that is most like what was asked for."""

    scene: str
    time: np.datetime64
    """UTC, to the second."""
    tile: str
    row: int
    col: int
    clear: float
    similarity: float
    """Cosine, −1 … 1."""


@dataclass(frozen=True)
class Question:
    """A direction, and the places that it was taken from."""

    vector: Floats
    """(dim,) of length 1: the mean of the directions of these places' chips."""
    places: Corners
    example: Hit
    """The chip of these places that is most like their mean."""
    chips: int
    """How many chips the mean is of."""


class Index(Protocol):
    """Whatever finds the most similar chips."""

    def nearest(self, question: Question, where: Where, most: int) -> list[Hit]:
        """At most so many answers, the most similar first, by the rule of this module."""
        ...


class Apart:
    """The rule by which an answer is one place.

    Parameters
    ----------
    places:
        What was asked for.
    size:
        Side of the chips in pixels.
    """

    def __init__(self, places: Corners, size: int) -> None:
        self.taken = places
        self._size = size

    def takes(self, place: NDArray[np.int64]) -> bool:
        """Whether a chip is an answer of its own, after all that were taken before."""
        if near(self.taken, place, self._size).any():
            return False
        self.taken = np.concatenate([self.taken, place[None]])
        return True


class Exact:
    """Compares with every embedding, file by file: no index to build, nothing to install."""

    def __init__(self, embeddings: Embeddings) -> None:
        self.embeddings = embeddings

    def nearest(self, question: Question, where: Where, most: int) -> list[Hit]:
        of = self.embeddings
        found = [
            (of.vectors(table) @ question.vector, of.corners(table), table.drop_columns(["embedding"]))
            for table in of.scan([*_COLUMNS, "embedding"], where)
        ]
        if not found:
            return []
        similarity, corners = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:2])
        starts = np.cumsum([0, *(len(table) for _, _, table in found)])
        rule, hits = Apart(question.places, of.about.lattice.size), list[Hit]()
        for chip in np.argsort(-similarity, kind="stable"):  # of equals, the first in the files
            if len(hits) == most:
                break
            if rule.takes(corners[chip]):
                group = int(np.searchsorted(starts, chip, side="right")) - 1
                hits.append(_hit(found[group][2], int(chip - starts[group]), similarity[chip]))
        return hits


def _hit(table: pa.Table, row: int, similarity: float) -> Hit:
    found = table.slice(row, 1).to_pylist()[0]
    return Hit(
        found["scene"],
        np.datetime64(found["time"].replace(tzinfo=None), "s"),
        found["tile"],
        found["row"],
        found["col"],
        found["clear_fraction"],
        float(similarity),
    )


def places_of(embeddings: Embeddings, where: Where) -> Corners:
    """Every place of which a chip is looked at.

    Raises
    ------
    SettingsError
        There is none.
    """
    found = [distinct(embeddings.corners(table)) for table in embeddings.scan(["tile", "row", "col"], where)]
    if not found:
        raise SettingsError(f"no chip has an embedding {where}".rstrip(), "ask for other dates, or less clear ones")
    return distinct(np.concatenate(found))


def at_point(embeddings: Embeddings, places: Corners, longitude: float, latitude: float) -> Corners:
    """(1, 2) the place that holds a point; of several, that in whose middle it lies most.

    Raises
    ------
    SettingsError
        None of the places holds it.
    """
    lattice = embeddings.about.lattice
    within = lattice.pixel(longitude, latitude) - places
    holds = ((within >= 0) & (within < lattice.size)).all(axis=1)
    if not holds.any():
        west, south, east, north = shapely.total_bounds(lattice.footprints(places))
        swapped = west <= latitude <= east and south <= longitude <= north
        raise SettingsError(
            f"no chip with an embedding holds the point {longitude:g},{latitude:g}; "
            f"there are some from {west:.4f},{south:.4f} to {east:.4f},{north:.4f} (longitude,latitude)",
            "give the longitude first, then the latitude"
            if swapped
            else "choose a point where the ground was clear, ask for other dates, or lower search.min_clear",
        )
    middle = np.abs(within - lattice.size / 2).max(axis=1)
    return places[[np.where(holds, middle, np.inf).argmin()]]


def within(embeddings: Embeddings, places: Corners, area: shapely.Geometry) -> Corners:
    """(N, 2) places whose middle lies in an area in the grid's CRS; where it is too small for that, the
    one that it covers most.

    Raises
    ------
    SettingsError
        It touches none of the places.
    """
    boxes = embeddings.about.lattice.boxes(places)
    inside = shapely.contains(area, shapely.centroid(boxes))
    if inside.any():
        return places[inside]
    shared = shapely.area(shapely.intersection(boxes, area))
    if not shared.max(initial=0) > 0:
        raise SettingsError(
            "no chip with an embedding lies in the polygon",
            "draw it where the ground was clear, or ask for other dates",
        )
    return places[[shared.argmax()]]


def question(embeddings: Embeddings, places: Corners, where: Where) -> Question:
    """What the chips of these places have in common, at all dates that are looked at."""
    wanted = {tuple(place) for place in places.tolist()}
    parts = []
    for table in embeddings.scan([*_COLUMNS, "embedding"], where, tiles=_tiles(embeddings, places)):
        chosen = [chip for chip, place in enumerate(embeddings.corners(table).tolist()) if tuple(place) in wanted]
        if chosen:
            parts.append(table.take(chosen))
    table = pa.concat_tables(parts)
    vectors = embeddings.vectors(table)
    vector = unit(vectors.mean(axis=0))
    likeness = vectors @ vector
    example = int(likeness.argmax())
    return Question(vector, places, _hit(table, example, likeness[example]), len(table))


def _tiles(embeddings: Embeddings, places: Corners) -> list[str]:
    """Ids of the tiles that the places lie in."""
    grid = embeddings.about.lattice.grid
    return [grid[ix, iy].id for iy, ix in distinct(places // grid.tile_size).tolist()]


def geometry(embeddings: Embeddings, hits: Sequence[Hit]) -> NDArray[np.object_]:
    """(N,) outlines of the chips in longitude and latitude."""
    lattice = embeddings.about.lattice
    row, col = (np.array([getattr(hit, name) for hit in hits], np.int64) for name in ("row", "col"))
    return lattice.footprints(lattice.corners([hit.tile for hit in hits], row, col))
