"""Chips of a torchgeo dataset, or any other of PyTorch's kind, as batches for our methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, override

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.chips.course import Batch, Course, dealt, shared_out
from geossl.errors import SettingsError, TrainingError


class Dataset(Protocol):
    """What torchgeo's datasets have in common."""

    def __getitem__(self, key: Any, /) -> dict[str, Any]:
        """A sample with ``image`` (C, H, W), or (T, C, H, W) for several dates, and whatever else."""


class DatasetLoader(Course):
    """Batches of ``image`` (B, [T,] C, H, W) as the dataset has it and ``valid`` (B, [T,] H, W) bool.

    Shuffled by seed and epoch, shared out to ranks and resumable like the chips of a cube.

    Parameters
    ----------
    keys:
        What the dataset is asked for, one sample each: ``range(len(dataset))``, or the queries of a
        sampler (``list(GridGeoSampler(dataset, size))``).
    batch_size:
        Samples a batch on this rank.
    nodata:
        Stands for "not seen" in the pixels, beside NaN.
    """

    def __init__(
        self,
        dataset: Dataset,
        keys: Sequence[Any],
        batch_size: int,
        *,
        nodata: float | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.keys = keys
        self.batch_size = batch_size
        self._nodata = nodata
        self._seed = seed
        self._rank, self._world = rank, world
        if not len(self):
            raise SettingsError(
                f"{len(keys)} samples do not fill one batch of {batch_size} on {world} process(es)",
                "use smaller batches",
            )

    @override
    def __len__(self) -> int:
        return len(self.keys) // (self.batch_size * self._world)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"together": self.batch_size * self._world}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where ``state`` was taken, be it with another number of ranks.

        Then batches keep the size that they had on all ranks together, and the remaining samples their order.

        Raises
        ------
        SettingsError
            That size cannot be shared out to this many ranks.
        """
        self.batch_size = shared_out(state, self.batch_size, self._world)
        self._orders.cache_clear()
        super().load_state_dict(state)

    @override
    def _order(self, epoch: int) -> NDArray[np.int64]:
        """(N,) positions in ``keys``."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self.keys))
        return dealt(order, len(self), self.batch_size, rank=self._rank, world=self._world)

    @override
    def load(self, epoch: int, number: int) -> Batch:
        chosen = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        images = [self.dataset[self.keys[key]]["image"] for key in chosen]
        if len({image.shape for image in images}) > 1:
            shapes = ", ".join(str(tuple(shape)) for shape in sorted({image.shape for image in images}))
            raise TrainingError(f"the dataset's images differ in shape: {shapes}", "crop them in its transforms")
        image = torch.stack(images)
        return {"image": image, "valid": self._seen(image)}

    def _seen(self, image: Tensor) -> Tensor:
        seen = torch.ones_like(image, dtype=torch.bool)
        if image.is_floating_point():
            seen = image.isfinite()
        if self._nodata is not None:
            seen &= image != self._nodata
        return seen.all(dim=-3)
