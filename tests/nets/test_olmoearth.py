"""OlmoEarth beside its authors' package. There is no network here: torchgeo's own model, with random weights, stands in
for what would be downloaded, and everything else is the path that a user takes."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn
from torchgeo import models
from torchvision.models import WeightsEnum

from geossl.augment import Normalize
from geossl.bands import Band, Sensor, Statistics, sensor
from geossl.errors import SettingsError
from geossl.methods.registry import METHODS, build_method
from geossl.methods.settings import LejepaSettings, MaeSettings, MethodSettings, SimclrSettings
from geossl.nets.adapt import architecture_of, start
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.export import export_encoder
from geossl.nets.layers import layers
from geossl.nets.olmoearth import OlmoEarth, fill, network_bands
from geossl.nets.pretrained import load_source
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import load_encoder, save_encoder

try:
    from olmoearth_pretrain_minimal import NormalizerV1
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.data.missing_bands import copy_nearest_bands
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample, MaskValue
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

needs_package = pytest.mark.skipif(not INSTALLED, reason="the extra `olmoearth` is not installed")

L2A = sensor("sentinel-2-l2a")
TEN_METRES = ("B02", "B03", "B04", "B08")
INFRARED = ("B8A", "B09")  # the first set has none
GAPS = ("B11", "B04", "B02", "B01")  # in every set something is missing
WEIGHTS = "OlmoEarthV1_Weights.NANO"
NANO = {"name": "olmoearth-nano"}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchgeo's model with the weights that every download gives: none as it is when fresh."""
    torch.manual_seed(3)
    stirred = models.olmoearth_v1()
    for tensor in stirred.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn_like(tensor))
    state = stirred.model.state_dict()  # torchgeo says `model.` itself
    # as the published files have it, from before positions in time were computed
    state["encoder.composite_encodings.pos_embed"] = torch.zeros(12, 32)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: dict(state))
    return models.olmoearth_v1(weights=models.get_weight(WEIGHTS)).eval()


def numbers(of: Sensor, mean: float = 1500.0, std: float = 700.0) -> Statistics:
    count = len(of.bands)
    means, stds = (tuple(v * (1 + i / 20) for i in range(count)) for v in (mean, std))
    return Statistics((9,) * count, means, stds, *[(0.0,) * count] * 4)


def begin(of: Sensor, patch: int = 8, stats: Statistics | None = None, **init: Any) -> tuple[Encoder, dict[str, Any]]:
    settings = InitSettings(**({"weights": WEIGHTS} if "encoder" not in init else {}) | init)
    source = load_source(settings)
    torch.manual_seed(9)
    net = build_encoder(architecture_of(EncoderSettings(**NANO, patch=patch), source, chip=64), of.bands)
    origin = start(net, source, settings, of, stats or numbers(of))
    return net.eval(), origin


def stored(of: Sensor, side: int = 32) -> Tensor:
    shape = 2, len(of.bands), side, side
    return torch.randint(200, 4000, shape, generator=torch.Generator().manual_seed(5)).to(torch.int16)


def normalised(image: Tensor, stats: Statistics) -> Tensor:
    return Normalize.from_statistics(stats)(image, torch.ones(len(image), *image.shape[-2:], dtype=torch.bool))


def ask(network: nn.Module, image: Tensor, names: tuple[str, ...], patch: int) -> list[Tensor]:
    """What the package makes of stored numbers of these bands by its own normalisation, filling in and masking:
    after each block, normed, the mean over sets at each place, (B, D, h, w)."""
    spec = Modality.SENTINEL2_L2A
    batch, _, *grid = image.shape
    data = np.full((batch, *grid, 1, spec.num_bands), np.nan)
    for name, band in zip(names, image.unbind(1), strict=True):
        data[..., 0, spec.band_order.index(name)] = band
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*model outputs may degrade", category=UserWarning)
        pixels = NormalizerV1().normalize(spec, data)
    mask = torch.zeros(batch, *grid, 1, spec.num_band_sets, dtype=torch.long)
    for number, each in enumerate(spec.band_sets):
        if set(each.bands).isdisjoint(names):
            mask[..., number] = MaskValue.MISSING.value
    present = [number for number in range(spec.num_band_sets) if mask[0, 0, 0, 0, number] == 0]
    sample = MaskedOlmoEarthSample(
        timestamps=torch.tensor([[[1, 6, 2020]]]).expand(batch, -1, -1),
        sentinel2_l2a=torch.from_numpy(pixels).float(),
        sentinel2_l2a_mask=mask,
    )
    encoder: Any = network.encoder
    after: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *args: after.append(encoder.norm(args[-1]))) for block in encoder.blocks
    ]
    with torch.inference_mode():
        tokens = encoder(sample, patch_size=patch, input_res=10)["tokens_and_masks"].sentinel2_l2a  # (B, h, w, 1, S, D)
    for hook in hooks:
        hook.remove()
    places = [out.unflatten(1, (*tokens.shape[1:3], -1)).mean(3) for out in after[:-1]]  # masked tokens are not in them
    return [place.permute(0, 3, 1, 2) for place in (*places, tokens[:, :, :, 0, present].mean(3))]


