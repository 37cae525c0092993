"""Training on the cube with Lightning: torchgeo's tasks, two ranks, resuming."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geossl.chips.cache import ChunkCache
from geossl.chips.datamodule import ChipDataModule
from geossl.chips.loader import ChipLoader
from geossl.chips.split import Split, SplitSettings
from geossl.cube.collection import Collection, Labels
from geossl.errors import StoreError

# Lightning 2.6 uses what torch 2.15 deprecates
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")

SPLIT = Split(SplitSettings(block=128, buffer=8))

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Recorder(lightning.LightningModule):
    """One weight, and a memory of the batches it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[float, ...]] = []

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.seen.append(tuple(batch["xy"].ravel().tolist() + batch["time"].ravel().tolist()))
        return (self.weight * batch["image"].mean()).square()

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        """Lightning warns of validation data without one."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Keeper(lightning.Callback):
    """A checkpoint after every step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ChunkCache:
    return ChunkCache(tmp_path_factory.mktemp("chunks"))


def test_a_torchgeo_task_trains_and_is_validated(collection: Collection, labels: Labels, cache: ChunkCache) -> None:
    with warnings.catch_warnings():
        # what torchgeo's own dependencies do on import
        warnings.simplefilter("ignore")
        from torchgeo.tasks import SemanticSegmentation

    task = SemanticSegmentation(
        model="unet", backbone="resnet18", in_channels=4, task="multiclass", num_classes=3, ignore_index=255, lr=1e-3
    )
    data = ChipDataModule(collection, 64, 8, split=SPLIT, labels=labels, cache=cache, threads=1)
    trainer = lightning.Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1, **QUIET)
    before = [p.detach().clone() for p in task.parameters()]
    trainer.fit(task, data)
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["val_loss"])
    assert any((a != b).any() for a, b in zip(before, task.parameters(), strict=True))


def test_images_arrive_normalised_and_masks_as_integers(collection: Collection, labels: Labels) -> None:
    data = ChipDataModule(collection, 256, 4, split=SPLIT, labels=labels, min_clear=0.0)
    batch = next(iter(data.train_dataloader()))
    ready = data.on_after_batch_transfer(batch, 0)
    statistics = collection.statistics
    assert statistics is not None
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (statistics.mean, statistics.std))
    valid = batch["valid"].numpy()[:, None]
    expected = np.where(valid, (batch["image"].numpy() - mean) / std, 0)
    np.testing.assert_allclose(ready["image"], expected, atol=1e-4)
    assert ready["mask"].dtype == torch.int64
    torch.testing.assert_close(ready["mask"], batch["mask"].long())


def test_without_statistics_there_is_nothing_to_normalise_with(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collection, "statistics", None)
    with pytest.raises(StoreError, match="collection sentinel-2-l2a has no statistics"):
        ChipDataModule(collection, 64, 4, split=SPLIT)


def test_subsets_see_different_ground_unless_training_is_transductive(collection: Collection) -> None:
    def places(loader: ChipLoader) -> set[tuple[int, int, int]]:
        index = loader.index
        return set(zip(index.tile.tolist(), index.row.tolist(), index.col.tolist(), strict=True))

    split = Split(SplitSettings(block=64, buffer=8))
    data = ChipDataModule(collection, 32, 4, split=split)
    subsets = [places(data.train_dataloader()), places(data.val_dataloader()), places(data.test_dataloader())]
    assert all(subsets)
    together = set().union(*subsets)
    assert len(together) == sum(map(len, subsets))
    everywhere = ChipDataModule(collection, 32, 4, split=split, inductive=False)
    assert places(everywhere.train_dataloader()) == together
    assert places(everywhere.val_dataloader()) == subsets[1]


# in mid epoch, after the last batch of an epoch, after the first of the next
@pytest.mark.parametrize("stop", [2, 6, 7])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(
    collection: Collection, cache: ChunkCache, tmp_path: Path, stop: int
) -> None:
    def data() -> ChipDataModule:
        return ChipDataModule(collection, 256, 4, split=SPLIT, inductive=False, min_clear=0.0, cache=cache, threads=1)

    unbroken, resumed = Recorder(), Recorder()
    lightning.Trainer(max_epochs=3, limit_val_batches=0, callbacks=[Keeper(tmp_path)], **QUIET).fit(unbroken, data())
    assert len(set(unbroken.seen)) == len(unbroken.seen) == 18

    path = tmp_path / f"step={stop}.ckpt"
    trainer = lightning.Trainer(max_epochs=3, limit_val_batches=0, **QUIET)
    trainer.fit(resumed, data(), ckpt_path=path, weights_only=True)
    assert resumed.seen == unbroken.seen[stop:]
    assert torch.equal(unbroken.weight, resumed.weight)


def test_two_ranks_see_disjoint_chips(
    collection: Collection, cache: ChunkCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for rank in (0, 1):
        data = ChipDataModule(collection, 128, 8, split=SPLIT, inductive=False, min_clear=0.0, cache=cache)
        data.trainer = lightning.Trainer(**QUIET)
        monkeypatch.setattr(type(data.trainer), "world_size", 2)
        monkeypatch.setattr(type(data.trainer), "global_rank", rank)
        loader = data.train_dataloader()
        seen.append(
            {tuple(row) for batch in loader for row in torch.cat([batch["xy"], batch["time"][:, None]], 1).tolist()}
        )
    assert len(seen[0]) == len(seen[1]) == len(loader) * 8
    assert not seen[0] & seen[1]
