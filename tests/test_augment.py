from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.augment import Normalize, Views
from geossl.bands import Statistics
from geossl.errors import TrainingError


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("dates", [(), (2,)])
def test_normalize_agrees_with_numpy(dtype: str, dates: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 250, (3, *dates, 4, 5, 6)).astype(dtype)
    if dtype == "uint16":
        stored[..., 0, 0] = 60000
    valid = rng.random((3, *dates, 5, 6)) > 0.3
    mean, std = rng.normal(100, 20, 4), rng.uniform(5, 50, 4)
    got = Normalize(mean.tolist(), std.tolist())(torch.from_numpy(stored), torch.from_numpy(valid))
    want = (stored.astype(np.float64) - mean[:, None, None]) / std[:, None, None]
    want[np.broadcast_to(~valid[..., None, :, :], want.shape)] = 0
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4, rtol=1e-5)


def test_normalize_leaves_its_input_alone_and_survives_nan_and_constant_bands() -> None:
    image = torch.tensor([[[[5.0, float("nan")]], [[7.0, 7.0]]]])
    valid = torch.tensor([[[True, False]]])
    before = image.clone()
    statistics = Statistics((1, 1), (4.0, 7.0), (2.0, 0.0), *[(0.0, 0.0)] * 4)
    out = Normalize.from_statistics(statistics)(image, valid)
    assert out.flatten().tolist() == [0.5, 0.0, 0.0, 0.0]
    assert torch.equal(image.nan_to_num(), before.nan_to_num())


def coordinates(batch: int, side: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns]).float().expand(batch, 2, side, side)


def test_whole_chips_show_the_eight_symmetries_and_nothing_else() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 8, 8)
    valid = torch.rand(1, 8, 8) > 0.2
    image = image.masked_fill(~valid.unsqueeze(1), 0)
    symmetries = [
        (torch.rot90(i, k, (-2, -1)), torch.rot90(v, k, (-2, -1)))
        for i, v in ((image[0], valid[0]), (image[0].flip(-1), valid[0].flip(-1)))
        for k in range(4)
    ]
    seen = set()
    for got, mask in zip(*Views()(image.expand(64, -1, -1, -1), valid.expand(64, -1, -1)), strict=True):
        fits = [n for n, (i, v) in enumerate(symmetries) if torch.equal(mask, v) and torch.allclose(got, i, atol=1e-4)]
        assert len(fits) == 1
        seen.update(fits)
    assert seen == set(range(8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), crop=st.floats(0.2, 1.0), edge=st.integers(3, 12))
def test_pixels_and_mask_stay_together_under_crops(seed: int, crop: float, edge: int) -> None:
    torch.manual_seed(seed)
    image = coordinates(4, 16) + 1
    valid = image[:, 0] - 1 < edge  # the upper rows
    out, mask = Views(crop=crop)(image.masked_fill(~valid.unsqueeze(1), 0), valid)
    rows = out[:, 0] - 1
    assert (rows[mask] <= edge - 1 + 1e-3).all()  # nothing from the invalid rows was blended in
    assert (out.masked_select(~mask.unsqueeze(1)) == 0).all()
    # where the crop looks at valid rows alone, all is valid: the mask does not shrink beyond the blend
    torch.manual_seed(seed)
    whole, _ = Views(crop=crop)(image, torch.ones_like(valid))
    assert torch.equal(mask, whole[:, 0] - 1 <= edge - 1 + 1e-3)
    # a pixel counts as valid up to a thousandth of blended-in zeros, of values up to 16
    torch.testing.assert_close(out[:, 0][mask], whole[:, 0][mask], atol=0.02, rtol=0)


def test_crops_have_the_announced_area() -> None:
    torch.manual_seed(0)
    out, _ = Views(crop=0.25)(coordinates(256, 32), torch.ones(256, 32, 32, dtype=torch.bool))
    spans = (out.amax(dim=(2, 3)) - out.amin(dim=(2, 3))).amax(dim=1) + 1
    area = (spans / 32) ** 2
    assert 0.2 < area.min() < 0.35
    assert area.max() > 0.9
    assert abs(area.mean() - 0.625) < 0.08


def test_small_views_have_their_own_side_and_the_announced_area() -> None:
    torch.manual_seed(0)
    views = Views(crop=0.1, largest=0.4)
    image, valid = coordinates(256, 32), torch.ones(256, 32, 32, dtype=torch.bool)
    placement = views.place(256, image.device)
    area = placement.scale**2
    assert 0.1 <= area.min() < 0.12
    assert 0.38 < area.max() <= 0.4 + 1e-6
    out, mask = views.at(placement, image, valid, side=8)
    assert out.shape == (256, 2, 8, 8)
    assert mask.shape == (256, 8, 8)
    # its pixels are where the placement has them, whatever the side
    centres = (torch.arange(8) + 0.5) / 4 - 1
    points = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=2).view(1, -1, 2).expand(256, -1, -1)
    want = ((placement.to_chip(points).flip(2) + 1) * 16 - 0.5).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(out, want.clamp(0, 31), atol=1e-3, rtol=0)


@pytest.mark.parametrize("bands", [1, 2, 10, 13])
def test_any_number_of_bands_changes_band_by_band(bands: int) -> None:
    torch.manual_seed(0)
    image = torch.ones(512, bands, 2, 2)
    valid = torch.ones(512, 2, 2, dtype=torch.bool)
    gained, _ = Views(gain=0.2)(image, valid)
    assert gained.std(dim=(2, 3)).max() < 1e-6  # one factor a band
    assert abs(gained[:, :, 0, 0].std() - 0.2) < 0.04
    biased, _ = Views(bias=0.3)(torch.zeros_like(image), valid)
    assert abs(biased[:, :, 0, 0].std() - 0.3) < 0.05
    noisy, _ = Views(noise=0.1)(torch.zeros_like(image), valid)
    assert abs(noisy.std() - 0.1) < 0.02
    if bands > 1:
        pair = torch.corrcoef(torch.stack([gained[:, 0, 0, 0], gained[:, 1, 0, 0]]))
        assert abs(pair[0, 1]) < 0.2  # bands change independently


