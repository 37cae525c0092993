"""Chips as a Lightning data module: any task that takes torchgeo's batches trains on the cube."""

from __future__ import annotations

import lightning
from torch import Tensor

from geossl.augment import Normalize
from geossl.chips.cache import ChunkCache
from geossl.chips.course import Batch
from geossl.chips.index import build_index
from geossl.chips.labels import LabelLayer
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.chips.split import TEST, TRAIN, VAL, Split
from geossl.cube.collection import Collection, Labels
from geossl.errors import StoreError


class ChipDataModule(lightning.LightningDataModule):
    """Loaders for training, validation and test, and normalisation on the device.

    Parameters
    ----------
    collection:
        Imagery with statistics.
    size:
        Side of the chips in pixels.
    batch_size:
        Chips (or pairs) a batch on each rank.
    split:
        Keeps the subsets apart. With labels, chips may reach over into other ground, but only labels
        of their own subset are shown; without, chips lie wholly in ground of their subset.
    inductive:
        Whether training without labels keeps off the ground of validation and test; if not, it sees
        all ground.
    labels:
        Adds ``mask``; only chips with a label that may be seen are used.
    paired:
        Pairs of two steps of one place.
    min_clear:
        Least clear share of a chip.
    seed:
        Decides the order of training.
    cache, threads:
        See :class:`~geossl.chips.reader.ChipReader`.
    """

    def __init__(
        self,
        collection: Collection,
        size: int,
        batch_size: int,
        *,
        split: Split,
        inductive: bool = True,
        labels: Labels | None = None,
        paired: bool = False,
        min_clear: float = 0.5,
        seed: int = 0,
        cache: ChunkCache | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if collection.statistics is None:
            raise StoreError(
                f"collection {collection.name} has no statistics to normalise with", "compute them after ingesting"
            )
        self.normalize = Normalize.from_statistics(collection.statistics)
        self.reader = ChipReader(collection, cache, threads)
        self.size = size
        self.batch_size = batch_size
        self.split = split
        self.inductive = inductive
        self.labels = labels
        self.paired = paired
        self.min_clear = min_clear
        self.seed = seed

    def train_dataloader(self) -> ChipLoader:
        return self._loader(TRAIN, shuffle=True)

    def val_dataloader(self) -> ChipLoader:
        return self._loader(VAL, shuffle=False)

    def test_dataloader(self) -> ChipLoader:
        return self._loader(TEST, shuffle=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's signature
        """Stored numbers → normalised float32 ``image``; ``mask`` → int64, as losses want it."""
        normalize = self.normalize.to(batch["image"].device)
        ready: dict[str, Tensor] = batch | {"image": normalize(batch["image"], batch["valid"])}
        if "mask" in batch:
            ready["mask"] = batch["mask"].long()
        return ready

    def _loader(self, subset: int, *, shuffle: bool) -> ChipLoader:
        everywhere = subset == TRAIN and not self.inductive and self.labels is None
        index = build_index(
            self.reader.collection,
            self.size,
            min_clear=self.min_clear,
            split=None if everywhere else self.split,
            subsets=(subset,),
            partly=self.labels is not None,
        )
        index = index.select(self.reader.clear(index) >= self.min_clear)
        layer = None
        if self.labels is not None:
            layer = LabelLayer(self.labels, self.split, (subset,))
            index = index.select(layer.labelled(index))
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ChipLoader(
            self.reader,
            index,
            self.batch_size,
            paired=self.paired,
            labels=layer,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            world=world,
        )
