"""Going on with other bands and statistics: what was known stays, what is new is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geossl.augment import Normalize
from geossl.bands import Band, Radiometry, Sensor, Statistics, sensor
from geossl.errors import RadiometryError, SettingsError
from geossl.nets.adapt import architecture_of, start
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import save_encoder

S2 = sensor("sentinel-2-l2a").subset(("B02", "B03", "B04", "B05", "B08", "B8A", "B11", "B12"))
RADAR = sensor("sentinel-1-rtc").bands
BOTH = Sensor("s1-s2", (*S2.bands, *RADAR), S2.radiometry)
WAVES = (0.443, 0.49, 0.531, 0.565, 0.61, 0.665, 0.705, 0.865)
EIGHT = Sensor("invented-8", tuple(Band(f"c{i}", w, 3) for i, w in enumerate(WAVES)), S2.radiometry)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet-tiny"},
    "resnet": {"name": "resnet18"},
    "vit": {"name": "vit-tiny", "patch": 8},
    "wavelengths": {"name": "vit-tiny", "patch": 8, "embedding": "wavelengths"},
}


def numbers(of: Sensor, mean: float = 1500.0, std: float = 700.0) -> Statistics:
    count = len(of.bands)
    means, stds = (tuple(v * (1 + i / 20) for i in range(count)) for v in (mean, std))
    return Statistics((9,) * count, means, stds, *[(0.0,) * count] * 4)


@pytest.fixture
def original(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Encoder, Path, EncoderSettings]:
    """A Sentinel-2 encoder, its folder, and its settings, of the network that a test names."""
    settings = EncoderSettings(**NETWORKS[request.param], image=None)
    torch.manual_seed(1)
    placed = architecture_of(settings, None, chip=32)
    net = build_encoder(placed, S2.bands)
    net.train()
    net(1 + 2 * torch.randn(4, 8, 32, 32))  # moves batch norm's running statistics
    save_encoder(tmp_path / "original", net.eval(), Card(placed, S2, numbers(S2), method="simclr"))
    return net, tmp_path / "original", settings


def go_on(
    folder: Path, settings: EncoderSettings, of: Sensor, stats: Statistics, **init: Any
) -> tuple[Encoder, dict[str, Any]]:
    chosen = InitSettings(encoder=folder, **init)
    source = load_source(chosen)
    torch.manual_seed(9)
    net = build_encoder(architecture_of(settings, source, chip=32), of.bands)
    return net.eval(), start(net, source, chosen, of, stats)


def features(net: Encoder, image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = net.eval()(image)
        return [*found.maps, found.pooled]


def assert_same(ours: Encoder, image: Tensor, theirs: Encoder, other: Tensor) -> None:
    for mine, want in zip(features(ours, image), features(theirs, other), strict=True):
        torch.testing.assert_close(mine, want, **TOLERANCE)


@pytest.mark.parametrize("original", NETWORKS, indirect=True)
def test_the_same_sensor_goes_on_exactly(original: Any) -> None:
    net, folder, settings = original
    again, origin = go_on(folder, settings, S2, numbers(S2))
    image = torch.randn(2, 8, 32, 32)
    for mine, want in zip(features(again, image), features(net, image), strict=True):
        torch.testing.assert_close(mine, want, atol=0, rtol=0)
    assert (origin["parameters_new"], origin["bands_left_out"]) == ([], [])


@pytest.mark.parametrize("original", ["unet", "resnet", "vit"], indirect=True)
def test_sentinel_1_is_added_from_zero(original: Any) -> None:
    net, folder, settings = original
    both, origin = go_on(folder, settings, BOTH, numbers(BOTH), unmapped="zero")
    image = torch.randn(2, 10, 32, 32)
    assert_same(both, image, net, image[:, :8])
    assert origin["bands"] == {name: name for name in S2.band_names} | {"VV": "zero", "VH": "zero"}
    assert both.state_dict().keys() == net.state_dict().keys()
    image.requires_grad_(True)  # and yet the new bands can learn
    both.train()(image).pooled.square().sum().backward()
    first = next(p for p in both.parameters() if p.ndim == 4)
    assert first.grad is not None
    assert (first.grad[:, 8:].abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("original", ["wavelengths"], indirect=True)
def test_sentinel_1_is_added_by_polarisation(original: Any) -> None:
    net, folder, settings = original
    both, origin = go_on(folder, settings, BOTH, numbers(BOTH))
    image = torch.randn(2, 8, 32, 32)
    assert_same(both, torch.cat([image, torch.zeros(2, 2, 32, 32)], dim=1), net, image)
    assert origin["bands"]["B04"] == "by wavelength"
    assert origin["bands"]["VV"] == "new, by polarisation"
    with pytest.raises(SettingsError, match=r"leave init\.bands"):
        go_on(folder, settings, BOTH, numbers(BOTH), unmapped="zero")


@pytest.mark.parametrize("original", ["unet", "resnet", "vit"], indirect=True)
def test_an_invented_sensor_starts_from_what_is_nearest_or_named(original: Any) -> None:
    net, folder, settings = original
    bands = {"c0": "B02", "c5": "red", "c6": None}
    eight, origin = go_on(folder, settings, EIGHT, numbers(EIGHT), bands=bands, unmapped="nearest")
    assert origin["bands"] == {
        "c0": "B02",
        "c1": "B02, the nearest",
        "c2": "B03, the nearest",
        "c3": "B03, the nearest",
        "c4": "B03, the nearest",
        "c5": "B04",
        "c6": "zero",
        "c7": "B8A, the nearest",
    }
    assert origin["bands_left_out"] == ["B05", "B08", "B11", "B12"]
    # with the doubles zeroed (0 is a band's mean), it is the original on the bands that it has
    silent = numbers(EIGHT)
    mean, std = list(silent.mean), list(silent.std)
    for ours, theirs in ((0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (7, 5)):
        mean[ours], std[ours] = numbers(S2).mean[theirs], numbers(S2).std[theirs]
    alike = dataclasses.replace(silent, mean=tuple(mean), std=tuple(std))
    eight, _ = go_on(folder, settings, EIGHT, alike, bands=bands, unmapped="nearest")
    image, other = torch.zeros(2, 8, 32, 32), torch.zeros(2, 8, 32, 32)
    for ours, theirs in ((0, 0), (3, 1), (5, 2), (7, 5)):
        image[:, ours] = other[:, theirs] = torch.randn(2, 32, 32)
    assert_same(eight, image, net, other)


@pytest.mark.parametrize("original", ["vit"], indirect=True)
def test_one_encoder_goes_on_through_three_sensors(original: Any, tmp_path: Path) -> None:
    net, folder, settings = original
    both, _ = go_on(folder, settings, BOTH, numbers(BOTH), unmapped="zero")
    save_encoder(tmp_path / "both", both, Card(both.settings, BOTH, numbers(BOTH), method="simclr"))
    named = dict(zip(EIGHT.band_names, S2.band_names, strict=True))
    stats = numbers(S2)
    eight, origin = go_on(tmp_path / "both", settings, EIGHT, stats, bands=named)
    image = torch.randn(2, 8, 32, 32)
    assert_same(eight, image, net, image)
    assert origin["bands_left_out"] == ["VV", "VH"]


@pytest.mark.parametrize("original", ["unet", "resnet", "vit"], indirect=True)
def test_stored_numbers_mean_the_same_under_other_statistics_and_units(original: Any) -> None:
    net, folder, settings = original
    # the same reflectance, stored as Landsat stores it, with statistics of another place
    other = Sensor("s2-otherwise", S2.bands, Radiometry("uint16", 2.75e-5, -0.2, 0, "reflectance"))
    stats = numbers(other, mean=11000, std=1900)
    again, origin = go_on(folder, settings, other, stats)
    assert origin["normalization"].endswith("folded into the first layer")
    side = 160 if net.settings.name.startswith("resnet") else 32
    reflectance = 0.1 + 0.1 * torch.rand(1, 8, side, side, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, side, side, dtype=torch.bool)
    mine = Normalize.from_statistics(stats)((reflectance + 0.2) / 2.75e-5, valid)
    want = Normalize.from_statistics(numbers(S2))(reflectance / 1e-4, valid)
    if net.settings.name.startswith("vit"):
        assert_same(again, mine, net, want)
        return
    # a padded convolution pads with the band's mean, which is another one now: the rim differs
    ours, theirs = features(again, mine)[0], features(net, want)[0]
    torch.testing.assert_close(ours[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], **TOLERANCE)


@pytest.mark.parametrize("original", ["unet"], indirect=True)
def test_numbers_without_a_common_unit_keep_their_own_statistics(original: Any) -> None:
    net, folder, settings = original
    raw = Sensor("raw", S2.bands, Radiometry("uint8"))
    again, origin = go_on(folder, settings, raw, numbers(raw, 90, 20))
    assert origin["normalization"] == "own statistics (its own is in reflectance)"
    image = torch.randn(2, 8, 32, 32)
    assert_same(again, image, net, image)


@pytest.mark.parametrize("original", ["unet"], indirect=True)
def test_a_mismatch_without_a_rule_names_both_sides(original: Any) -> None:
    _, folder, settings = original
    name = load_source(InitSettings(encoder=folder)).name
    with pytest.raises(
        SettingsError, match=rf"VV, VH of the sensor s1-s2 are none of {name}, whose bands are B02, B03"
    ):
        go_on(folder, settings, BOTH, numbers(BOTH))
    with pytest.raises(SettingsError, match=r"VV has no wavelength(.|\n)*VV: null"):
        go_on(folder, settings, BOTH, numbers(BOTH), unmapped="nearest")
    with pytest.raises(SettingsError, match="c0 is to start from B99"):
        go_on(folder, settings, EIGHT, numbers(EIGHT), bands={"c0": "B99"}, unmapped="zero")
    with pytest.raises(RadiometryError, match="no band 'c9'"):
        go_on(folder, settings, EIGHT, numbers(EIGHT), bands={"c9": "B02"}, unmapped="zero")


@pytest.mark.parametrize("original", ["unet"], indirect=True)
def test_one_name_for_two_wavelengths_is_a_mismatch(original: Any) -> None:
    _, folder, settings = original
    far = dataclasses.replace(S2.band("B05"), wavelength=0.865)  # as Landsat's B5
    other = Sensor("other", (S2.band("B02"), far), S2.radiometry)
    with pytest.raises(SettingsError, match="bands B05 of"):
        go_on(folder, settings, other, numbers(other))
    _, origin = go_on(folder, settings, other, numbers(other), unmapped="nearest")
    assert origin["bands"] == {"B02": "B02", "B05": "B8A, the nearest"}


def test_the_kernels_of_the_other_embedding_are_refused(tmp_path: Path) -> None:
    settings = EncoderSettings(**NETWORKS["wavelengths"], image=32)
    save_encoder(tmp_path, build_encoder(settings, S2.bands), Card(settings, S2, numbers(S2), method="simclr"))
    with pytest.raises(SettingsError, match="embedding: bands ≠ wavelengths"):
        go_on(tmp_path, EncoderSettings(**NETWORKS["vit"]), S2, numbers(S2))
