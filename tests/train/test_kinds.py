"""A training on batches of several sensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geossl.bands import Band, Radiometry, Sensor, Statistics
from geossl.errors import SettingsError, TrainingError
from geossl.nets.card import Card
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.train.kinds import Kind, Kinds
from geossl.train.module import split
from geossl.train.pretrain import pretrain

from .synthetic import SENSOR, STATISTICS, Places, settings
from .test_resume import at, interrupt, require_same

RADAR = Sensor("radar", (Band("VV", None, 10), Band("VH", None, 10)), Radiometry("int16", 0.01, unit="dB"))
POOL = [Kind(SENSOR, STATISTICS), Kind(RADAR, Statistics((9,) * 2, (-900.0,) * 2, (300.0,) * 2, *[(0.0,) * 2] * 4))]
VIT = {"name": "vit-tiny", "patch": 8, "embedding": "wavelengths"}


class Alternating(Places):
    """Every other batch is of radar."""

    def _batch(self, generator: torch.Generator) -> dict[str, Any]:
        batch = super()._batch(generator)
        if member := self.number % 2:
            batch["image"] = ((batch["image"][:, :2] - 1500) / 3 - 900).to(torch.int16)
        return batch | {"member": torch.tensor(member)}


class Paired(Alternating):
    """Every other batch is of pairs: optical, and radar of the same places."""

    def _batch(self, generator: torch.Generator) -> dict[str, Any]:
        batch = Places._batch(self, generator)
        if member := self.number % 2:
            radar = ((batch["image"][:, :2] - 1500) / 3 - 900).to(torch.int16)
            batch["beside"] = {"image": radar, "valid": batch["valid"].roll(1, 2)}
        return batch | {"member": torch.tensor(member)}


def run(
    folder: Path,
    pool: list[Kind] = POOL,
    progress: Progress = silent,
    loader: type[Places] = Alternating,
    **changes: Any,
) -> Card:
    return pretrain(
        settings(**{"encoder": VIT, "epochs": 2} | changes),
        loader(),
        sensor=SENSOR,
        statistics=STATISTICS,
        snapshot=None,
        folder=folder,
        pool=pool,
        progress=progress,
    )


@contextmanager
def given_to_encoders() -> Iterator[list[tuple[Tensor, Spectrum]]]:
    """Images and spectra that any encoder is given within the block."""
    seen: list[tuple[Tensor, Spectrum]] = []

    def record(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Encoder):
            seen.append((given[0].detach(), given[1]))

    handle = nn.modules.module.register_module_forward_pre_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


def test_every_batch_is_normalised_and_embedded_as_its_own_sensors(tmp_path: Path) -> None:
    with given_to_encoders() as seen:
        card = run(tmp_path)
    assert [image.shape[1] for image, _ in seen] == [3, 2, 3, 2, 3] * 2
    for image, spectrum in seen:
        sensor = POOL[image.shape[1] == 2].sensor
        torch.testing.assert_close(spectrum, Spectrum.of(sensor.bands), equal_nan=True)
        assert image.mean().abs() < 0.6
        assert 0.4 < image.std() < 1.6
    assert (card.sensor, card.statistics) == (SENSOR, STATISTICS)
    named = [(Sensor.from_dict(one["sensor"]), Statistics.from_dict(one["statistics"])) for one in card.origin["pool"]]
    assert named == [(kind.sensor, kind.statistics) for kind in POOL]


@pytest.mark.parametrize("changes", [{}, {"method": {"name": "mocov2", "queue": 16}, "accumulate": 2}])
def test_interrupted_and_resumed(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path / "undisturbed", **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", progress=at(4, interrupt), **changes)
    run(tmp_path / "cut", **changes)
    require_same(tmp_path / "cut", tmp_path / "undisturbed")


def test_parts_of_a_batch_are_all_of_its_sensor() -> None:
    kinds = Kinds([POOL[0], POOL[1], POOL[0]])
    image, valid = torch.zeros(4, 3, 8, 8, dtype=torch.int16), torch.ones(4, 8, 8, dtype=torch.bool)
    parts = split(kinds({"image": image, "valid": valid, "member": 2}), 2)
    assert [(part["kind"], part["spectrum"].wavelengths.tolist()) for part in parts] == [
        (0, pytest.approx(SENSOR.wavelengths))
    ] * 2


PAIRS = [POOL[0], dataclasses.replace(POOL[0], beside=POOL[1])]


def test_each_image_of_a_pair_is_normalised_and_embedded_as_its_own_sensors(tmp_path: Path) -> None:
    with given_to_encoders() as seen:
        card = run(tmp_path, PAIRS, loader=Paired)
    # both views of one date in one pass; each of a pair by itself
    assert [tuple(image.shape[:2]) for image, _ in seen] == [
        (16, 3),
        (8, 3),
        (8, 2),
        (16, 3),
        (8, 3),
        (8, 2),
        (16, 3),
    ] * 2
    for image, spectrum in seen:
        torch.testing.assert_close(spectrum, Spectrum.of(POOL[image.shape[1] == 2].sensor.bands), equal_nan=True)
        assert image.mean().abs() < 0.6
        assert 0.4 < image.std() < 1.6
    assert card.origin["pool"][1]["beside"]["sensor"]["name"] == "radar"
    assert "beside" not in card.origin["pool"][0]


@pytest.mark.parametrize("changes", [{}, {"method": {"name": "mocov2", "queue": 16}, "accumulate": 2}])
def test_pairs_interrupted_and_resumed(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path / "undisturbed", PAIRS, loader=Paired, **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", PAIRS, at(4, interrupt), Paired, **changes)
    run(tmp_path / "cut", PAIRS, loader=Paired, **changes)
    require_same(tmp_path / "cut", tmp_path / "undisturbed")


def test_pairs_of_one_kind_are_trained_on_by_any_encoder(tmp_path: Path) -> None:
    class Twice(Places):
        def _batch(self, generator: torch.Generator) -> dict[str, Any]:
            batch = super()._batch(generator)
            return batch | {"beside": dict(batch)}

    changes = {"encoder": {"name": "unet-tiny"}}
    pairs, single = (
        run(tmp_path / "pairs", [], loader=Twice, **changes),
        run(tmp_path / "one", [], loader=Places, **changes),
    )
    assert pairs.weights == single.weights  # two views of one image, whoever brings it


def test_parts_of_a_batch_of_pairs_are_pairs() -> None:
    kinds = Kinds(PAIRS)
    image, valid = torch.arange(4 * 3 * 64).view(4, 3, 8, 8).to(torch.int16), torch.ones(4, 8, 8, dtype=torch.bool)
    beside = {"image": image[:, :2], "valid": valid}
    parts = split(kinds({"image": image, "valid": valid, "member": 1, "beside": beside}), 2)
    assert [(part["kind"], part["beside"]["kind"]) for part in parts] == [(0, 1)] * 2
    assert [len(part["beside"]["spectrum"].wavelengths) for part in parts] == [2, 2]
    together = torch.cat([part["beside"]["image"] for part in parts])
    torch.testing.assert_close(together, (image[:, :2] + 900) / 300)


def test_what_does_not_learn_from_several_sensors_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="kernels for the bands of one sensor, and the pool has three and radar"):
        run(tmp_path, encoder={"name": "vit-tiny", "patch": 8})
    with pytest.raises(SettingsError, match="mae predicts the bands of one sensor, and the pool has three and radar"):
        run(tmp_path, method={"name": "mae"})
    with pytest.raises(SettingsError, match=r"init\.lora learns new kernels for the bands of one sensor"):
        run(tmp_path, init={"encoder": str(tmp_path), "lora": 4})
    other = dataclasses.replace(RADAR, bands=(Band("index", None, 10), RADAR.bands[1]))
    with pytest.raises(SettingsError, match="band 'index' has no wavelength"):
        run(tmp_path, [POOL[0], Kind(other, POOL[1].statistics)])
    with pytest.raises(TrainingError, match=r"the chips have shape \(8, 3, 16, 16\).* 1 date\(s\) of 2 bands"):
        run(tmp_path, [POOL[1], POOL[0]])
    with pytest.raises(TrainingError, match=r"the chips have shape \(8, 2, 16, 16\).* 1 date\(s\) of 3 bands"):
        run(tmp_path, [POOL[0], dataclasses.replace(POOL[0], beside=POOL[0]), POOL[1]], loader=Paired)
    with pytest.raises(SettingsError, match="kernels for the bands of one sensor, and the pool has three and radar"):
        run(tmp_path, PAIRS, loader=Paired, encoder={"name": "vit-tiny", "patch": 8})
