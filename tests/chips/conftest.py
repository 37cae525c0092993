"""A small collection to read chips from."""

from __future__ import annotations

import pytest

from geossl.cube.collection import Collection, Labels
from geossl.cube.repository import Cube


@pytest.fixture(scope="session")
def collection(tiny_cube: Cube) -> Collection:
    return tiny_cube.view().collection("sentinel-2-l2a")


@pytest.fixture(scope="session")
def radar(radar_cube: Cube) -> Collection:
    return radar_cube.view().collection("sentinel-1-rtc")


@pytest.fixture(scope="session")
def labels(tiny_cube: Cube) -> Labels:
    return tiny_cube.view().labels("landcover")
