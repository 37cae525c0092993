"""What an ingest would do, beside what it then does."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import Client

from geossl.cube.ingest import ingest
from geossl.cube.plan import IngestPlan, plan
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError
from geossl.grid import Grid
from geossl.imagery.scene import Rejected, Scene

from .conftest import GRID, SENSOR, SceneMaker


def planned(uri: str, scenes: list[Scene | Rejected], client: Client | None = None) -> IngestPlan:
    return plan(uri, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2), client)


@pytest.mark.parametrize("parallel", [False, True])
def test_a_plan_is_what_ingest_then_does(
    tmp_path: Path, make_scene: SceneMaker, client: Client, parallel: bool
) -> None:
    rejected = Rejected("x.tif", "no date")
    outside = make_scene(9)
    Path(outside.bands["B04"].href).write_bytes(b"")
    scenes = [*(make_scene(number, tiles=(1 + number % 2, 2)) for number in range(6)), rejected, outside]
    store = tmp_path / "store"
    found = planned(str(store / "cube"), scenes, client if parallel else None)
    assert list(store.iterdir()) == []  # nothing of the sample is left
    assert (found.scenes, found.tiles, found.already) == (6, 18, 0)
    assert [item.source for item in found.set_aside] == ["x.tif", outside.id]
    assert found.sampled == 8
    assert found.seconds > 0
    cube = Cube.create(str(store / "cube"))
    report = ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=2))
    assert (len(report.ingested), report.tiles) == (found.scenes, found.tiles)
    chunks = sum(file.stat().st_size for file in (store / "cube" / "chunks").iterdir())
    assert found.stored == pytest.approx(chunks, rel=0.1)
    assert found.scratch == pytest.approx(chunks / 3, rel=0.1)


def test_what_is_there_is_not_planned_again(tmp_path: Path, make_scene: SceneMaker) -> None:
    uri = str(tmp_path / "cube")
    scenes = [make_scene(number) for number in range(3)]
    ingest(Cube.create(uri), scenes[:2], SENSOR, GRID, "s2", IngestSettings())
    snapshot = Cube.open(uri).snapshot()
    found = planned(uri, scenes)
    assert (found.scenes, found.tiles, found.already) == (1, 2, 2)
    assert Cube.open(uri).snapshot() == snapshot
    nothing = planned(uri, scenes[:2])
    assert (nothing.scenes, nothing.tiles, nothing.stored, nothing.sampled) == (0, 0, 0, 0)


def test_tiles_without_data_store_nothing(tmp_path: Path, make_scene: SceneMaker) -> None:
    half = (slice(None), slice(0, 256))
    scenes = [make_scene(number, nodata=half) for number in range(4)]
    full = [make_scene(number, subfolder="full") for number in range(4)]
    assert planned(str(tmp_path / "a"), scenes).stored == pytest.approx(
        planned(str(tmp_path / "b"), full).stored / 2, rel=0.05
    )


def test_a_plan_for_another_collection_is_refused(tmp_path: Path, make_scene: SceneMaker) -> None:
    uri = str(tmp_path / "cube")
    ingest(Cube.create(uri), [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    with pytest.raises(StoreError):
        plan(uri, [make_scene(1)], SENSOR, Grid(GRID.crs, 10, 512), "s2", IngestSettings())


def test_a_disk_that_is_too_small_is_said() -> None:
    assert IngestPlan(stored=8, free=10, reserve=5).missing == 3
    assert IngestPlan(stored=8, free=13, reserve=5).missing == 0
    assert IngestPlan(stored=8, free=None, reserve=5).missing == 0
