"""The rules of composites against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geossl.cube.reduce import median, medoid, score


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_median_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "float32"]))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype == "float32" else {}
    stack = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype), **finite)))
    clear = data.draw(hnp.arrays(bool, shape))
    found = median(stack, clear, nodata=7)
    for pixel in range(shape[1]):
        seen = stack[clear[:, pixel], pixel].astype(np.float64)
        expected = np.median(seen) if seen.size else 7.0
        assert found[pixel] == (np.float32(expected) if dtype == "float32" else np.rint(expected))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_medoid_is_the_observation_nearest_to_all_others(data: st.DataObject) -> None:
    times, bands, height, width = (data.draw(st.integers(1, side)) for side in (6, 4, 40, 3))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16"]))
    # few values, so that equal distances occur
    stack = data.draw(hnp.arrays(dtype, (times, bands, height, width), elements=st.integers(0, 3)))
    clear = data.draw(hnp.arrays(bool, (times, height, width)))
    found = medoid(stack, clear)
    for y, x in np.ndindex(height, width):
        seen = np.flatnonzero(clear[:, y, x])
        if not seen.size:
            continue
        spectra = stack[seen, :, y, x].astype(np.float64)
        sums = [np.linalg.norm(spectra - one, axis=1).sum() for one in spectra]
        assert sums[list(seen).index(found[y, x])] <= min(sums) + 1e-9


def test_of_two_clear_dates_the_nearer_wins_unless_a_cloud_is_near() -> None:
    sky = np.ones((1, 200), bool)
    cloudy = sky.copy()
    cloudy[0, :50] = False
    near, late = score(cloudy, 0, 20), score(sky, 30, 20)
    assert (near[0, :50] == -1).all()
    assert near[0, 51] < late[0, 51]
    assert near[0, 150] > late[0, 150]
    assert (np.diff(near[0, 50:]) >= 0).all()