@needs_package
@pytest.mark.parametrize("patch", [4, 8])
@pytest.mark.parametrize("names", [L2A.band_names, L2A.band_names[::-1], TEN_METRES, INFRARED, GAPS], ids=len)
def test_features_are_those_of_the_package_whatever_our_statistics(
    published: nn.Module, names: tuple[str, ...], patch: int
) -> None:
    of = L2A.subset(names)
    image = stored(of)
    want = ask(published, image, names, patch)
    for stats in (numbers(of), numbers(of, 0.0, 10000.0)):
        net, _ = begin(of, patch, stats)
        with torch.inference_mode():
            features = net(normalised(image, stats))
        for ours, theirs in zip(features.maps, want, strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
        torch.testing.assert_close(features.pooled, want[-1].mean(dim=(2, 3)), **TOLERANCE)


@needs_package
def test_the_card_says_what_came_from_where(published: nn.Module) -> None:
    net, origin = begin(L2A.subset(TEN_METRES))
    assert origin["source"] == WEIGHTS
    assert origin["license"] == "OlmoEarth Artifact License"
    assert origin["bands"] == {name: name for name in TEN_METRES}
    assert origin["bands_left_out"] == ["B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09"]
    assert origin["normalization"] == f"that of {WEIGHTS}, folded in before the first layer"
    assert origin["parameters_new"] == []
    assert {"decoder.*", "target_encoder.*"} <= set(origin["parameters_left_out"])
    assert not [name for name in origin["parameters_left_out"] if "blocks" in name or "sentinel2" in name]
    assert net.settings == EncoderSettings(name="olmoearth-nano")


@needs_package
@pytest.mark.parametrize(
    ("size", "dim", "depth"), [("nano", 128, 4), ("tiny", 192, 12), ("base", 768, 12), ("large", 1024, 24)]
)
def test_sizes_are_those_of_torchgeos_weights(size: str, dim: int, depth: int) -> None:
    assert models.get_weight(f"OlmoEarthV1_Weights.{size.upper()}").meta["model_size"] == size
    with torch.device("meta"):  # shapes alone
        net = OlmoEarth(size, L2A.bands, 8)
    assert (net.dim, len(net.blocks)) == (dim, depth)


@needs_package
def test_missing_bands_are_filled_in_as_the_package_does() -> None:
    spec, random = Modality.SENTINEL2_L2A, np.random.default_rng(0)
    for _ in range(200):
        places = random.permutation(12)[: random.integers(1, 13)].tolist()
        missing: NDArray[np.bool_] = ~np.isin(np.arange(12), places)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*model outputs may degrade", category=UserWarning)
            filled, _ = copy_nearest_bands(spec.name, np.arange(12.0), missing)
        fed = fill(places)
        for each in spec.bandsets_as_indices():
            if set(places).isdisjoint(each):
                assert {fed[target] for target in each} == {-1}
            else:
                assert [places[fed[target]] for target in each] == filled[each].astype(int).tolist()


@needs_package
@pytest.mark.parametrize(("size", "patch"), [("tiny", 8), ("base", 2)])
def test_sets_month_and_places_are_told_as_the_network_does(size: str, patch: int) -> None:
    net = OlmoEarth(size, L2A.bands, patch)
    told: Any = net.composite_encodings
    channels = told.per_modality_channel_embeddings["sentinel2_l2a"]
    with torch.inference_mode():
        channels.copy_(torch.randn_like(channels))
        nothing = {"sentinel2_l2a": torch.zeros(1, 40, 40, 1, 3, net.dim)}
        want = told(nothing, torch.tensor([[[1, 6, 2020]]]), patch, 10)["sentinel2_l2a"]
        torch.testing.assert_close(net.encode(40, 40), want[0, :, :, 0], atol=2e-6, rtol=0)


@needs_package
def test_an_image_need_not_be_square() -> None:
    net = build_encoder(EncoderSettings.model_validate(NANO), L2A.bands).eval()
    olmo = net.backbone
    assert isinstance(olmo, OlmoEarth)
    image = torch.randn(1, 12, 48, 48)
    with torch.inference_mode():
        whole = olmo.embed(image)
        torch.testing.assert_close(olmo.embed(image[..., :32, :]), whole[:, :4])
        torch.testing.assert_close(olmo.embed(image[..., :16]), whole[:, :, :2])
        features = net(image[..., :32, :])
    assert [tuple(each.shape) for each in features.maps] == [(1, 128, 4, 6)] * 4
    assert (net.dims, net.strides) == ((128,) * 4, (8,) * 4)
    with pytest.raises(SettingsError, match="multiples of 8 px"):
        net(torch.zeros(1, 12, 32, 36))


@needs_package
def test_bands_of_another_sensor_take_the_nearest_places_when_told(published: nn.Module) -> None:
    landsat = sensor("landsat-8-l2")
    with pytest.raises(SettingsError, match=r"bands B1, B2(.|\n)*are none of(.|\n)*init.unmapped: nearest"):
        begin(landsat)
    net, origin = begin(landsat, unmapped="nearest")
    nearest = ("B01", "B02", "B03", "B04", "B8A", "B11", "B12")
    assert origin["bands"] == {f"B{i}": f"{name}, the nearest" for i, name in enumerate(nearest, start=1)}
    # the same reflectances, stored in another way, are the same image
    image = stored(L2A.subset(nearest))
    other = (image * 1e-4 + 0.2) / 2.75e-5
    same, _ = begin(L2A.subset(nearest))
    with torch.inference_mode():
        ours = net(normalised(other, numbers(landsat))).pooled
        want = same(normalised(image, numbers(landsat))).pooled
    torch.testing.assert_close(ours, want, **TOLERANCE)


@needs_package
def test_imagery_without_units_is_put_where_the_networks_lies(published: nn.Module) -> None:
    unitless = dataclasses.replace(L2A, radiometry=dataclasses.replace(L2A.radiometry, unit="none"))
    net, origin = begin(unitless)
    assert origin["normalization"] == "own statistics (its own is in reflectance)"
    state = net.state_dict()
    assert set(state["backbone.gain"].tolist()) == {0.25}  # mean ± 2 standard deviations: 0 to 1
    assert set(state["backbone.offset"].tolist()) == {0.5}


@needs_package
def test_it_learns_and_its_file_gives_it_back(published: nn.Module, tmp_path: Path) -> None:
    of = L2A.subset(TEN_METRES)
    net, origin = begin(of)
    method = build_method(SimclrSettings(name="simclr"), net.train())
    learning = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=3e-4)
    batch = {"image": normalised(stored(of), numbers(of)).repeat(4, 1, 1, 1), "valid": torch.ones(8, 32, 32).bool()}
    batch["image"] += torch.randn(8, 4, 1, 1)
    losses = []
    for _ in range(12):
        loss = method(batch).total
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad is not None for weight in learning)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < np.mean(losses[:4])

    card = save_encoder(tmp_path / "out", net, Card(net.settings, of, numbers(of), method="simclr", origin=origin))
    again, read = load_encoder(tmp_path / "out")
    assert read == card
    assert card.id.startswith("simclr-olmoearth-nano-")
    image = torch.randn(2, 4, 32, 32)
    with torch.inference_mode():
        for ours, want in zip(again(image).maps, net.eval()(image).maps, strict=True):
            torch.testing.assert_close(ours, want, atol=0, rtol=0)
    # and it goes on by its folder: exactly, or with other statistics and more bands
    gone_on, _ = begin(of, encoder=tmp_path / "out")
    more, later = begin(L2A.subset((*TEN_METRES[::-1], "B01")), encoder=tmp_path / "out", unmapped="nearest")
    assert later["bands"] == {name: name for name in TEN_METRES[::-1]} | {"B01": "B01, the nearest"}
    assert later["license"] == "OlmoEarth Artifact License"
    other = numbers(of, 900.0, 300.0)
    shifted, _ = begin(of, stats=other, encoder=tmp_path / "out")
    with torch.inference_mode():
        torch.testing.assert_close(gone_on(image).pooled, again(image).pooled, atol=0, rtol=0)
        pixels = stored(of)
        ours, want = shifted(normalised(pixels, other)), again(normalised(pixels, numbers(of)))
        torch.testing.assert_close(ours.pooled, want.pooled, **TOLERANCE)
        assert more(torch.randn(1, 5, 32, 32)).pooled.isfinite().all()


