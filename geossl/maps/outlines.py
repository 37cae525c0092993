"""Outlines of a strip's patches, simplified without gaps.

Neighbouring polygons share their borders point by point, so that what is cut from one is given to
the other: Visvalingam & Whyatt (1993) on the borders of the whole coverage, as GEOS does it. The
borders of strips themselves stay as they are, hence parts of neighbouring strips still meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import features


def outlines(
    labels: NDArray[np.int32], top: int, *, tolerance: float, above: bool, below: bool
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Polygons of the labels above 0, and which label each is of.

    Parameters
    ----------
    labels:
        (H, W) of a strip.
    top:
        Row of its first pixel; polygons are in (column, row) of pixel corners.
    tolerance:
        Corners whose triangle is smaller than its square, in pixels, are cut; 0: along the pixels' edges.
    above, below:
        Whether another strip follows on that side.
    """
    # in pixels, so that parts of neighbouring strips meet exactly
    found = features.shapes(labels, mask=None if tolerance else labels > 0, transform=Affine.translation(0, top))
    of_label: list[int] = []
    polygons: list[Any] = []
    for shape, label in found:
        outer, *holes = (np.array(ring) for ring in shape["coordinates"])
        of_label.append(int(label))
        polygons.append(shapely.Polygon(outer, holes))
    numbers, shapes = np.array(of_label, np.int64), np.array(polygons, object)
    if len(shapes):
        shapes = _noded(shapes, _meeting_points(labels, above=above, below=below), top)
    if tolerance and len(shapes):
        # what lies outside of all patches takes part, so that its borders are cut too
        shapes = shapely.coverage_simplify(shapes, tolerance, simplify_boundary=False)
    return numbers[numbers > 0], shapes[numbers > 0]


def _meeting_points(labels: NDArray[np.int32], *, above: bool, below: bool) -> NDArray[np.bool_]:
    """(H + 1, W + 1) of pixel corners: where a border of one patch may end on the straight border of another."""
    nodes = np.zeros((labels.shape[0] + 1, labels.shape[1] + 1), np.bool_)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    nodes[1:-1, 1:-1] = (across[1:] != across[:-1]) | (down[:, 1:] != down[:, :-1])
    nodes[0], nodes[-1] = above, below  # what the neighbouring strip has there is not known here
    return nodes


def _noded(polygons: NDArray[np.object_], nodes: NDArray[np.bool_], top: int) -> NDArray[np.object_]:
    """The same polygons with a point wherever their edges, all along rows and columns, pass one of ``nodes``."""
    kind, points, (rings, parts) = shapely.to_ragged_array(polygons)
    corners = points.astype(np.int64)
    step = np.diff(corners, axis=0, append=corners[-1:])
    step[rings[1:] - 1] = 0  # from the end of a ring nothing leads to the next one
    length = np.maximum(np.abs(step).sum(axis=1), 1)
    direction = np.sign(step)
    start = np.cumsum(length) - length
    edge = np.repeat(np.arange(len(corners)), length)
    along = np.arange(len(edge)) - start[edge]
    places = corners[edge] + along[:, None] * direction[edge]
    kept = (along == 0) | nodes[places[:, 1] - top, places[:, 0]]
    # a ring begins anew where its first point comes in what is kept
    before = np.concatenate([[0], np.cumsum(kept)])
    offsets = before[np.append(start, len(edge))[rings]]
    return shapely.from_ragged_array(kind, places[kept].astype(np.float64), (offsets, parts))
