"""Public weights by torchgeo's names. There is no network here: torchgeo's own models, with random weights, stand in
for what would be downloaded, and everything else is the path that a user takes."""

from __future__ import annotations

import dataclasses
import urllib.error
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchgeo import models
from torchvision.models import WeightsEnum

from geossl.augment import Normalize
from geossl.bands import Sensor, Statistics, sensor
from geossl.errors import SettingsError, StoreError
from geossl.nets import pretrained
from geossl.nets.adapt import architecture_of, start
from geossl.nets.encoder import Encoder, VitEncoder, build_encoder
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings

L1C = sensor("sentinel-2-l1c")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def statistics(mean: list[float], std: list[float]) -> Statistics:
    return Statistics((9,) * len(mean), tuple(mean), tuple(std), *[(0.0,) * len(mean)] * 4)


AS_PUBLISHED = statistics([0.0] * 13, [10000.0] * 13)
OUR_OWN = statistics([900.0 + 150 * i for i in range(13)], [300.0 + 80 * i for i in range(13)])


def lend(monkeypatch: pytest.MonkeyPatch, model: nn.Module, *, without: tuple[str, ...] = ()) -> None:
    """Let every download give these weights."""
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in without}
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)


def stirred(model: nn.Module) -> nn.Module:
    """The model with no parameter or statistic as it is when fresh, so that none can be forgotten unseen."""
    torch.manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            else:
                tensor.add_(0.05 * torch.randn_like(tensor))
    return model.eval()


def begin(
    weights: str, of: Sensor, stats: Statistics, encoder: dict[str, Any], **init: Any
) -> tuple[Encoder, dict[str, Any]]:
    settings = InitSettings(weights=weights, **init)
    source = load_source(settings)
    net = build_encoder(architecture_of(EncoderSettings(**encoder), source, chip=64), of.bands)
    origin = start(net, source, settings, of, stats)
    return net.eval(), origin


def stored(bands: int = 13, side: int = 64) -> tuple[Tensor, Tensor]:
    image = torch.randint(200, 4000, (2, bands, side, side), generator=torch.Generator().manual_seed(5))
    return image.to(torch.int16), torch.ones(2, side, side, dtype=torch.bool)


@pytest.mark.parametrize(("model", "enum"), [("resnet18", "ResNet18"), ("resnet50", "ResNet50")])
def test_a_resnet_gives_torchgeos_features(monkeypatch: pytest.MonkeyPatch, model: str, enum: str) -> None:
    name = f"{enum}_Weights.SENTINEL2_ALL_MOCO"
    lend(monkeypatch, stirred(getattr(models, model)(in_chans=13)))
    theirs = getattr(models, model)(weights=models.get_weight(name), features_only=True).eval()
    net, origin = begin(name, L1C, AS_PUBLISHED, {"name": model})
    image = torch.randn(2, 13, 64, 64)
    with torch.inference_mode():
        for ours, want in zip(net(image).maps, theirs(image), strict=True):
            torch.testing.assert_close(ours, want, **TOLERANCE)
    assert origin["bands"] == {band: band for band in L1C.band_names}
    assert origin["normalization"] == f"that of {name}, folded into the first layer"
    assert origin["parameters_left_out"] == ["fc.weight", "fc.bias"]
    assert origin["bands_left_out"] == origin["parameters_new"] == []


def test_a_vit_gives_torchgeos_features_whatever_our_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch, stirred(models.vit_small_patch16_224(in_chans=13)))
    weights = models.get_weight("ViTSmall16_Weights.SENTINEL2_ALL_DINO")
    theirs = models.vit_small_patch16_224(weights=weights, dynamic_img_size=True, img_size=224).eval()
    image, valid = stored()
    with torch.inference_mode():
        want = theirs.forward_features(image / 10000)  # what their transforms make of it
    for stats in (AS_PUBLISHED, OUR_OWN):
        net, _ = begin(str(weights), L1C, stats, {"name": "vit-small", "patch": 16})
        with torch.inference_mode():
            last = net(Normalize.from_statistics(stats)(image, valid)).maps[-1]
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), want[:, 1:], **TOLERANCE)


def test_dofa_gives_torchgeos_features_for_any_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch, stirred(models.dofa_small_patch16_224()), without=("fc_norm.weight", "fc_norm.bias"))
    # DOFA is published in two larger sizes; this one runs the same code in a tenth of the time
    monkeypatch.setitem(models.DOFABase16_Weights.DOFA_MAE.meta, "model", "dofa_small_patch16_224")
    base = pretrained._ARCHITECTURES["dofa_base_patch16_224"]
    small = base.model_copy(update={"name": "vit-small"})
    monkeypatch.setitem(pretrained._ARCHITECTURES, "dofa_small_patch16_224", small)
    theirs = models.dofa_small_patch16_224(num_classes=0)
    theirs.load_state_dict(models.DOFABase16_Weights.DOFA_MAE.get_state_dict(), strict=False)

    vit = {"name": "vit-small", "patch": 16, "embedding": "dofa"}
    net, origin = begin("DOFABase16_Weights.DOFA_MAE", L1C, OUR_OWN, vit)
    assert isinstance(net, VitEncoder)
    for of in (L1C, sensor("landsat-8-l2").subset(("B2", "B5"))):
        image = torch.randn(2, len(of.bands), 224, 224)
        wavelengths = [float(w) for w in of.wavelengths if w is not None]
        with torch.inference_mode():
            want = theirs.eval().forward_features(image, wavelengths)
            tokens, cls = net.embed(image, torch.tensor(wavelengths))
            pooled = net.backbone.blocks(torch.cat([cls, tokens], dim=1))[:, 1:].mean(dim=1)
            # DOFA norms the mean of the tokens, our encoders each token
            torch.testing.assert_close(F.layer_norm(pooled, (384,), eps=1e-6), want, **TOLERANCE)
    assert set(origin["bands"].values()) == {"by wavelength"}
    assert origin["normalization"] == "own statistics"
    new = ("norm.weight", "norm.bias", "patch_embed.polarisation", "patch_embed.orbit")
    assert set(origin["parameters_new"]) == {f"backbone.{name}" for name in new}


