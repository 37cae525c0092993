"""Several collections as one pool: other regions, cubes and sensors, each with its share of the batches.

A batch holds chips of one member, since images of different bands do not stack; on all ranks of the
same one. How many batches of an epoch come from which member is fixed by the weights, their order is
drawn from the seed, and each member goes through its own chips epoch by epoch, however long the pool's
epochs are: a small one is seen more often, none is cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, override

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.chips.course import Batch, Course
from geossl.chips.loader import ChipLoader
from geossl.errors import SettingsError


class PoolLoader(Course):
    """Batches of several loaders, each with ``member`` () int64: which of them it is from.

    Parameters
    ----------
    members:
        Of the same rank and number of ranks.
    weights:
        Share of the batches for each member; they need not add up to 1.
    seed:
        Decides the order.
    """

    def __init__(self, members: Sequence[ChipLoader], weights: Sequence[float], *, seed: int = 0) -> None:
        super().__init__()
        self.members = members
        self._weights = np.array(weights, np.float64)
        self._seed = seed
        self._deal()

    def _deal(self) -> None:
        """Decide how many batches of an epoch, which has as many as all members' own together, are whose."""
        self._orders.cache_clear()
        total = sum(len(member) for member in self.members)
        exact = total * self._weights / self._weights.sum()
        self._counts = np.floor(exact).astype(np.int64)
        most_cut = np.argsort(self._counts - exact, kind="stable")
        self._counts[most_cut[: total - self._counts.sum()]] += 1
        if not self._counts.all():
            first = self.members[int(np.argmin(self._counts))].reader.collection.name
            raise SettingsError(
                f"with its weight, collection {first} gets none of the pool's {total} batches an epoch",
                "raise its weight, or leave it out",
            )

    @override
    def __len__(self) -> int:
        return int(self._counts.sum())

    @override
    def load(self, epoch: int, number: int) -> Batch:
        order = self.order(epoch)
        member = int(order[number])
        done = epoch * int(self._counts[member]) + int((order[:number] == member).sum())
        own = self.members[member]
        return own.load(*divmod(done, len(own))) | {"member": torch.tensor(member)}

    @override
    def _order(self, epoch: int) -> NDArray[np.int64]:
        """(N,) which member each batch of an epoch is from, the same on every rank."""
        batches = np.repeat(np.arange(len(self.members)), self._counts)
        return np.random.default_rng((self._seed, epoch)).permutation(batches)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"members": [member.state_dict() for member in self.members]}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken, be it with another number of ranks.

        Raises
        ------
        SettingsError
            The pool had other members, or their batches cannot be shared out to this many ranks.
        """
        if len(state["members"]) != len(self.members):
            raise SettingsError(
                f"the pool has {len(self.members)} members and had {len(state['members'])} before",
                "go on with the same ones, or begin anew",
            )
        for member, own in zip(self.members, state["members"], strict=True):
            member.load_state_dict(own)
        self._deal()
        super().load_state_dict(state)
