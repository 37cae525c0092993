from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from geossl.methods.pairs import pool, same_place
from geossl.train.health import measure

from .views import SIDE, batch_of, build, view_of

PAIRED = ["simclr", "dense", "mocov2", "mocov3", "lejepa", "dino"]  # every method that compares two views of a place
QUIET: dict[str, Any] = {"crop": 1.0, "gain": 0.0, "bias": 0.0, "noise": 0.0}


@pytest.mark.parametrize("name", PAIRED)
def test_season_pairs_compare_the_two_dates(name: str) -> None:
    method = build(name, pairs="season", **QUIET)
    assert method.wants_pairs
    assert not build(name, pairs="same").wants_pairs
    batch = batch_of(8, dates=2)
    first, second = method.two_views(batch)
    # flips and turns move pixels but keep each band's values
    for view, date in ((first, 0), (second, 1)):
        torch.testing.assert_close(
            view.image.mean(dim=(2, 3)), batch["image"][:, date].mean(dim=(2, 3)), atol=1e-4, rtol=0
        )
    assert method(batch).total.isfinite()


@pytest.mark.parametrize("name", PAIRED)
def test_haze_reaches_the_views(name: str) -> None:
    method = build(name, **QUIET | {"haze": 0.5})
    batch = batch_of(4) | {"wavelengths": torch.tensor([0.45, 0.8, 2.2])}
    veil = [view.image.mean(dim=(2, 3)) - batch["image"].mean(dim=(2, 3)) for view in method.two_views(batch)]
    assert all((v[:, 0] > v[:, 1]).all() and (v[:, 1] > v[:, 2]).all() for v in veil)
    assert not torch.allclose(veil[0], veil[1])


def test_pooling_weighs_cells_by_their_valid_share() -> None:
    rng = np.random.default_rng(0)
    features, valid = rng.normal(size=(3, 5, 4, 4)).astype(np.float32), rng.random((3, 16, 16)) > 0.5
    valid[1] = True
    valid[2] = False
    got = pool(torch.from_numpy(features), torch.from_numpy(valid)).numpy()
    for i in (0, 1):
        share = valid[i].reshape(4, 4, 4, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(
            got[i], np.average(features[i].reshape(5, 16), axis=1, weights=share.ravel()), atol=1e-6
        )
    np.testing.assert_allclose(got[1], features[1].mean(axis=(1, 2)), atol=1e-6)
    assert (got[2] == 0).all()


def test_a_view_shows_its_place_from_a_tenth_on() -> None:
    batch = batch_of(3)
    batch["valid"][0, 3:] = False  # 3 of 32 rows are left
    batch["valid"][1, 4:] = False
    assert view_of(batch, crop=1.0).shows.tolist() == [False, True, True]


def test_chips_without_a_place_are_all_of_different_places() -> None:
    valid = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    assert torch.equal(same_place({"valid": valid}), torch.eye(3, dtype=torch.bool))
    pair = valid.unsqueeze(1).expand(-1, 2, -1, -1)  # season pairs
    at = {"xy": torch.zeros(3, 2), "gsd": torch.full((3,), 10.0)}
    assert same_place({"valid": pair, **at}).all()


LEARN: dict[str, tuple[int, dict[str, Any]]] = {
    "simclr": (15, {}),
    "dense": (15, {}),
    # a queue is full of real keys, and a second network has begun to follow, only after some steps
    "mocov2": (60, {"momentum": 0.9, "queue": 24}),
    "mocov3": (45, {"momentum": 0.9, "hidden": 64}),
    "lejepa": (15, {"hidden": 64}),
    # many or large hidden parts make the loss of so small a batch noisy
    "dino": (45, {"momentum": 0.9, "hidden": 64, "prototypes": 24, "local_views": 0, "mask_ratio": 0.1}),
}


LONG = [(name, "vit-tiny") for name in PAIRED if LEARN[name][0] > 15]
"""Ten seconds and more."""


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case in LONG else ())
        for case in itertools.product(PAIRED, ["unet-tiny", "vit-tiny"])
    ],
)
def test_steps_lower_the_loss(name: str, encoder: str) -> None:
    steps, settings = LEARN[name]
    method = build(name, encoder, **QUIET | {"crop": 0.8} | settings)
    xy = 1e4 * torch.arange(12.0).unsqueeze(1).repeat(1, 2)
    batch = batch_of(12) | {"xy": xy, "gsd": torch.full((12,), 10.0)}
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 1e-3)
    history = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = method(batch).total
        loss.backward()
        optimizer.step()
        method.after_step(step, 20 * steps)
        history.append(loss.item())
    begin = steps // 4 if steps > 15 else 0
    assert np.mean(history[-4:]) < 0.95 * np.mean(history[begin : begin + 3])


@pytest.mark.parametrize("name", PAIRED)
def test_collapse_shows_in_what_a_method_says_of_its_views(name: str) -> None:
    method = build(name)
    batch = batch_of(12)
    assert measure(method(batch).views).std > 0.05
    for p in method.encoder.parameters():
        p.data.zero_()  # the encoder says the same of every image
    assert measure(method(batch).views).std < 1e-3
