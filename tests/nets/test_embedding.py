"""Bands by wavelength and radar by polarisation: parity with DOFA, and what it must not confuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from geossl.bands import Band, Sensor, Statistics, sensor
from geossl.errors import SettingsError
from geossl.nets.card import Card
from geossl.nets.embedding import Spectrum, WavelengthEmbedding
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import load_encoder, save_encoder

S2 = sensor("sentinel-2-l2a")
LANDSAT = sensor("landsat-8-l2")
RADAR = sensor("sentinel-1-rtc").bands
SETTINGS = EncoderSettings(name="vit-tiny", patch=8, image=32, embedding="wavelengths")


def encoder(bands: tuple[Band, ...] = S2.bands, settings: EncoderSettings = SETTINGS) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(settings, bands).eval()


def pooled(of: Encoder, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> Tensor:
    with torch.inference_mode():
        return of(image, wavelengths).pooled


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("training", [True, False])
def test_tokens_are_those_of_torchgeos_dofa(patch: int, training: bool) -> None:
    from torchgeo.models.dofa import DOFAEmbedding

    torch.manual_seed(1)
    theirs = DOFAEmbedding(128, kernel_size=patch, embed_dim=96).train(training)
    for parameter in theirs.parameters():  # biases all alike would hide a mix-up
        nn.init.normal_(parameter, std=0.2)
    ours = WavelengthEmbedding(Spectrum.of(S2.bands), patch, 64, 96, dofa=True).train(training)
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert (set(missing), unexpected) == ({"polarisation", "orbit"}, [])
    image = torch.randn(2, 12, 64, 96)
    wavelengths = torch.tensor(S2.wavelengths, dtype=torch.float32)
    with torch.no_grad():
        want, _ = theirs(image, wavelengths)
        assert want.std() > 0.1
        torch.testing.assert_close(ours(image).flatten(1, 2), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours(image, wavelengths).flatten(1, 2), want, atol=1e-5, rtol=1e-5)


def test_half_precision_does_not_blur_wavelengths() -> None:
    embedding = WavelengthEmbedding(Spectrum.of(S2.bands), 8, 32, 96)
    want = embedding.kernels()[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embedding.kernels()[0], want)


@pytest.mark.parametrize(("embedding", "unseen"), [("wavelengths", 0), ("dofa", 1)])
def test_every_pixel_is_seen_but_for_dofas_last_row_and_column(embedding: str, unseen: int) -> None:
    image = torch.randn(1, 12, 32, 32, requires_grad=True)
    encoder(settings=SETTINGS.model_copy(update={"embedding": embedding}))(image).pooled.square().sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    assert bool(seen[: 32 - unseen, : 32 - unseen].all())
    assert int(seen.sum()) == (32 - unseen) ** 2


def test_one_encoder_takes_other_sensors_and_some_of_its_bands() -> None:
    net = encoder()
    landsat = encoder(LANDSAT.bands)
    landsat.load_state_dict(net.state_dict())  # the bands are no part of the weights
    image = torch.randn(2, 7, 32, 32)
    got = pooled(net, image, torch.tensor(LANDSAT.wavelengths, dtype=torch.float32))
    torch.testing.assert_close(got, pooled(landsat, image))
    few = S2.subset(("B04", "B8A"))
    assert pooled(net, image[:, :2], Spectrum.of(few.bands)).shape == got.shape
    assert not torch.allclose(got, pooled(net, image, torch.tensor(S2.wavelengths[:7], dtype=torch.float32)))


@given(st.permutations(range(4)))
def test_the_order_of_bands_means_nothing(order: list[int]) -> None:
    bands = (*S2.subset(("B02", "B08", "B12")).bands, RADAR[0])
    embedding = WavelengthEmbedding(Spectrum.of(bands), 4, 16, 32)
    image = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        mixed = embedding(image[:, order], Spectrum.of([bands[i] for i in order]))
        torch.testing.assert_close(mixed, embedding(image), atol=1e-5, rtol=1e-5)


def test_bands_begin_as_near_as_their_wavelengths() -> None:
    nanometres = torch.tensor([664.6, 665.0, 667.0, 680.0, 2200.0])
    with torch.no_grad():
        first, *others = encoder().backbone.patch_embed.kernels(nanometres / 1000)[0].unbind(1)
    distances = [float((first - other).norm() / first.norm()) for other in others]
    assert distances == sorted(distances)
    assert distances[0] < 0.2 * distances[-1]


@pytest.mark.parametrize(("name", "patch"), [("vit-tiny", 4), ("vit-tiny", 16), ("vit-small", 8)])
def test_tokens_begin_as_strong_as_from_a_convolution(name: str, patch: int) -> None:
    nine = S2.bands[:9]
    image = torch.randn(2, 9, 32, 32)
    strengths = []
    for embedding in ("bands", "wavelengths"):
        net = encoder(nine, EncoderSettings(name=name, patch=patch, image=32, embedding=embedding))
        with torch.no_grad():
            strengths.append(float(net.backbone.patch_embed(image).std()))
    assert strengths[1] == pytest.approx(strengths[0], rel=0.35)


def test_radar_is_told_apart_by_polarisation_and_orbit() -> None:
    names = ("VV", "vh", "HH", "HV", "VV_ascending", "VV_descending", "VV-asc")
    kernels = encoder().backbone.patch_embed.kernels(Spectrum.of([Band(name, None, 10) for name in names]))[0]
    distances = torch.cdist(kernels.transpose(0, 1).flatten(1), kernels.transpose(0, 1).flatten(1))
    assert distances[4, 6] == 0  # the same band, written otherwise
    distances[4, 6] = distances[6, 4] = 1
    assert distances.add(torch.eye(7)).min() > 0.01


def test_a_wavelength_given_to_radar_is_not_pretended_to_be_light() -> None:
    c_band = [dataclasses.replace(band, wavelength=55_465.0) for band in RADAR]
    for mine, plain in zip(Spectrum.of(c_band), Spectrum.of(RADAR), strict=True):
        torch.testing.assert_close(mine, plain, equal_nan=True)


def test_radar_that_is_added_and_silent_changes_nothing() -> None:
    net = encoder()
    both = encoder((RADAR[0], *S2.bands, RADAR[1]))
    both.load_state_dict(net.state_dict())
    image = torch.randn(2, 12, 32, 32)
    silent = torch.zeros(2, 1, 32, 32)
    want = pooled(net, image)
    torch.testing.assert_close(pooled(both, torch.cat([silent, image, silent], 1)), want, atol=1e-5, rtol=1e-5)
    loud = torch.cat([silent + 1, image, silent], 1)
    assert (pooled(both, loud) - want).abs().max() > 1e-3


def test_radar_learns() -> None:
    net = build_encoder(SETTINGS, (*S2.bands[:2], *RADAR))
    net(torch.randn(2, 4, 32, 32)).pooled.square().sum().backward()
    gradient = net.backbone.patch_embed.polarisation.grad
    assert gradient is not None
    assert (gradient.abs().sum(1) > 0).tolist() == [True, True, False, False]


def test_what_is_neither_light_nor_radar_is_refused_with_a_remedy() -> None:
    with pytest.raises(SettingsError, match=r"'NDVI' has no wavelength(.|\n)*embedding: bands"):
        build_encoder(SETTINGS, (*S2.bands, Band("NDVI", None, 10)))
    with pytest.raises(SettingsError, match=r"Spectrum\.of"):
        encoder()(torch.zeros(1, 2, 32, 32), torch.tensor([0.5, float("nan")]))
    with pytest.raises(SettingsError, match="not for a number"):
        build_encoder(SETTINGS, 12)
    with pytest.raises(ValueError, match="for vit-"):
        EncoderSettings(name="resnet18", embedding="wavelengths")


def test_the_encoder_file_remembers_its_bands(tmp_path: Path) -> None:
    both = Sensor("s1-s2", (*S2.bands[:3], *RADAR), S2.radiometry)
    net = encoder(both.bands)
    statistics = Statistics((9,) * 5, *[(1.0,) * 5] * 6)
    save_encoder(tmp_path, net, Card(SETTINGS, both, statistics, method="simclr"))
    image = torch.randn(1, 5, 32, 32)
    torch.testing.assert_close(pooled(load_encoder(tmp_path)[0], image), pooled(net, image))
