from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch.nn import functional as F

from geossl.features import hypercolumns
from geossl.methods.dense import Dense, columns, match
from geossl.methods.pairs import View

from .views import SIDE, batch_of, build, view_of


def at(plane: np.ndarray, x: float, y: float) -> Any:
    """``plane`` (…, h, w) at a point in [-1, 1], between the four nearest cells, the outermost ones going on."""
    height, width = plane.shape[-2:]
    x, y = np.clip((x + 1) / 2 * width - 0.5, 0, width - 1), np.clip((y + 1) / 2 * height - 0.5, 0, height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    x, y = x - left, y - top
    upper = (1 - x) * plane[..., top, left] + x * plane[..., top, left + 1]
    lower = (1 - x) * plane[..., top + 1, left] + x * plane[..., top + 1, left + 1]
    return (1 - y) * upper + y * lower


def by_hand(method: Dense, first: View, second: View, noise: torch.Tensor, centres: np.ndarray) -> float:
    """The loss point by point, in NumPy but for the encoder and the head; ``centres`` (B, 2) of chips in pixels."""
    one, two = ([m.numpy() for m in method.encoder(view.image).maps] for view in (first, second))
    rows: tuple[list[Any], list[Any]] = [], []
    where = []
    for i, centre in enumerate(centres):
        a, b = (np.vstack([v.placement.affine[i].double().numpy(), [0, 0, 1]]) for v in (first, second))
        candidates = []
        for row, column in np.ndindex(SIDE, SIDE):
            here = np.array([(column + 0.5) * 2 / SIDE - 1, (row + 0.5) * 2 / SIDE - 1, 1])
            there = np.linalg.inv(b) @ a @ here
            if np.abs(there[:2]).max() >= 1 or not first.valid[i, row, column]:
                continue
            x, y = np.rint((there[:2] + 1) / 2 * SIDE - 0.5).astype(int)
            if second.valid[i, y, x]:
                candidates.append((noise[i, row, column].item(), here, there))
        for _, here, there in sorted(candidates, key=lambda c: c[0])[: method.settings.points]:
            rows[0].append(np.concatenate([at(m[i], *here[:2]) for m in one]))
            rows[1].append(np.concatenate([at(m[i], *there[:2]) for m in two]))
            where.append(centre + (a @ here)[:2] * SIDE / 2)
    z = method.head(torch.tensor(np.array(rows[0] + rows[1])).float()).double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, total = len(where), 0.0
    for i in range(2 * n):
        partner = np.exp(z[i] @ z[(i + n) % (2 * n)] / method.settings.temperature)
        others = [j for j in range(2 * n) if np.hypot(*(where[i % n] - where[j % n])) >= method.settings.apart]
        total -= np.log(partner / (partner + np.exp(z[others] @ z[i] / method.settings.temperature).sum()))
    return total / (2 * n)


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
@torch.no_grad()
def test_the_loss_is_what_numpy_makes_of_matched_points(encoder: str) -> None:
    method = build("dense", encoder, temperature=0.3, points=12, apart=5.0).eval()
    batch = batch_of(4)
    batch["valid"] = torch.rand(4, SIDE, SIDE) > 0.1
    batch["valid"][1, 4:] = False  # fewer than twelve points are left of it, or none
    batch["valid"][3] = False
    # chips of 320 m; the third overlaps the first from three pixels east and one north of it on
    xy = torch.tensor([[400000.0, 4e6], [410000, 4e6], [400030, 4e6 + 10], [420000, 4e6]])
    first, second, noise = view_of(batch), view_of(batch), torch.rand(4, SIDE, SIDE)
    loss = method.losses(first, second, batch | {"xy": xy, "gsd": torch.full((4,), 10.0)}, noise).total.item()
    assert abs(loss - by_hand(method, first, second, noise, xy.numpy() / 10 * [1, -1])) < 1e-5
    # without a position every chip is far from the others
    loss = method.losses(first, second, batch, noise).total.item()
    assert abs(loss - by_hand(method, first, second, noise, 1000.0 * np.arange(4)[:, None].repeat(2, 1))) < 1e-5


@torch.no_grad()
def test_with_one_point_a_chip_it_is_lightlys_loss() -> None:
    method = build("dense", temperature=0.3, points=1)
    heads: list[torch.Tensor] = []
    method.head.register_forward_hook(lambda *arguments: heads.append(arguments[-1]))
    loss = method(batch_of(8)).total.item()
    assert abs(loss - NTXentLoss(0.3)(*heads[0].chunk(2)).item()) < 1e-5


@pytest.mark.parametrize("crop", [1.0, 0.4])
def test_matched_points_are_the_same_ground(crop: float) -> None:
    torch.manual_seed(0)
    ramp = (torch.arange(SIDE) + 0.5) / SIDE
    chip = torch.stack([ramp.expand(SIDE, SIDE), ramp.unsqueeze(1).expand(SIDE, SIDE)]).expand(16, -1, -1, -1)
    batch = {"image": chip, "valid": torch.rand(16, SIDE, SIDE) > 0.02}
    first, second = view_of(batch, crop), view_of(batch, crop)
    here, there, seen = match(first, second, torch.rand(16, SIDE, SIDE), 40)
    assert seen.float().mean() > 0.9
    # the bands say where a pixel lies; the mask as one more: it was seen wherever we look
    one, two = (
        columns((view.image, view.valid.unsqueeze(1).float()), points)
        for view, points in ((first, here), (second, there))
    )
    whole = seen & (one[..., 2] == 1) & (two[..., 2] == 1)  # nothing invalid was blended in between the pixels
    whole &= (there.abs() < 1 - 1 / SIDE).all(dim=2) & (here.abs() < 1 - 1 / SIDE).all(dim=2)
    on_edge = ((one[..., :2] < 0.5 / SIDE + 1e-4) | (one[..., :2] > 1 - 0.5 / SIDE - 1e-4)).any(dim=2)
    assert (whole & ~on_edge).float().mean() > 0.6
    torch.testing.assert_close(one[whole & ~on_edge], two[whole & ~on_edge], atol=1e-4, rtol=0)


def test_views_that_share_no_ground_have_no_points() -> None:
    method = build("dense")
    batch = batch_of(2)
    first, second = view_of(batch, 1.0), view_of(batch, 1.0)
    for view, shift in ((first, -0.5), (second, 0.5)):
        view.placement.affine.copy_(torch.tensor([[0.4, 0, shift], [0, 0.4, 0]]))
    *_, seen = match(first, second, torch.rand(2, SIDE, SIDE), 10)
    assert not seen.any()
    losses = method.losses(first, second, batch, torch.rand(2, SIDE, SIDE))
    losses.total.backward()
    assert losses.total == 0
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_points_see_the_hypercolumns_that_maps_are_made_from() -> None:
    encoder = build("dense").encoder.eval()
    image = batch_of(2)["image"]
    centres = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    points = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=2).view(1, -1, 2).expand(2, -1, -1)
    with torch.no_grad():
        got = columns(encoder(image).maps, points)
        torch.testing.assert_close(got.mT.unflatten(2, (SIDE, SIDE)), hypercolumns(encoder, image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_columns_and_their_gradients_are_those_of_grid_sample(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = [
        torch.randn(3, *size).to(memory_format=layout).requires_grad_() for size in ((5, 12, 7), (2, 3, 4), (4, 1, 1))
    ]
    points = torch.rand(3, 50, 2) * 2.4 - 1.2  # some beyond the border
    weight = torch.randn(3, 50, 11)
    by_torch = [F.grid_sample(each, points.unsqueeze(1), padding_mode="border", align_corners=False) for each in maps]
    expected = torch.cat([each[:, :, 0] for each in by_torch], dim=1).mT
    found = columns(tuple(maps), points)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad((each * weight).sum(), maps) for each in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)
