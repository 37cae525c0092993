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
===========  ================================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.chips.buffers import BufferPool
from geossl.chips.index import ChipIndex, pairs
from geossl.chips.labels import LabelLayer
from geossl.chips.reader import ChipBuffers, ChipReader
from geossl.errors import SettingsError
from geossl.imagery.clouds import UNCLEAR
from geossl.legend import NO_LABEL

PREFETCH = 2
"""Batches that are read ahead of the one in use."""

NEIGHBOURS = 4
"""Chips of one stored chunk that stay together when an epoch is shuffled, so that it is decoded less often."""

Batch = dict[str, Tensor]


class ChipLoader:
    """Iterates over an epoch in batches; each new iteration is the next epoch.

    Parameters
    ----------
    reader, index:
        Where pixels come from, and which chips.
    batch_size:
        Chips (or pairs) a batch on this rank.
    paired:
        Give two different steps of one window instead of one.
    labels:
        Adds ``mask``.
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
        labels: LabelLayer | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.reader = reader
        self.index = index
        self.batch_size = batch_size
        self._paired = paired
        self._labels = labels
        self._shuffle = shuffle
        self._seed = seed
        self._rank, self._world = rank, world
        self._epoch, self._batch = 0, 0
        self._fresh = True  # nothing of this epoch has been handed out by this object
        self._chunk = index.chunk() if shuffle else None

        chips = len(self._order(0))
        if shuffle:
            self._length = chips // (batch_size * world)
            if not self._length:
                what = "pairs" if paired else "chips"
                raise SettingsError(
                    f"{chips} {what} do not fill one batch of {batch_size} on {world} process(es)",
                    "use smaller batches or chips, accept cloudier chips, or add imagery",
                )
        else:
            self._length = -(-len(range(rank, chips, world)) // batch_size)
        rows = (batch_size, 2) if paired else (batch_size,)
        size, sensor = index.size, reader.collection.sensor
        dtype = getattr(torch, sensor.radiometry.dtype)
        self._images = BufferPool((*rows, len(sensor.bands), size, size), dtype)
        self._qualities = BufferPool((*rows, size, size), torch.uint8)
        self._valids = BufferPool((*rows, size, size), torch.bool)
        self._wavelengths = torch.tensor([float("nan") if w is None else w for w in sensor.wavelengths])
        self._corners = np.array([reader.collection.tile(t).bounds[:] for t in index.tile_ids]).reshape(-1, 4)

    def __len__(self) -> int:
        """Batches an epoch on this rank."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of that epoch, or where a loaded state is within it."""
        if epoch != self._epoch or not self._fresh:
            self._epoch, self._batch = epoch, 0
        self._fresh = True

    def state_dict(self) -> dict[str, int]:
        """The place after the last batch that was handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on where ``state`` was taken."""
        self._epoch, self._batch = state["epoch"], state["batch"]
        self._fresh = True

    def __iter__(self) -> Iterator[Batch]:
        if not self._fresh or self._batch >= self._length:
            self._epoch, self._batch = self._epoch + 1, 0
        self._fresh = True
        return self._batches(self._epoch, self._batch)

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        rows = self.rows(epoch)
        # one thread: the reader has its own, and batches have to be in order
        with ThreadPoolExecutor(1, "geossl-batch") as ahead:
            waiting: deque[Future[Batch]] = deque()
            try:
                for number in range(first, self._length):
                    waiting.append(ahead.submit(self._load, rows[self._slice(number)]))
                    if len(waiting) > PREFETCH:
                        yield self._hand_out(waiting)
                while waiting:
                    yield self._hand_out(waiting)
            finally:
                for future in waiting:
                    future.cancel()

    def _hand_out(self, waiting: deque[Future[Batch]]) -> Batch:
        batch = waiting.popleft().result()
        # counted before the yield: whoever takes a known number of batches never returns to it
        self._batch += 1
        self._fresh = False
        return batch

    def _slice(self, number: int) -> slice:
        return slice(number * self.batch_size, (number + 1) * self.batch_size)

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """(N,) or (N, 2) rows of the index that this rank sees in an epoch, in order."""
        order = self._order(epoch)
        if not self._shuffle:
            return order[self._rank :: self._world]
        full = order[: self._length * self.batch_size * self._world]
        # Batch by batch, not rank by rank: neighbours that were kept together stay on one rank.
        return full.reshape(self._length, self._world, self.batch_size, *full.shape[1:])[:, self._rank].reshape(
            -1, *full.shape[1:]
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Rows of one epoch for all ranks together."""
        if self._paired:
            rows = pairs(self.index, seed=self._seed, epoch=epoch if self._shuffle else 0)
            if not self._shuffle:
                return rows[np.lexsort(rows.T[::-1])]
            first = rows[:, 0]
        else:
            rows = np.arange(len(self.index))
            first = rows
        if self._chunk is None:
            return rows
        return rows[_shuffled(self._chunk[first], np.random.default_rng((self._seed, epoch, 1)))]

    def _load(self, rows: NDArray[np.int64]) -> Batch:
        index, count = self.index, len(rows)
        image, quality, valid = (pool.take()[:count] for pool in (self._images, self._qualities, self._valids))
        pixels = self.reader.read(index, rows, ChipBuffers(image.numpy(), quality.numpy()))
        # NumPy, here and below: torch would start a pool of threads for this thread
        np.bitwise_and(pixels.quality, np.uint8(UNCLEAR), out=pixels.quality)
        np.equal(pixels.quality, 0, out=valid.numpy())
        chips = rows[:, 0] if self._paired else rows
        left, _, _, top = self._corners[index.tile[chips]].T
        gsd = self.reader.collection.grid.resolution
        x = left + (index.col[chips] + index.size / 2) * gsd
        y = top - (index.row[chips] + index.size / 2) * gsd
        seconds = index.time[rows].astype("datetime64[s]").astype(np.int64)
        batch = {
            "image": image,
            "valid": valid,
            "time": torch.from_numpy(seconds),
            "xy": torch.from_numpy(np.stack([x, y], axis=1).astype(np.float32)),
            "gsd": torch.full((count,), gsd, dtype=torch.float32),
            "wavelengths": self._wavelengths,
        }
        if self._labels is not None:
            mask = self._labels.read(index, chips)
            seen = valid.numpy().all(axis=1) if self._paired else valid.numpy()
            mask[~seen] = NO_LABEL
            batch["mask"] = torch.from_numpy(mask)
        return batch


def _shuffled(chunk: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
    """A random order in which up to :data:`NEIGHBOURS` chips of a chunk follow one another."""
    order = np.lexsort((rng.random(len(chunk)), chunk))
    ordered = chunk[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    place = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)]))
    group = np.cumsum(place % NEIGHBOURS == 0) - 1
    key = rng.permutation(group[-1] + 1 if len(group) else 0)[group]
    return order[np.argsort(key, kind="stable")]
