"""One small landscape that the room's tests share."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from geossl.demo.landscape import LandscapeInfo, LandscapeSettings, write_landscape
from geossl.demo.world import World, build_world

DAYS = {
    "before": date(2021, 6, 18),  # clear, processing baseline 03.01
    "cloudy": date(2022, 2, 8),
    "partial": date(2022, 5, 27),  # the neighbouring orbit
    "after": date(2022, 10, 21),  # clear, processing baseline 04.00
}
SETTINGS = LandscapeSettings(size=256, seed=0, dates=tuple(DAYS.values()))


@pytest.fixture(scope="session")
def settings() -> LandscapeSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> LandscapeInfo:
    return write_landscape(tmp_path_factory.mktemp("landscape"), SETTINGS)


@pytest.fixture(scope="session")
def scenes(landscape: LandscapeInfo) -> dict[str, Path]:
    """Item of every named day."""
    return dict(zip(DAYS, landscape.scenes, strict=True))


@pytest.fixture(scope="session")
def world() -> World:
    return build_world(SETTINGS.size, SETTINGS.seed)