def test_what_public_vits_lack_is_called_new(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch, models.vit_small_patch16_224(in_chans=2), without=("norm.weight", "norm.bias"))
    radar = sensor("sentinel-1-rtc")
    weights = "ViTSmall16_Weights.SENTINEL1_GRD_MAE"
    decibels = statistics([-1259.0, -2026.0], [526.0, 591.0])  # theirs, in our hundredths of a decibel
    net, origin = begin(weights, radar, decibels, {"name": "vit-small", "patch": 16})
    assert origin["parameters_new"] == ["backbone.norm.weight", "backbone.norm.bias"]
    kernel = models.get_weight(weights).get_state_dict()["patch_embed.proj.weight"]
    torch.testing.assert_close(net.state_dict()["backbone.patch_embed.proj.weight"], kernel)


def test_bands_are_chosen_by_either_sides_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.resnet18(in_chans=13)
    lend(monkeypatch, model)
    renamed = [dataclasses.replace(L1C.band(name), name=new) for name, new in (("B11", "swir"), ("B02", "B02x"))]
    own = Sensor("own", (L1C.band("B8A"), L1C.band("B04"), *renamed), L1C.radiometry)
    stats = statistics([0.0] * 4, [10000.0] * 4)
    bands = {"swir": "B11", "B02x": "B2"}
    net, origin = begin("ResNet18_Weights.SENTINEL2_ALL_MOCO", own, stats, {"name": "resnet18"}, bands=bands)
    kernel = model.state_dict()["conv1.weight"]
    torch.testing.assert_close(net.state_dict()["backbone.conv1.weight"], kernel[:, [8, 3, 11, 1]])
    assert origin["bands"] == {"B8A": "B8A", "B04": "B04", "swir": "B11", "B02x": "B02"}
    assert origin["bands_left_out"] == ["B01", "B03", "B05", "B06", "B07", "B08", "B09", "B10", "B12"]


def test_eight_bit_weights_are_fed_our_statistics_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch, models.resnet18(in_chans=7))
    oli = sensor("landsat-8-l2")
    stats = statistics([9000.0] * 7, [700.0] * 7)
    _, origin = begin("ResNet18_Weights.LANDSAT_OLI_SR_MOCO", oli, stats, {"name": "resnet18"})
    assert origin["bands"] == {band: band for band in oli.band_names}
    assert origin["normalization"].startswith("own statistics (")


def test_without_a_network_it_says_which_file_goes_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(StoreError, match=r"cannot be downloaded(.|\n)*https://hf.co/(.|\n)*checkpoints"):
        load_source(InitSettings(weights="ResNet18_Weights.SENTINEL2_ALL_MOCO"))


def test_names_that_do_not_exist_and_networks_that_are_not_ours_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"no weights(.|\n)*ResNet50_Weights\.SENTINEL2_ALL_MOCO"):
        load_source(InitSettings(weights="ResNet50_Weights.SENTINEL2_MOCO"))
    for name in ("CROMABase_Weights.CROMA_VIT", "Swin_V2_B_Weights.SENTINEL2_SI_RGB_SATLAS", "ResNet152_Weights"):
        with pytest.raises(SettingsError, match=r"none of geossl's encoders|no weights"):
            load_source(InitSettings(weights=name))
    with pytest.raises(SettingsError, match="named sensor"):
        load_source(InitSettings(weights="ResNet50_Weights.FMOW_RGB_GASSL"))


def test_another_network_is_refused_with_the_settings_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch, models.vit_small_patch16_224(in_chans=13))
    weights = "ViTSmall16_Weights.SENTINEL2_ALL_DINO"
    with pytest.raises(SettingsError, match=r"patch: 8 ≠ 16(.|\n)*patch: 16"):
        begin(weights, L1C, AS_PUBLISHED, {"name": "vit-small", "patch": 8})
    with pytest.raises(SettingsError, match="name: unet-small ≠ vit-small"):
        begin(weights, L1C, AS_PUBLISHED, {})


def test_init_wants_one_source() -> None:
    with pytest.raises(ValueError, match="weights and encoder"):
        InitSettings(weights="x", encoder="y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has none"):
        InitSettings()
