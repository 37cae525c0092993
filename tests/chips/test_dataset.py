"""Our methods on torchgeo's datasets."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geossl.bands import Sensor, Statistics, sensor
from geossl.chips.dataset import DatasetLoader
from geossl.errors import SettingsError, TrainingError
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings

with warnings.catch_warnings():
    # what torchgeo's own dependencies do on import
    warnings.simplefilter("ignore")
    from torchgeo.datasets import EuroSAT

BANDS: Sensor = sensor("sentinel-2-l1c").subset(EuroSAT.all_band_names)


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> EuroSAT:
    """Twenty small images in EuroSAT's folders and format, the first with a stripe of no-data."""
    root = tmp_path_factory.mktemp("eurosat")
    rng = np.random.default_rng(0)
    names = [f"{label}_{n}.tif" for label in ("Forest", "River") for n in range(10)]
    for number, name in enumerate(names):
        image = (1500 + 300 * rng.normal(size=(13, 1, 1)) + 50 * rng.normal(size=(13, 32, 32))).astype(np.uint16)
        if number == 0:
            image[3, :5] = 0
        path = root / EuroSAT.base_dir / name.partition("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint16", "count": 13, "height": 32, "width": 32}
        with rasterio.open(path, "w", crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5e6), **profile) as file:
            file.write(image)
    (root / EuroSAT.split_filenames["train"]).write_text("\n".join(names).replace(".tif", ".jpg"))
    return EuroSAT(root, checksum=False)


def test_a_method_trains_on_torchgeos_eurosat(eurosat: EuroSAT, tmp_path: Path) -> None:
    pixels = torch.stack([eurosat[n]["image"] for n in range(len(eurosat))]).movedim(1, 0).flatten(1)
    mean, std = (tuple(values.tolist()) for values in (pixels.mean(1), pixels.std(1)))
    settings = PretrainSettings.model_validate(
        {"encoder": {"name": "unet-tiny"}, "epochs": 2, "batch_size": 8, "chip": 32, "threads": 1, "precision": "32"}
    )
    card = pretrain(
        settings,
        DatasetLoader(eurosat, range(len(eurosat)), 8, nodata=0),
        sensor=BANDS,
        statistics=Statistics((pixels.shape[1],) * 13, mean, std, *[(0.0,) * 13] * 4),
        snapshot=None,
        folder=tmp_path,
    )
    assert card.sensor == BANDS
    assert (tmp_path / "encoder.safetensors").exists()


def test_batches_hold_the_datasets_own_pixels_and_say_which_were_seen(eurosat: EuroSAT) -> None:
    (batch,) = DatasetLoader(eurosat, range(len(eurosat)), 20, nodata=0)
    images = {eurosat[n]["image"].numpy().tobytes() for n in range(len(eurosat))}
    assert {image.numpy().tobytes() for image in batch["image"]} == images
    assert batch["valid"].shape == (20, 32, 32)
    assert (~batch["valid"]).sum() == 5 * 32
    torch.testing.assert_close(batch["valid"], (batch["image"] != 0).all(dim=1))


def test_ranks_share_an_epoch_and_a_resumed_one_goes_on(eurosat: EuroSAT) -> None:
    def loaders() -> list[DatasetLoader]:
        return [DatasetLoader(eurosat, range(20), 3, seed=4, rank=rank, world=2) for rank in range(2)]

    def seen(batches: Any) -> list[bytes]:
        return [image.numpy().tobytes() for batch in batches for image in batch["image"]]

    whole = loaders()
    epochs = [[seen(loader) for loader in whole] for _ in range(2)]
    assert [len(set(first + second)) for first, second in epochs] == [18, 18]
    assert epochs[0] != epochs[1]
    for rank, loader in enumerate(loaders()):
        loader.load_state_dict({"epoch": 1, "batch": 1})
        assert seen(loader) == epochs[1][rank][3:]


def test_what_cannot_be_batched_is_said(eurosat: EuroSAT) -> None:
    with pytest.raises(SettingsError, match="5 samples do not fill one batch of 8 on 1 process"):
        DatasetLoader(eurosat, range(5), 8)
    uneven = [{"image": torch.zeros(3, 8, 8)}, {"image": torch.zeros(3, 8, 9)}]
    with pytest.raises(TrainingError, match=r"differ in shape: \(3, 8, 8\), \(3, 8, 9\)"):
        list(DatasetLoader(uneven, range(2), 2))
