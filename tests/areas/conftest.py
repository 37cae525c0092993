"""A small sample of a made-up map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geossl.areas.sample import Point, Sample, StratumRow
from geossl.legend import LandClass, Legend

LEGEND = Legend((LandClass(0, "stable", "#d9d9d9"), LandClass(5, "cleared", "#d7191c")))


def build(points: tuple[int, ...] = (30, 20, 20)) -> Sample:
    """Strata: stable (9,000 ha), cleared (100 ha), stable near cleared (300 ha); points in rows of pixels of 10 m."""
    names, codes, hectares = ("stable", "cleared", "stable near cleared"), (0, 5, 0), (9000.0, 100.0, 300.0)
    strata = tuple(
        StratumRow(name, code, h == 2, int(ha * 100), ha, n, n / (ha * 100))
        for h, (name, code, ha, n) in enumerate(zip(names, codes, hectares, points, strict=True))
    )
    rng = np.random.default_rng(0)
    of = rng.permutation(np.repeat(np.arange(3), points))
    drawn = tuple(
        Point(
            plot=i + 1, stratum=int(h), mapped=codes[h], row=0, col=i, x=500_005 + 10 * i, y=9_399_995,
            lon=-51 + 9e-5 * i, lat=-5.4, size=1.0,
        )
        for i, h in enumerate(of)
    )  # fmt: skip
    about = {
        "id": "demo",
        "created": "",
        "map": "m",
        "release": "r",
        "checksum": "",
        "snapshot": "S",
        "collection": "c",
    }
    return Sample(
        **about, dates=("2020", "2021"), crs="EPSG:32722", resolution=10, unmapped=7, distortion=0.0, legend=LEGEND,
        design={}, strata=strata, points=drawn,
    )  # fmt: skip


@pytest.fixture
def sample() -> Sample:
    return build()


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    return build