@needs_package
@pytest.mark.parametrize("name", [name for name in METHODS if name != "mae"])
def test_every_method_that_takes_any_encoder_trains_every_weight_of_it(published: nn.Module, name: str) -> None:
    # distributed training waits for ever for a weight without a gradient
    net, _ = begin(L2A.subset(GAPS[:3]))
    small = {"patch": 8} if name == "relative" else {}  # what fits into chips of 32 pixels
    method = build_method(TypeAdapter(MethodSettings).validate_python({"name": name} | small), net.train())
    method({"image": torch.randn(4, 3, 32, 32), "valid": torch.ones(4, 32, 32).bool()}).total.backward()
    learning = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
    assert [name for name, weight in learning.items() if weight.grad is None] == []
    assert any("sentinel2_l2a__1" in name for name in learning)
    assert not any("sentinel2_l2a__2" in name for name in learning)  # of bands that there are not


@needs_package
def test_adapters_alone_learn_in_it(published: nn.Module) -> None:
    plain, _ = begin(L2A)
    net, _ = begin(L2A, lora=2)
    image = torch.randn(2, 12, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net(image).pooled, plain(image).pooled)
    learning = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert len(learning) == 2 * 6 * 4  # up and down; q, k, v, proj, fc1, fc2; blocks
    build_method(LejepaSettings(name="lejepa"), net)({"image": image, "valid": torch.ones(2, 32, 32).bool()})


