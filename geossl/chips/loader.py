"""Batches for training: shuffled, shared out to the ranks, prefetched, and resumable to the batch.

A batch is a dict after torchgeo's convention, of host tensors; B chips of S × S pixels, or B pairs
of them (T = 2):

===========  ================================================================================
image        (B, [T,] C, S, S) stored numbers: normalising happens on the device
valid        (B, [T,] S, S) bool: the ground was seen (:func:`geossl.imagery.clouds.is_clear`)
time         (B, [T]) int64, seconds since 1970 UTC
xy           (B, 2) float32, centre of the chip in the CRS of the grid
gsd          (B,) float32, pixel size in metres
wavelengths  (C,) float32, µm; NaN for a band without
mask         (B, S, S) uint8 class positions, 255 where hidden or unlabelled; with labels only
beside       image, valid, time and wavelengths of the same windows as another collection has
             them (it may be of another sensor), with a collection beside only
===========  ================================================================================
"""

from __future__ import annotations

from typing import Any, override

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.chips.beside import Beside, pairs_beside
from geossl.chips.buffers import BufferPool
from geossl.chips.course import Batch, Course, dealt, shared_out
from geossl.chips.index import ChipIndex, centres, pairs, seconds
from geossl.chips.labels import LabelLayer
from geossl.chips.reader import ChipBuffers, ChipReader
from geossl.errors import SettingsError
from geossl.imagery.clouds import UNCLEAR
from geossl.legend import NO_LABEL

NEIGHBOURS = 4
"""Chips of one stored chunk that stay together when an epoch is shuffled, so that it is decoded less often."""


