"""Batches of another sensor than the encoder's own reach it, and every copy of it, with their own bands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from geossl.bands import sensor
from geossl.methods.mocov2 import MocoV2
from geossl.methods.registry import METHODS, build_method
from geossl.methods.settings import MethodSettings
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings

from .views import SIDE, batch_of

S2 = sensor("sentinel-2-l2a").subset(("blue", "green", "red", "nir"))
LANDSAT = sensor("landsat-8-l2").subset(("blue", "green", "red", "nir08", "swir16", "swir22"))
SMALL = {"relative": {"patch": 8}, "mocov2": {"queue": 32}}


def build(name: str) -> Any:
    torch.manual_seed(0)
    which: MethodSettings = TypeAdapter(MethodSettings).validate_python({"name": name} | SMALL.get(name, {}))
    settings = EncoderSettings(name="vit-tiny", patch=8, image=SIDE, embedding="wavelengths")
    return build_method(which, build_encoder(settings, S2.bands))


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"mae"}))
def test_every_method_tells_the_encoder_which_bands_a_batch_has(name: str) -> None:
    method = build(name)
    seen: list[tuple[Any, ...]] = []
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    assert len(encoders) == (2 if name in ("mocov2", "mocov3", "dino") else 1)
    for encoder in encoders:
        encoder.register_forward_pre_hook(lambda _, given: seen.append(given))
    spectrum = Spectrum.of(LANDSAT.bands)
    method(batch_of(4, bands=6) | {"spectrum": spectrum, "kind": 1}).total.backward()
    assert len(seen) >= len(encoders)
    assert all(image.shape[1] == 6 and bands is spectrum for image, bands in seen)
    gradient = encoders[0].get_parameter("backbone.patch_embed.weight_generator.fc_weight.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_a_queue_holds_no_negatives_of_another_sensor() -> None:
    method = build("mocov2")
    assert isinstance(method, MocoV2)
    own, other = batch_of(32, bands=4), batch_of(8, bands=6) | {"spectrum": Spectrum.of(LANDSAT.bands), "kind": 1}
    method(own | {"spectrum": Spectrum.of(S2.bands), "kind": 0})
    method.after_step(1, 10)
    assert method.kinds.tolist() == [0] * 32

    def loss() -> float:
        torch.manual_seed(1)
        return method(other).total.item()

    with torch.no_grad():
        before = loss()
        method.queue.copy_(method.queue.roll(1, 1))
        assert loss() == before == 0  # nothing to be told from
        method.kinds[:4] = 1
        assert loss() > 0
