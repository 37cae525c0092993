"""The pixels of one tile as one image, in however many arrays they are stored."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.cube.groups import BandGroup, place


class TileImage:
    """Stored numbers (time, band, y, x) at the grid's resolution, bands in the sensor's order.

    Read by integers and slices, as an array is: ``image[step, :, rows, columns]``. Only what that touches is
    fetched; bands that are kept in coarser pixels come repeated (the nearest pixel).

    Parameters
    ----------
    parts:
        The groups of bands, finest first, and the array (time, n, h, w) of each.
    """

    def __init__(self, parts: Sequence[tuple[BandGroup, zarr.Array[Any]]]) -> None:
        self.parts = tuple(parts)
        (_, finest), *_ = self.parts
        bands = sum(len(group.bands) for group, _ in self.parts)
        self.shape = finest.shape[0], bands, *finest.shape[2:]
        self.dtype = finest.dtype

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        if len(self.parts) == 1:
            return np.asarray(self.parts[0][1][key])
        items = key if isinstance(key, tuple) else (key,)
        items += (slice(None),) * (len(self.shape) - len(items))
        times, bands, rows, columns = (_span(item, size) for item, size in zip(items, self.shape, strict=True))
        out = np.empty((len(times), self.shape[1], rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        for group, array in self.parts:
            if out.size and not set(bands).isdisjoint(group.bands):
                # whole coarser pixels, and the wanted part counted from their corner
                (top, y), (left, x) = (_cover(span, group.factor) for span in (rows, columns))
                place(group, np.asarray(array[times.start : times.stop : times.step, :, top, left]), y, x, out)
        steps = out[:, bands.start : bands.stop : bands.step, :: rows.step, :: columns.step]
        return steps[tuple(slice(None) if isinstance(item, slice) else 0 for item in items)]


def _span(item: Any, size: int) -> range:
    """The indices that an integer or a slice along an axis means, with no stop before the start."""
    if not isinstance(item, slice):
        index = operator.index(item)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of bounds for an axis of {size}")
        return range(index % size, index % size + 1)
    span = range(size)[item]
    if span.step < 0:
        raise IndexError(f"steps of {item!r} must not be negative")
    return range(span.start, max(span.start, span.stop), span.step)


def _cover(span: range, factor: int) -> tuple[slice, slice]:
    """The coarser pixels that a span of fine ones touches, and the span counted from the first of these."""
    first = span.start // factor
    return slice(first, -(-span.stop // factor)), slice(span.start - first * factor, span.stop - first * factor)
