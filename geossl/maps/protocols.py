"""What a map needs to know of a model and of a collection of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geossl.bands import Sensor, Statistics
from geossl.grid import Grid, Tile
from geossl.legend import Legend


class MapTask(Protocol):
    """A trained model that says what every pixel is."""

    @property
    def id(self) -> str:
        """Stable: another model has another id."""
        ...

    @property
    def legend(self) -> Legend: ...

    @property
    def sensor(self) -> Sensor:
        """The imagery that it was trained for."""
        ...

    @property
    def statistics(self) -> Statistics: ...

    @property
    def window(self) -> int:
        """Side in pixels of the images it likes best; any small multiple works too."""
        ...

    @property
    def margin(self) -> int:
        """Pixels along the border of an image whose prediction is not to be trusted."""
        ...

    @property
    def dates(self) -> int:
        """1, or 2 for a change between two dates."""
        ...

    def predict(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Class probabilities (B, K, H, W) in legend order, summing to 1.

        Parameters
        ----------
        image:
            Stored numbers, (B, C, H, W) for one date or (B, 2, C, H, W) for two.
        valid:
            Where something clear was measured: (B, H, W) for one date or (B, 2, H, W) for two.
        """
        ...


class Sliceable(Protocol):
    """What is read by slices: a Zarr or NumPy array."""

    def __getitem__(self, key: Any, /) -> Any: ...


class Imagery(Protocol):
    """Images of one sensor on one grid, tile by tile: a collection of the cube."""

    @property
    def name(self) -> str: ...

    @property
    def sensor(self) -> Sensor: ...

    @property
    def grid(self) -> Grid: ...

    @property
    def kind(self) -> str:
        """``scenes`` or ``composite``."""
        ...

    @property
    def snapshot(self) -> str: ...

    @property
    def tile_ids(self) -> Sequence[str]: ...

    def tile(self, tile_id: str) -> Tile: ...

    def times(self, tile_id: str) -> NDArray[np.datetime64]: ...

    def scene_ids(self, tile_id: str) -> Sequence[str]: ...

    def revisions(self, tile_id: str) -> NDArray[np.int32]: ...

    def checksums(self, tile_id: str) -> Sequence[str]:
        """What each step was made from."""
        ...

    def image(self, tile_id: str) -> Sliceable:
        """(time, band, y, x) stored numbers."""
        ...

    def quality(self, tile_id: str) -> Sliceable:
        """(time, y, x) quality flags."""
        ...
