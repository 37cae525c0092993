from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geossl.demo.terrain import _accumulate, _route
from geossl.demo.world import World

_reliefs = hnp.arrays(np.float32, (9, 9), elements=st.floats(0, 100, width=32))


@given(_reliefs)
@settings(max_examples=50, deadline=None)
def test_all_water_reaches_the_edge(elevation: np.ndarray) -> None:
    filled, parent, order = _route(elevation)
    assert sorted(order) == list(range(81))
    assert (filled >= elevation).all()
    flat = filled.ravel()
    assert (flat[parent] <= flat).all()
    at = np.arange(81)
    for _ in range(81):
        at = parent[at]
    row, column = np.divmod(at, 9)
    assert np.isin(row, (0, 8)).sum() + np.isin(column, (0, 8)).sum() >= 81
    area = _accumulate(parent, order)
    assert area[parent == np.arange(81)].sum() == 81


def test_the_river_crosses_and_lies_low(world: World) -> None:
    terrain = world.terrain
    river = terrain.bank < 0
    assert river[:, 0].any()
    assert river[:, -1].any()
    assert terrain.elevation[river].mean() < terrain.elevation[terrain.bank > 40].mean() - 10
    assert not (terrain.lake & river).any()
    # bars lie on the inside of bends only, so beside some banks there are none
    beside = (terrain.bank >= 0) & (terrain.bank < 2)
    assert 0 < (terrain.sandbar[beside] > 1).mean() < 0.7