@needs_package
def test_its_layers_are_its_blocks() -> None:
    numbered = layers(build_encoder(EncoderSettings.model_validate(NANO), L2A.bands))
    assert numbered["backbone.blocks.3.attn.q.weight"] == numbered["backbone.norm.weight"] == 4
    first = [name for name, number in numbered.items() if number == 0]
    assert {name.split(".")[1] for name in first} == {"patch_embeddings", "composite_encodings"}
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(sorted(set(numbered.values()))))


@needs_package
def test_what_it_cannot_do_is_refused(published: nn.Module, tmp_path: Path) -> None:
    radar = Sensor("s1-s2", (*L2A.bands[:3], *sensor("sentinel-1-rtc").bands), L2A.radiometry)
    with pytest.raises(SettingsError, match="band VV has no wavelength"):
        build_encoder(EncoderSettings.model_validate(NANO), radar.bands)
    cirrus = sensor("sentinel-2-l1c").subset(("B02", "B11", "B10"))
    with pytest.raises(SettingsError, match="bands B11 and B10 are both nearest"):
        build_encoder(EncoderSettings.model_validate(NANO), cirrus.bands)
    with pytest.raises(SettingsError, match="built for bands"):
        build_encoder(EncoderSettings.model_validate(NANO), 12)
    for init in ({"bands": {"B02": "B03"}}, {"unmapped": "zero"}):
        with pytest.raises(SettingsError, match=r"leave init\.bands out"):
            begin(L2A, **init)
    source = load_source(InitSettings(weights=WEIGHTS))
    with pytest.raises(SettingsError, match=r"name: olmoearth-tiny ≠ olmoearth-nano(.|\n)*{name: olmoearth-nano}"):
        architecture_of(EncoderSettings(name="olmoearth-tiny"), source, chip=64)
    net, _ = begin(L2A)
    with pytest.raises(SettingsError, match=r"choose an encoder vit-\*"):
        build_method(MaeSettings(name="mae"), net)
    with pytest.raises(SettingsError, match="neither timm nor torchgeo"):
        export_encoder(net, Card(net.settings, L2A, numbers(L2A), method="simclr"), "timm", tmp_path / "out")


def test_patches_are_no_larger_than_the_networks() -> None:
    with pytest.raises(ValueError, match="8 pixels at most, not 16"):
        EncoderSettings(name="olmoearth-base", patch=16)
    with pytest.raises(ValueError, match="is for vit-"):
        EncoderSettings(name="olmoearth-base", embedding="wavelengths")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    package = "olmoearth_pretrain_minimal"
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)

    def downloaded(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is downloaded for what cannot be built")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", downloaded)
    with pytest.raises(SettingsError, match=r"olmoearth-pretrain-minimal(.|\n)*geossl\[olmoearth\]"):
        load_source(InitSettings(weights=WEIGHTS))
    with pytest.raises(SettingsError, match=r"olmoearth-pretrain-minimal(.|\n)*geossl\[olmoearth\]"):
        network_bands()
    with pytest.raises(SettingsError, match=r"geossl\[olmoearth\]"):
        build_encoder(EncoderSettings.model_validate(NANO), [Band("B02", 0.49, 10)])
