"""Multi-scale statistics against a plain loop over windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geossl.downstream import neighbourhood


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5]), st.floats(0, 1))
def test_statistics_are_those_of_the_valid_pixels_in_the_window(seed: int, side: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, 9, 7)).astype(np.float32)
    valid = rng.random((9, 7)) < share
    image[:, ~valid] = np.nan
    features = neighbourhood.multi_scale(image, valid, (side,))
    assert features.shape == (neighbourhood.count(2, (side,)), 9, 7)
    for row, col in np.ndindex(9, 7):
        y, x = (slice(max(0, i - side // 2), i + side // 2 + 1) for i in (row, col))
        inside = image[:, y, x][:, valid[y, x]]
        mean = inside.mean(axis=1) if inside.size else np.zeros(2)
        std = inside.std(axis=1) if inside.size else np.zeros(2)
        assert features[2:4, row, col] == pytest.approx(mean, abs=1e-4)
        # a deviation is the root of a rounded difference
        assert features[4:6, row, col] == pytest.approx(std, abs=2e-3)
    assert (features[:2][:, valid] == image[:, valid]).all()


def test_small_windows_come_first() -> None:
    rng = np.random.default_rng(0)
    image, valid = rng.normal(size=(3, 40, 40)).astype(np.float32), np.ones((40, 40), bool)
    near = neighbourhood.multi_scale(image, valid, (3, 5))
    assert (neighbourhood.multi_scale(image, valid)[: len(near)] == near).all()
