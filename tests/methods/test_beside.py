"""Two views of two collections: each embedded by its own bands, and of one sensor the same as two dates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from geossl.bands import sensor
from geossl.methods.mocov2 import MocoV2
from geossl.methods.pairs import pool
from geossl.methods.registry import build_method
from geossl.methods.settings import SimclrSettings
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings

from . import beside_ranks
from .processes import run_ranks
from .ranks import require_as_one
from .test_pairs import PAIRED
from .test_spectrum import S2
from .test_spectrum import build as by_wavelength
from .views import SIDE, batch_of, build, outputs

RADAR = sensor("sentinel-1-rtc")
OPTICAL, ECHO = Spectrum.of(S2.bands), Spectrum.of(RADAR.bands)
PLACES = {"xy": 1000 * torch.arange(6.0).unsqueeze(1).repeat(1, 2), "gsd": torch.full((6,), 10.0)}


def learn(method: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and the gradients of two of them in a row."""
    for step in (1, 2):
        torch.manual_seed(step)
        loss = method(batch).total
        loss.backward()
        method.after_step(step, 10)
    return loss.detach(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def require_same(ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in ours[1].values()) > 1e-3


def both(**more: Any) -> dict[str, Any]:
    """Six places as Sentinel-2 and as Sentinel-1 see them."""
    radar = batch_of(6, bands=2) | {"spectrum": ECHO, "kind": 1}
    return batch_of(6, bands=4) | PLACES | {"spectrum": OPTICAL, "kind": 0, "beside": radar | more}


@pytest.mark.parametrize("name", PAIRED)
def test_a_collection_beside_itself_is_pairs_of_dates(name: str) -> None:
    season = batch_of(6, dates=2) | PLACES
    season["valid"][1, 0] = season["valid"][2, 1] = False
    first, second = ({key: season[key][:, date] for key in ("image", "valid")} for date in (0, 1))
    require_same(learn(build(name), first | PLACES | {"beside": second}), learn(build(name, pairs="season"), season))
    # dates do not matter where the batch has two collections
    beside = learn(build(name, pairs="season"), first | PLACES | {"beside": second})
    require_same(beside, learn(build(name), first | PLACES | {"beside": second}))


@pytest.mark.parametrize("name", PAIRED)
def test_an_image_beside_itself_is_two_views_of_one_image(name: str) -> None:
    batch = batch_of(6) | PLACES
    require_same(learn(build(name), batch | {"beside": dict(batch)}), learn(build(name), batch))


@pytest.mark.parametrize("name", ["simclr", "dense", "mocov3", "lejepa"])
def test_views_by_themselves_are_embedded_as_together(name: str) -> None:
    """As if the same bands were of two sensors: two passes of the encoder instead of one."""
    batch = batch_of(6, bands=4) | PLACES | {"spectrum": OPTICAL, "kind": 0}
    other = batch_of(6, bands=4) | {"spectrum": OPTICAL}
    apart, together = (learn(by_wavelength(name), batch | {"beside": other | {"kind": kind}}) for kind in (1, 0))
    require_same(apart, together)


@pytest.mark.parametrize("name", PAIRED)
def test_each_view_is_embedded_by_its_own_bands_and_both_sensors_learn(name: str) -> None:
    method = by_wavelength(name)
    seen: list[tuple[Encoder, int, Any]] = []
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    for encoder in encoders:
        encoder.register_forward_pre_hook(lambda own, given: seen.append((own, given[0].shape[1], given[1])))
    method(both()).total.backward()
    assert all(spectrum is {4: OPTICAL, 2: ECHO}[bands] for _, bands, spectrum in seen)
    assert {(own, bands) for own, bands, _ in seen} == {*itertools.product(encoders, (4, 2))}
    embedding = "backbone.patch_embed"
    for which in (f"{embedding}.polarisation", f"{embedding}.weight_generator.fc_weight.weight"):
        gradient = encoders[0].get_parameter(which).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_the_loss_of_two_sensors_is_simclrs() -> None:
    method = by_wavelength("simclr").eval()
    batch = both()
    torch.manual_seed(3)
    first, second = method.two_views(batch)
    loss = method.losses(first, second, batch).total
    pooled = [
        pool(method.encoder(view.image, spectrum).maps[-1], view.valid)
        for view, spectrum in zip((first, second), (OPTICAL, ECHO), strict=True)
    ]
    ours, theirs = method.head(torch.cat(pooled)).chunk(2)
    torch.testing.assert_close(loss, NTXentLoss(method.temperature)(ours, theirs), atol=1e-5, rtol=0)


def test_momentum_contrast_looks_both_ways_between_sensors() -> None:
    method = by_wavelength("mocov2")
    assert isinstance(method, MocoV2)
    for p in method.momentum.parameters():
        p.data += 0.02 * torch.randn_like(p)
    queries, keys = outputs(method.head), outputs(method.momentum.head)
    queue = method.queue.double().numpy().copy()
    loss = method(both()).total.item()
    q, k = ([(x / x.norm(dim=1, keepdim=True)).double().numpy() for x in found] for found in (queries, keys))
    total = 0.0
    for query, key in zip(q, k, strict=True):
        logits = np.concatenate([(query * key).sum(1, keepdims=True), query @ queue.T], axis=1) / method.temperature
        total -= (logits[:, 0] - np.log(np.exp(logits).sum(axis=1))).mean()
    assert loss == pytest.approx(total / 2, abs=1e-5)
    method.after_step(1, 10)
    # each sensor's keys are negatives of that sensor's alone
    assert method.kinds.tolist() == [1] * 6 + [0] * 6 + [-1] * 20
    np.testing.assert_allclose(method.queue[:12], np.concatenate(k), atol=1e-6)


def test_what_only_one_of_them_saw_is_no_pair() -> None:
    """A view that hardly shows anything changes nothing for the others, whatever its pixels."""
    losses = []
    for filling in (0.0, 3.0):
        torch.manual_seed(0)
        batch = both()
        batch["beside"]["valid"][2] = False
        batch["beside"]["image"][2] = filling
        batch["valid"][4] = False
        batch["image"][4] = filling
        torch.manual_seed(1)
        losses.append(by_wavelength("simclr")(batch).total.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, beside_ranks.Result]]:
    """What two processes say of every method, each with half of the places."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("tests.methods.beside_ranks", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", beside_ranks.METHODS)
def test_two_ranks_learn_of_two_sensors_as_one_rank(name: str, ranks: list[dict[str, beside_ranks.Result]]) -> None:
    require_as_one(beside_ranks.whole(name), [rank[name] for rank in ranks])


def test_haze_veils_the_optical_view_alone() -> None:
    encoder = build_encoder(EncoderSettings(name="vit-tiny", patch=8, image=SIDE, embedding="wavelengths"), S2.bands)
    method: Any = build_method(SimclrSettings(crop=1.0, gain=0, bias=0, noise=0, haze=0.5), encoder)
    radar = {"wavelengths": torch.full((2,), torch.nan)}
    batch = both(**radar) | {"wavelengths": torch.tensor(S2.wavelengths)}
    optical, echo = method.two_views(batch)
    veil = [
        view.image.mean(dim=(2, 3)) - of["image"].mean(dim=(2, 3))
        for view, of in ((optical, batch), (echo, batch["beside"]))
    ]
    assert (veil[0][:, 0] > veil[0][:, 3]).all()
    torch.testing.assert_close(veil[1], torch.zeros(6, 2), atol=1e-4, rtol=0)
