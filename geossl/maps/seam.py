"""How much windows show in a map: the seam error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.maps.blend import Blender, Lattice

GOAL = 1e-3
"""Differences in probability below this show in no map."""

WHOLE = 3
"""The prediction without windows is one window so many times as large."""


@dataclass(frozen=True, slots=True)
class SeamError:
    """How a blended prediction differs from one without windows, on one sample place.

    The difference at a pixel is that of the class whose probability differs most.
    """

    edge: float
    """Mean difference in probability where windows meet: in the pixels that two share, or, where none are shared,
    on either side of an edge."""
    error: float
    """The same over all pixels."""
    step: float
    """Mean error of the change in probability from one pixel to the next across window edges: what the eye would
    see as a grid."""
    changed: float
    """Share of pixels that get another class."""
    pixels: int
    """How many pixels were compared."""


def seam_error(blender: Blender, centre: tuple[int, int]) -> SeamError:
    """Compare a blended prediction with that of a single window :data:`WHOLE` times as large.

    The border of the large window, half a window wide, is left out: there it lacks context itself.

    Parameters
    ----------
    centre:
        Global row and column of the place; some pixel around it must have data.
    """
    lattice = blender.lattice
    side = WHOLE * lattice.window
    # beginning where some window begins, so that a network that pools sees the same pixels together
    begins = (lattice.frame((at - side // 2) // lattice.stride).start for at in centre)
    rows, cols = (range(begin, begin + side) for begin in begins)
    border = max(lattice.margin, lattice.window // 2)
    image, valid = blender.canvas.read(rows, cols)
    whole = blender.predict(image[None], valid[None], margin=border)[0]
    rows, cols = rows[border:-border], cols[border:-border]
    parts = list(blender.blend(rows, cols))
    blended = np.concatenate([part.probabilities for part in parts], axis=1)
    valid = np.concatenate([part.valid for part in parts])
    difference = blended - whole
    apart = np.abs(difference).max(axis=0)
    meets = [_meets(lattice, pixels) for pixels in (rows, cols)]
    steps = []
    for axis, pixels in ((0, rows), (1, cols)):
        wrong = np.abs(np.diff(difference, axis=axis + 1)).max(axis=0)
        both = np.minimum(valid[1:], valid[:-1]) if axis == 0 else np.minimum(valid[:, 1:], valid[:, :-1])
        steps.append(wrong[both & np.expand_dims(_begins(lattice, pixels)[1:], 1 - axis)])
    return SeamError(
        edge=_mean(apart[valid & (meets[0][:, None] | meets[1][None, :])]),
        error=_mean(apart[valid]),
        step=_mean(np.concatenate(steps)),
        changed=_mean((whole.argmax(axis=0) != blended.argmax(axis=0))[valid]),
        pixels=int(valid.sum()),
    )


def _begins(lattice: Lattice, pixels: range) -> NDArray[np.bool_]:
    """Which pixels are the first that a window adds to, or the first that it no longer adds to."""
    at = np.arange(pixels.start, pixels.stop)
    return (at % lattice.stride == 0) | ((at - lattice.trusted) % lattice.stride == 0)


def _meets(lattice: Lattice, pixels: range) -> NDArray[np.bool_]:
    """Which pixels two windows share; without any, those on either side of an edge."""
    place = np.arange(pixels.start, pixels.stop) % lattice.stride
    return place < lattice.overlap if lattice.overlap else (place == 0) | (place == lattice.stride - 1)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else 0.0
