"""One encoder through Sentinel-2, Sentinel-1 beside it, and an invented sensor of eight bands, on real patches."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor

from geossl.augment import Normalize
from geossl.bands import Band, Sensor, Statistics, sensor
from geossl.nets.adapt import architecture_of, start
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import load_encoder
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings

S2 = sensor("sentinel-2-l2a").subset(("B02", "B03", "B04", "B08"))
# radar as linear power in steps of 1e-4, since one sensor stores all its numbers alike
BOTH = Sensor("s1-s2", (*S2.bands, *sensor("sentinel-1-rtc").bands), S2.radiometry)
_BLUE, _GREEN, _RED, _NIR = S2.wavelengths
WAVES = (0.46, _BLUE, _GREEN, 0.61, _RED, 0.72, 0.78, _NIR)  # four new ones, and four that Sentinel-2 has
EIGHT = Sensor("invented-8", tuple(Band(f"c{i}", wave, 10) for i, wave in enumerate(WAVES)), S2.radiometry)
SIDE = 64

Stored = NDArray[np.int16]


@pytest.fixture(scope="module")
def patches(shared_data: Path) -> tuple[Stored, Stored]:
    """Sentinel-2 (N, 4, 64, 64) and Sentinel-1 (N, 2, 64, 64) of the same ground, as stored numbers."""
    home = shared_data / "bigearthnet-v2-patches"
    if not home.is_dir():
        pytest.skip(f"no BigEarthNet patches at {home}")
    optical, radar = [], []
    with (home / "index.csv").open(encoding="utf-8", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), 0, None, 3):  # a third of them
            light, echo = home / "s2" / f"{row['patch_id']}.tif", home / "s1" / f"{row['s1_name']}.tif"
            if light.is_file() and echo.is_file():
                optical.append(_read(light))
                radar.append(1e4 * 10 ** (_read(echo) / 10))  # dB
    both = (np.stack(images)[..., :SIDE, :SIDE].clip(0, 32767).round().astype(np.int16) for images in (optical, radar))
    light, echo = both
    assert len(light) == 20
    return light, echo


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


def eight_of(optical: Stored) -> Stored:
    """What the invented sensor would see: the spectrum between the four bands, straight."""
    known = np.array(S2.wavelengths, dtype=float)
    mix = np.stack([np.interp(WAVES, known, row) for row in np.eye(4)])  # (4, 8)
    return np.einsum("nchw,ck->nkhw", optical, mix).round().astype(np.int16)


def statistics(images: Stored) -> Statistics:
    axes, count = (0, 2, 3), images.shape[1]
    means, stds = images.mean(axis=axes), images.std(axis=axes)
    return Statistics((images.size // count,) * count, tuple(means), tuple(stds), *[(0.0,) * count] * 4)


class Batches:
    """Patches in order, ten a batch."""

    def __init__(self, images: Stored) -> None:
        self.images = torch.from_numpy(images)
        self.epoch = self.number = 0

    def __len__(self) -> int:
        return len(self.images) // 10

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.number = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.number < len(self):
            image = self.images[10 * self.number : 10 * (self.number + 1)]
            self.number += 1
            yield {"image": image, "valid": torch.ones(len(image), SIDE, SIDE, dtype=torch.bool)}


def train(folder: Path, network: dict[str, Any], images: Stored, of: Sensor, **init: Any) -> dict[str, Any]:
    """One epoch, from chance or from another encoder; what the card says of its start."""
    plain = {"encoder": network, "epochs": 1, "batch_size": 10, "chip": SIDE, "precision": "32", "threads": 1}
    settings = PretrainSettings.model_validate(plain | ({"init": init} if init else {}))
    numbers = statistics(images)
    card = pretrain(settings, Batches(images), sensor=of, statistics=numbers, snapshot=None, folder=folder)
    return dict(card.origin)


def at_start(folder: Path, network: dict[str, Any], images: Stored, of: Sensor, **init: Any) -> Encoder:
    """The encoder that a training would start with."""
    settings = InitSettings(encoder=folder, **init)
    source = load_source(settings)
    net = build_encoder(architecture_of(EncoderSettings(**network), source, chip=SIDE), of.bands)
    start(net, source, settings, of, statistics(images))
    return net.eval()


def normalized(images: Stored) -> Tensor:
    some = torch.from_numpy(images[:8])
    return Normalize.from_statistics(statistics(images))(some, torch.ones(8, SIDE, SIDE, dtype=torch.bool))


def assert_same(ours: Encoder, image: Tensor, theirs: Encoder, other: Tensor) -> None:
    with torch.inference_mode():
        mine, want = ours(image), theirs(other)
    assert want.pooled.std(dim=0).mean() > 1e-3  # places differ
    for a, b in zip([*mine.maps, mine.pooled], [*want.maps, want.pooled], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        {"name": "vit-tiny", "patch": 16},
        pytest.param({"name": "resnet18"}, marks=pytest.mark.slow),
        pytest.param({"name": "vit-tiny", "patch": 16, "embedding": "wavelengths"}, marks=pytest.mark.slow),
    ],
    ids=["vit", "resnet", "wavelengths"],
)
def test_sentinel_2_then_sentinel_1_beside_it_then_an_invented_sensor(
    tmp_path: Path, patches: tuple[Stored, Stored], network: dict[str, Any]
) -> None:
    by_wavelength = "embedding" in network
    optical, radar = patches
    both, eight = np.concatenate([optical, radar], axis=1), eight_of(optical)
    train(tmp_path / "s2", network, optical, S2)

    rule: dict[str, Any] = {} if by_wavelength else {"unmapped": "zero"}
    first, _ = load_encoder(tmp_path / "s2")
    image = normalized(both)
    image[:, 4:] = 0
    assert_same(at_start(tmp_path / "s2", network, both, BOTH, **rule), image, first, image[:, :4])
    origin = train(tmp_path / "both", network, both, BOTH, encoder=tmp_path / "s2", **rule)
    assert origin["bands"]["VV"] == ("new, by polarisation" if by_wavelength else "zero")

    second, _ = load_encoder(tmp_path / "both")
    assert not torch.equal(features(second, image), features(first, image[:, :4]))  # it went on
    if by_wavelength:
        # its kernels look at one another: with other bands beside them they are others, and none is zero
        train(tmp_path / "eight", network, eight, EIGHT, encoder=tmp_path / "both")
        return
    known = {"c1": "B02", "c2": "B03", "c4": "B04", "c7": "B08"}
    rule = {"bands": known, "unmapped": "zero"}
    image = torch.zeros(8, 8, SIDE, SIDE)
    four = [int(name[1:]) for name in known]
    image[:, four] = normalized(eight)[:, four]
    other = torch.zeros(8, 6, SIDE, SIDE)
    other[:, :4] = image[:, four]
    assert_same(at_start(tmp_path / "both", network, eight, EIGHT, **rule), image, second, other)
    origin = train(tmp_path / "eight", network, eight, EIGHT, encoder=tmp_path / "both", **rule)
    assert [origin["bands"][name] for name in ("c2", "c3", "c4")] == ["B03", "zero", "B04"]
    assert origin["bands_left_out"] == ["VV", "VH"]


def features(net: Encoder, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(image).pooled