class ChipLoader(Course):
    """Batches of the chips of one collection.

    Parameters
    ----------
    reader, index:
        Where pixels come from, and which chips.
    batch_size:
        Chips (or pairs) a batch on this rank.
    paired:
        Give two different steps of one window instead of one.
    beside:
        Give a chip of another collection as well, of the same window and near in time; not with ``paired``. A chip
        that has none is not seen; of several, each epoch draws one. One of theirs may stand beside several of ours,
        so that ranks see disjoint pairs, and of our collection disjoint chips.
    labels:
        Adds ``mask``.
    weights:
        (N,) how often each chip is seen, relative to the others; needs ``shuffle``. An epoch has as many
        chips as without: some come several times, others not in every epoch. A pair counts the mean of its two,
        each by the weights of its own collection.
    shuffle:
        For training: a new order every epoch, the same on every rank, and only full batches. Otherwise
        the order of the index, down to the last chip; ranks may then differ by one batch.
    seed:
        Decides orders and pairs.
    rank, world:
        Which of how many processes this is; they see disjoint chips.
    """

    def __init__(
        self,
        reader: ChipReader,
        index: ChipIndex,
        batch_size: int,
        *,
        paired: bool = False,
        beside: Beside | None = None,
        labels: LabelLayer | None = None,
        weights: NDArray[np.float64] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.index = index
        self._paired = paired
        self._beside = beside
        self._labels = labels
        self._weights = weights
        self._shuffle = shuffle
        self._seed = seed
        self._rank, self._world = rank, world
        self._chunk = index.chunk() if shuffle else None
        self._chips = len(self._all_rows(0))
        self._share_out(batch_size)
        self._xy = centres(reader.collection, index).astype(np.float32)

    def _share_out(self, batch_size: int) -> None:
        """Give this rank batches of that size."""
        if self._shuffle:
            self._length = self._chips // (batch_size * self._world)
            if not self._length:
                what = "pairs" if self._paired or self._beside is not None else "chips"
                raise SettingsError(
                    f"{self._chips} {what} do not fill one batch of {batch_size} on {self._world} process(es)",
                    "use smaller batches or chips, accept cloudier chips, or add imagery",
                )
        else:
            self._length = -(-len(range(self._rank, self._chips, self._world)) // batch_size)
        self.batch_size = batch_size
        self._orders.cache_clear()
        rows = (batch_size, 2) if self._paired else (batch_size,)
        self._images = _Images(self.reader, self.index, rows)
        if self._beside is not None:
            self._images_beside = _Images(self._beside.reader, self._beside.index, rows)

    @override
    def __len__(self) -> int:
        return self._length

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"together": self.batch_size * self._world}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken, be it with another number of ranks.

        Then batches keep the size that they had on all ranks together, and the remaining chips their order.

        Raises
        ------
        SettingsError
            That size cannot be shared out to this many ranks.
        """
        batch_size = shared_out(state, self.batch_size, self._world)
        if batch_size != self.batch_size:
            self._share_out(batch_size)
        super().load_state_dict(state)

    @override
    def _order(self, epoch: int) -> NDArray[np.int64]:
        """(N,) or (N, 2) rows of the index; of pairs of collections, the second of the index beside."""
        rows = self._all_rows(epoch)
        if not self._shuffle:
            return rows[self._rank :: self._world]
        return dealt(rows, self._length, self.batch_size, rank=self._rank, world=self._world)

    def _all_rows(self, epoch: int) -> NDArray[np.int64]:
        """Rows of one epoch for all ranks together."""
        if self._paired:
            rows = pairs(self.index, seed=self._seed, epoch=epoch if self._shuffle else 0)
            if not self._shuffle:
                return rows[np.lexsort(rows.T[::-1])]
            first = rows[:, 0]
        elif self._beside is not None:
            rows = pairs_beside(self.index, self._beside, seed=self._seed, epoch=epoch if self._shuffle else 0)
            first = rows[:, 0]
        else:
            rows = np.arange(len(self.index))
            first = rows
        if self._chunk is None:
            return rows
        rng = np.random.default_rng((self._seed, epoch, 1))
        if self._weights is None:
            return rows[_shuffled(self._chunk[first], rng)]
        drawn, again = _drawn(self._weight(rows), rng)
        # the second showing of a chip is kept apart from the first
        apart = self._chunk[first[drawn]] * (again.max(initial=0) + 1) + again
        return rows[drawn[_shuffled(apart, rng)]]

    def _weight(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,) how often each chip or pair is to be seen."""
        assert self._weights is not None
        if self._beside is None:
            return self._weights[rows].reshape(len(rows), -1).mean(axis=1)
        ours, theirs = self._weights[rows[:, 0]], self._beside.weights
        return ours if theirs is None else (ours + theirs[rows[:, 1]]) / 2

    @override
    def load(self, epoch: int, number: int) -> Batch:
        rows = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        chips = rows if rows.ndim == 1 else rows[:, 0]
        batch = self._images.read(rows if self._beside is None else chips)
        batch["xy"] = torch.from_numpy(self._xy[chips])
        batch["gsd"] = torch.full((len(rows),), self.reader.collection.grid.resolution, dtype=torch.float32)
        if self._beside is not None:
            batch["beside"] = self._images_beside.read(rows[:, 1])
        if self._labels is not None:
            mask = self._labels.read(self.index, chips)
            valid = batch["valid"].numpy()
            mask[~(valid.all(axis=1) if self._paired else valid)] = NO_LABEL
            batch["mask"] = torch.from_numpy(mask)
        return batch


class _Images:
    """The images of chips of one collection, batch after batch in the same buffers.

    Parameters
    ----------
    shape:
        Of a batch's rows: ``(B,)``, or ``(B, 2)`` for pairs.
    """

    def __init__(self, reader: ChipReader, index: ChipIndex, shape: tuple[int, ...]) -> None:
        self.reader = reader
        self.index = index
        size, sensor = index.size, reader.collection.sensor
        self._images = BufferPool((*shape, len(sensor.bands), size, size), getattr(torch, sensor.radiometry.dtype))
        self._qualities = BufferPool((*shape, size, size), torch.uint8)
        self._valids = BufferPool((*shape, size, size), torch.bool)
        self._seconds = seconds(index)
        self._wavelengths = torch.tensor([float("nan") if w is None else w for w in sensor.wavelengths])

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """``image``, ``valid``, ``time`` and ``wavelengths`` of these rows of the index."""
        image, quality, valid = (pool.take()[: len(rows)] for pool in (self._images, self._qualities, self._valids))
        pixels = self.reader.read(self.index, rows, ChipBuffers(image.numpy(), quality.numpy()))
        # NumPy: torch would start a pool of threads for this thread
        np.bitwise_and(pixels.quality, np.uint8(UNCLEAR), out=pixels.quality)
        np.equal(pixels.quality, 0, out=valid.numpy())
        return {
            "image": image,
            "valid": valid,
            "time": torch.from_numpy(self._seconds[rows]),
            "wavelengths": self._wavelengths,
        }


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """N positions drawn by N weights, and for each how often it was drawn before.

    Each comes as often as its weight says, rounded down or up at random (systematic sampling).
    """
    order = rng.permutation(len(weights))
    ends = np.cumsum(weights[order])
    ticks = (np.arange(len(weights)) + rng.random()) * (ends[-1] / len(weights)) if len(weights) else ends
    place = np.minimum(np.searchsorted(ends, ticks, side="right"), np.max(np.flatnonzero(weights[order]), initial=0))
    first = np.flatnonzero(np.diff(place, prepend=-1))
    again = np.arange(len(place)) - np.repeat(first, np.diff(np.r_[first, len(place)]))
    return order[place], again


def _shuffled(chunk: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
    """A random order in which up to :data:`NEIGHBOURS` chips of a chunk follow one another."""
    order = np.lexsort((rng.random(len(chunk)), chunk))
    ordered = chunk[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    place = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)]))
    group = np.cumsum(place % NEIGHBOURS == 0) - 1
    key = rng.permutation(group[-1] + 1 if len(group) else 0)[group]
    return order[np.argsort(key, kind="stable")]
