"""The exported table of scenes, read back by others than who wrote it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import geopandas
import pystac
import pytest
import rustac
import shapely.geometry

from geossl.cube.ingest import ingest
from geossl.cube.ledger import export_ledger
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import StoreError
from geossl.imagery.scene import Scene

from .conftest import CORNER, GRID, SENSOR, SceneMaker, pixels_of

WEST, EAST = GRID[CORNER].id, GRID[CORNER[0] + 1, CORNER[1]].id


def test_others_read_what_became_of_every_scene(cube: Cube, make_scene: SceneMaker, tmp_path: Path) -> None:
    cloud = (slice(0, 128), slice(0, 256))
    scenes = [make_scene(0), make_scene(1, nodata=(slice(None), slice(0, 256))), make_scene(2, cloud=cloud)]
    ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings())
    replaced = make_scene(0, image=pixels_of(70, 256, 512))
    ingest(cube, [replaced], SENSOR, GRID, "s2", IngestSettings())
    path = tmp_path / "out" / "scenes.parquet"
    assert export_ledger(cube.view(), "s2", path) == 3

    frame = geopandas.read_parquet(path).set_index("id")
    assert frame.crs.to_epsg() == 4326
    assert frame["geossl:revision"].to_dict() == {"scene-000": 1, "scene-001": 0, "scene-002": 0}
    assert frame["geossl:checksum"]["scene-000"] == replaced.checksum()
    assert {scene: sorted(tiles) for scene, tiles in frame["geossl:tiles"].items()} == {
        "scene-000": sorted([WEST, EAST]),
        "scene-001": [EAST],
        "scene-002": sorted([WEST, EAST]),
    }
    assert frame["geossl:clear_fraction"].to_dict() == {"scene-000": 1.0, "scene-001": 1.0, "scene-002": 0.75}
    assert set(frame["geossl:snapshot"]) == {cube.snapshot()}
    for scene in scenes:
        assert frame.geometry[scene.id].equals(shapely.geometry.shape(scene.footprint))
        assert frame["datetime"][scene.id].to_pydatetime() == scene.time

    items = {item["id"]: item for item in asyncio.run(by_rustac(path))["features"]}
    for scene in scenes:
        found = pystac.Item.from_dict(json.loads(json.dumps(items[scene.id])))
        again = Scene.from_item(found, SENSOR)
        assert {name: (asset.href, asset.index) for name, asset in again.bands.items()} == {
            name: (asset.href, asset.index) for name, asset in scene.bands.items()
        }
        assert (again.time, again.crs, again.sensor) == (scene.time, scene.crs, scene.sensor)
        assert found.properties["geossl:revision"] == (scene.id == "scene-000")
        assert found.collection_id == "s2"


async def by_rustac(path: Path) -> dict[str, Any]:
    return dict(await rustac.read(str(path)))


def test_what_has_no_scenes_is_not_exported(cube: Cube, tiny_cube: Cube, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no scene"):
        export_ledger(tiny_cube.view(), "sentinel-2-l2a", tmp_path / "x.parquet")
    with pytest.raises(StoreError, match="no collection"):
        export_ledger(cube.view(), "s2", tmp_path / "x.parquet")
