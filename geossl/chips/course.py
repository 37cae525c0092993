"""The way of a training through its batches: read ahead, epoch after epoch, resumable to the batch.

Whatever hands out batches (chips of a cube, of several, of a dataset) says what batch *n* of epoch *e* is;
this is the rest.
"""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.errors import SettingsError

PREFETCH = 2
"""Batches that are read ahead of the one in use, all at the same time: what a store far away takes to answer for
one batch is not waited for again with the next."""

Batch = dict[str, Any]
"""Tensors by name; under ``beside``, where there are pairs of collections, such a dict of the other's images."""


class Course(ABC):
    """Iterates over an epoch in batches; each new iteration is the next epoch."""

    def __init__(self) -> None:
        self._epoch, self._batch = 0, 0
        self._fresh = True  # nothing of this epoch has been handed out by this object
        # asked for with each batch; the lock, so that the threads that read ahead do not all make the same order
        self._orders = functools.lru_cache(maxsize=2)(self._order)
        self._ordering = threading.Lock()

    @abstractmethod
    def __len__(self) -> int:
        """Batches an epoch on this rank."""

    @abstractmethod
    def _order(self, epoch: int) -> NDArray[np.int64]:
        """What this rank goes through in an epoch."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """What this rank goes through in an epoch, made once an epoch."""
        with self._ordering:
            return self._orders(epoch)

    @abstractmethod
    def load(self, epoch: int, number: int) -> Batch:
        """One batch of an epoch; asked for by several threads at once."""

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of that epoch, or where a loaded state is within it."""
        if epoch != self._epoch or not self._fresh:
            self._epoch, self._batch = epoch, 0
        self._fresh = True

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch that was handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken."""
        self._epoch, self._batch = state["epoch"], state["batch"]
        self._fresh = True

    def __iter__(self) -> Iterator[Batch]:
        if not self._fresh or self._batch >= len(self):
            self._epoch, self._batch = self._epoch + 1, 0
        self._fresh = True
        return self._batches(self._epoch, self._batch)

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        with ThreadPoolExecutor(PREFETCH + 1, "geossl-batch") as ahead:
            waiting: deque[Future[Batch]] = deque()
            try:
                for number in range(first, len(self)):
                    waiting.append(ahead.submit(self.load, epoch, number))
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


def shared_out(state: Mapping[str, Any], batch_size: int, world: int) -> int:
    """Chips a batch on each of so many ranks, to go on where ``state`` was taken by other ones.

    On all ranks together a batch stays as large as it was: ``state["together"]``, by default
    ``batch_size`` on each rank.

    Raises
    ------
    SettingsError
        It cannot be shared out to this many ranks.
    """
    together = state.get("together", batch_size * world)
    each, rest = divmod(together, world)
    if rest:
        raise SettingsError(
            f"batches of {together} chips on all processes together cannot be shared out to {world}",
            f"go on with a number of processes that divides {together}",
        )
    return int(each)


def dealt(order: NDArray[np.int64], batches: int, batch_size: int, *, rank: int, world: int) -> NDArray[np.int64]:
    """A rank's share of an order (N, …): its part of every batch of all ranks together.

    Batch by batch, not rank by rank: neighbours that were kept together stay on one rank.
    """
    rest = order.shape[1:]
    full = order[: batches * batch_size * world]
    return full.reshape(batches, world, batch_size, *rest)[:, rank].reshape(-1, *rest)
