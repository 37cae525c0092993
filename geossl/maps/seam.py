"""How much windows show in a map: the seam error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.maps.blend import Blender, Lattice


@dataclass(frozen=True, slots=True)
class SeamError:
    """How a blended prediction differs from that of one larger window, on one sample place.

    A seam is a *step* that should not be there: from one pixel to the next the blended map changes
    by another amount than the seamless one. A map without seams has steps across window edges that
    are as right as everywhere else: ``edge`` is about ``inside``.
    """

    edge: float
    """Mean absolute error of the steps in probability across window edges."""
    inside: float
    """The same between all other neighbouring pixels."""
    error: float
    """Mean absolute difference of probabilities, seams or not."""
    changed: float
    """Share of pixels that get another class."""
    pixels: int
    """How many pixels were compared."""


def seam_error(blender: Blender, centre: tuple[int, int]) -> SeamError:
    """Compare a blended prediction with that of a single window twice as large.

    Parameters
    ----------
    centre:
        Global row and column of the place; some pixel around it must have data.
    """
    lattice = blender.lattice
    # beginning where some window begins, so that a network that pools sees the same pixels together
    begins = (lattice.frame((at - lattice.window) // lattice.stride).start for at in centre)
    rows, cols = (range(begin, begin + 2 * lattice.window) for begin in begins)
    image, valid = blender.canvas.read(rows, cols)
    whole = blender.predict(image[None], valid[None])[0]
    margin = lattice.margin
    rows, cols = rows[margin : len(rows) - margin], cols[margin : len(cols) - margin]
    parts = list(blender.blend(rows, cols))
    blended = np.concatenate([part.probabilities for part in parts], axis=1)
    valid = np.concatenate([part.valid for part in parts])
    difference = blended - whole
    steps: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    for axis, pixels in ((0, rows), (1, cols)):
        wrong = np.abs(np.diff(difference, axis=axis + 1)).mean(axis=0)
        both = np.minimum(valid[1:], valid[:-1]) if axis == 0 else np.minimum(valid[:, 1:], valid[:, :-1])
        at_edge = np.expand_dims(_begins(lattice, pixels)[1:], 1 - axis)
        steps[True].append(wrong[both & at_edge])
        steps[False].append(wrong[both & ~at_edge])
    return SeamError(
        edge=_mean(np.concatenate(steps[True])),
        inside=_mean(np.concatenate(steps[False])),
        error=_mean(np.abs(difference).mean(axis=0)[valid]),
        changed=_mean((whole.argmax(axis=0) != blended.argmax(axis=0))[valid]),
        pixels=int(valid.sum()),
    )


def _begins(lattice: Lattice, pixels: range) -> NDArray[np.bool_]:
    """Which pixels are the first that a window adds to, or the first that it no longer adds to."""
    at = np.arange(pixels.start, pixels.stop)
    return (at % lattice.stride == 0) | ((at - lattice.trusted) % lattice.stride == 0)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else 0.0