def by_hand(image: np.ndarray, valid: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One view pixel by pixel: bilinear where the affine map leads, valid where each pixel that counts is."""
    side = image.shape[-1]
    out, mask = np.zeros(image.shape), np.zeros((side, side), bool)
    for row, column in np.ndindex(side, side):
        centre = (np.array([column, row]) + 0.5) / side * 2 - 1
        x, y = np.clip(((affine[:, :2] @ centre + affine[:, 2]) + 1) / 2 * side - 0.5, 0, side - 1)
        left, top = min(int(x), side - 2), min(int(y), side - 2)
        weights = {
            (top + i, left + j): (y - top if i else 1 - y + top) * (x - left if j else 1 - x + left)
            for i, j in np.ndindex(2, 2)
        }
        mask[row, column] = all(valid[at] for at, weight in weights.items() if weight > 1e-3)
        if mask[row, column]:
            out[:, row, column] = sum(weight * image[:, *at] for at, weight in weights.items())
    return out, mask


@pytest.mark.parametrize("crop", [1.0, 0.3])
def test_views_are_what_numpy_makes_of_their_placement(crop: float) -> None:
    torch.manual_seed(0)
    image = torch.randn(12, 2, 8, 8)
    valid = torch.rand(12, 8, 8) > 0.1
    image = image.masked_fill(~valid.unsqueeze(1), 0)
    views = Views(crop=crop)
    placement = views.place(12, image.device)
    got, mask = views.at(placement, image, valid)
    for i in range(12):
        want, seen = by_hand(image[i].numpy(), valid[i].numpy(), placement.affine[i].double().numpy())
        assert np.array_equal(mask[i].numpy(), seen)
        np.testing.assert_allclose(got[i].numpy(), want, atol=2e-3 if crop == 1 else 0.02)


def test_views_say_where_each_pixel_lies_and_how_large_it_is() -> None:
    torch.manual_seed(0)
    side = 32
    points = (coordinates(64, side).flip(1) + 0.5) / side * 2 - 1  # bands x and y: each pixel says where it is
    views = Views(crop=0.3)
    placement = views.place(64, points.device)
    seen, _ = views.at(placement, points, torch.ones(64, side, side, dtype=torch.bool))
    grid = placement.grid(side, side)
    edge = 1 - 1 / side  # beyond the centres of the outermost pixels there is nothing to interpolate
    torch.testing.assert_close(seen.permute(0, 2, 3, 1), grid.clamp(-edge, edge), atol=1e-5, rtol=0)
    # the same by points, and back
    centres = points.flatten(2).mT
    torch.testing.assert_close(placement.to_chip(centres), grid.flatten(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(placement.to_view(grid.flatten(1, 2)), centres, atol=1e-5, rtol=0)
    # neighbours in the view lie a scaled pixel apart in the chip: 10 m become 10 m times the scale
    apart = (grid[:, :, 1:] - grid[:, :, :-1]).norm(dim=-1) * side / 2
    torch.testing.assert_close(apart, placement.scale.view(-1, 1, 1).expand_as(apart), atol=1e-4, rtol=0)
    assert placement.scale.min() >= math.sqrt(0.3)
    assert placement.scale.max() <= 1


def test_bf16_does_not_blur_where_a_view_looks() -> None:
    image, valid = torch.randn(4, 3, 128, 128), torch.ones(4, 128, 128, dtype=torch.bool)
    views = Views(crop=0.5)
    placement = views.place(4, image.device)
    points = torch.rand(4, 50, 2) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = views.at(placement, image, valid)
        there = placement.to_view(placement.to_chip(points))
    assert torch.equal(rounded, views.at(placement, image, valid)[0])
    torch.testing.assert_close(there, points, atol=1e-5, rtol=0)


def test_haze_is_a_veil_that_fades_with_wavelength() -> None:
    torch.manual_seed(0)
    wavelengths = torch.tensor([0.45, 0.9, float("nan"), 1.8])
    valid = torch.rand(4096, 2, 2) > 0.2
    veil, _ = Views(haze=0.3)(torch.zeros(4096, 4, 2, 2), valid, wavelengths)
    veil = veil.amax(dim=(2, 3))[valid.flatten(1).all(dim=1)]  # the same all over the view
    assert (veil[:, :2] > 0).all()
    assert (veil[:, 2] == 0).all()  # a band without a wavelength: radar sees through it
    assert abs(veil[:, 0].square().mean().sqrt() - 0.3) < 0.02
    # twice the wavelength: between 2^0.5 (very hazy) and 2^4 times less (very clear), by one law for all bands
    power = torch.log2(veil[:, 0] / veil[:, 1])
    assert 0.5 <= power.min() < 0.6
    assert 3.9 < power.max() <= 4.001
    torch.testing.assert_close(torch.log2(veil[:, 1] / veil[:, 3]), power, atol=1e-3, rtol=0)


def test_haze_asks_for_wavelengths() -> None:
    with pytest.raises(TrainingError, match="without wavelengths"):
        Views(haze=0.1)(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))


def test_views_are_drawn_from_torchs_own_generator() -> None:
    views = Views(crop=0.5, gain=0.1, bias=0.1, noise=0.1, haze=0.1)
    image, valid, wavelengths = torch.randn(3, 2, 8, 8), torch.rand(3, 8, 8) > 0.1, torch.tensor([0.5, 0.8])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(views(image, valid, wavelengths)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
