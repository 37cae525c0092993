"""Ingest: what is written is what the files hold, once, and nothing of what could not be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geom import box

from geossl.bands import Sensor
from geossl.cube import repository
from geossl.cube.ingest import ingest
from geossl.cube.report import IngestReport
from geossl.cube.repository import Cube
from geossl.cube.scenes import quarantined
from geossl.cube.settings import IngestSettings
from geossl.cube.survey import tiles_of
from geossl.errors import RadiometryError, StoreError
from geossl.grid import Grid
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.warp import scene_geobox

from .conftest import CORNER, GRID, SENSOR, SceneMaker, digest, pixels_of

WEST, EAST = GRID[CORNER].id, GRID[CORNER[0] + 1, CORNER[1]].id


def run(cube: Cube, scenes: list[Scene | Rejected], wave: int = 16) -> IngestReport:
    return ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(wave=wave))


def test_steps_hold_the_files_numbers_in_order_of_arrival(cube: Cube, make_scene: SceneMaker) -> None:
    cloud = (slice(0, 64), slice(0, 128))
    scenes = [make_scene(3), make_scene(1, cloud=cloud)]
    report = run(cube, scenes)
    assert report.ingested == ["scene-003", "scene-001"]
    assert report.tiles == 4
    collection = cube.view().collection("s2")
    assert collection.tile_ids == [WEST, EAST]
    for tile_id, columns in ((WEST, slice(0, 256)), (EAST, slice(256, 512))):
        assert collection.scene_ids(tile_id) == ["scene-003", "scene-001"]
        for step, number in enumerate((3, 1)):
            np.testing.assert_array_equal(collection.image(tile_id)[step], pixels_of(number, 256, 512)[:, :, columns])
    assert collection.times(WEST).tolist() == [np.datetime64(s.time.replace(tzinfo=None), "ns").item() for s in scenes]
    np.testing.assert_array_equal(collection.clear_fraction(WEST), np.float32([1, 1 - 64 * 128 / 256**2]))
    np.testing.assert_array_equal(collection.chunk_clear(WEST)[:, 0, 0], collection.clear_fraction(WEST))
    assert (np.asarray(collection.quality(WEST)[1])[cloud] == 2).all()
    assert np.count_nonzero(collection.quality(WEST)[1]) == 64 * 128


def test_a_second_ingest_changes_nothing(cube: Cube, make_scene: SceneMaker) -> None:
    # a tile without data is not read again either
    scenes = [make_scene(0), make_scene(1, nodata=(slice(None), slice(256, None)))]
    first = run(cube, scenes)
    files = sorted(Path(cube.uri).rglob("*"))
    again = run(cube, scenes, wave=1)
    assert sorted(Path(cube.uri).rglob("*")) == files
    assert again.already == ["scene-000", "scene-001"]
    assert (again.ingested, again.set_aside, again.tiles) == ([], [], 0)
    assert cube.snapshot() == first.snapshot == again.snapshot


def test_a_tile_without_data_gets_no_step(cube: Cube, make_scene: SceneMaker) -> None:
    half = (slice(None), slice(0, 256))
    run(cube, [make_scene(0, nodata=half), make_scene(1, nodata=half), make_scene(2)])
    collection = cube.view().collection("s2")
    assert collection.scene_ids(WEST) == ["scene-002"]
    assert collection.scene_ids(EAST) == ["scene-000", "scene-001", "scene-002"]
    np.testing.assert_array_equal(collection.image(WEST)[:], pixels_of(2, 256, 512)[None, :, :, :256])


def test_other_files_overwrite_the_step_with_the_next_revision(cube: Cube, make_scene: SceneMaker) -> None:
    run(cube, [make_scene(0), make_scene(1), make_scene(2)])
    replaced = make_scene(1, image=pixels_of(77, 256, 512), nodata=(slice(None), slice(0, 256)))
    report = run(cube, [make_scene(0), replaced, make_scene(2)])
    assert (report.ingested, report.already) == (["scene-001"], ["scene-000", "scene-002"])
    collection = cube.view().collection("s2")
    assert collection.scene_ids(EAST) == ["scene-000", "scene-001", "scene-002"]
    assert collection.revisions(EAST).tolist() == [0, 1, 0]
    assert collection.checksums(EAST)[1] == replaced.checksum()
    np.testing.assert_array_equal(collection.image(EAST)[1], pixels_of(77, 256, 512)[:, :, 256:])
    np.testing.assert_array_equal(collection.image(EAST)[2], pixels_of(2, 256, 512)[:, :, 256:])
    # where the new files hold nothing, nothing of the old ones is left
    assert (np.asarray(collection.image(WEST)[1]) == -32768).all()
    assert collection.clear_fraction(WEST).tolist() == [1, 0, 1]


def test_a_bad_scene_is_set_aside_and_leaves_no_trace(
    cube: Cube, make_scene: SceneMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [make_scene(0), make_scene(2)]
    bad = make_scene(1)
    truncate(Path(bad.bands["B04"].href))
    report = run(cube, [good[0], bad, good[1]])
    assert report.ingested == ["scene-000", "scene-002"]
    assert [item.source for item in report.set_aside] == ["scene-001"]
    assert [item.source for item in quarantined(cube.view(), "s2")] == ["scene-001"]
    other = Cube.create(str(tmp_path / "other"))
    run(other, good)
    ours, theirs = digest(cube.view()), digest(other.view())
    assert ours.pop("") != theirs.pop("")  # the root alone knows of the quarantine
    assert ours == theirs


def test_a_scene_that_breaks_half_way_is_set_aside_too(cube: Cube, make_scene: SceneMaker, tmp_path: Path) -> None:
    """Damage that no header shows: the first tile is read and written, the second cannot be."""
    good = [make_scene(0), make_scene(2)]
    bad = make_scene(1)
    damage_last_block(Path(bad.bands["B08"].href))
    report = run(cube, [good[0], bad, good[1]])
    assert report.ingested == ["scene-000", "scene-002"]
    assert "X offset 1" in report.set_aside[0].reason
    other = Cube.create(str(tmp_path / "other"))
    run(other, good)
    ours, theirs = digest(cube.view()), digest(other.view())
    del ours[""], theirs[""]
    assert ours == theirs


def test_half_a_replacement_is_no_replacement(cube: Cube, make_scene: SceneMaker) -> None:
    run(cube, [make_scene(0)])
    before = digest(cube.view())
    bad = make_scene(0, image=pixels_of(5, 256, 512))
    damage_last_block(Path(bad.bands["B08"].href))
    assert run(cube, [bad]).ingested == []
    after = digest(cube.view())
    del before[""], after[""]
    assert after == before


def test_a_mended_scene_leaves_the_quarantine(cube: Cube, make_scene: SceneMaker) -> None:
    bad = make_scene(0)
    path = Path(bad.bands["B04"].href)
    truncate(path)
    run(cube, [bad, Rejected(str(path.with_name("x.tif")), "no date"), Rejected(bad.masks["scl"].href, "odd")])
    assert {item.source for item in quarantined(cube.view(), "s2")} == {
        "scene-000",
        str(path.with_name("x.tif")),
        str(path.with_name("scene-000-scl.tif")),
    }
    run(cube, [make_scene(0)])
    assert quarantined(cube.view(), "s2") == [Rejected(str(path.with_name("x.tif")), "no date")]


def test_what_is_set_aside_again_makes_no_commit(cube: Cube, make_scene: SceneMaker) -> None:
    bad = make_scene(0)
    truncate(Path(bad.bands["B04"].href))
    first = run(cube, [bad])
    assert cube.view().collections() == []
    assert run(cube, [bad]).snapshot == first.snapshot == cube.snapshot()


def test_a_scene_of_pure_nodata_is_set_aside(cube: Cube, make_scene: SceneMaker) -> None:
    everything = (slice(None), slice(None))
    report = run(cube, [make_scene(0, nodata=everything), make_scene(1)])
    assert report.ingested == ["scene-001"]
    assert "no-data" in report.set_aside[0].reason


def test_two_scenes_of_one_id_in_one_ingest(cube: Cube, make_scene: SceneMaker) -> None:
    first = make_scene(0)
    same = make_scene(0, subfolder="copy")
    other = make_scene(1, name="scene-000", subfolder="other")
    report = run(cube, [first, same, other])
    assert report.ingested == ["scene-000"]
    assert [item.source for item in report.set_aside] == [other.bands["B04"].href]
    assert cube.view().collection("s2").revisions(WEST).tolist() == [0]


def test_a_larger_area_adds_tiles_to_known_scenes(cube: Cube, make_scene: SceneMaker) -> None:
    scenes = [make_scene(0), make_scene(1)]
    inner = box(*(GRID.tile(EAST).bounds.bbox[0] + 500, *GRID.tile(EAST).bounds.bbox[1:]), GRID.crs)
    small = ingest(cube, scenes, SENSOR, GRID, "s2", IngestSettings(), area=inner)
    assert (small.tiles, cube.view().collection("s2").tile_ids) == (2, [EAST])
    large = run(cube, scenes)
    assert (large.ingested, large.tiles) == (["scene-000", "scene-001"], 2)
    assert cube.view().collection("s2").revisions(WEST).tolist() == [0, 0]
    assert run(cube, scenes).already == ["scene-000", "scene-001"]


def test_a_scene_outside_the_area_is_set_aside(cube: Cube, make_scene: SceneMaker) -> None:
    away = box(-60, 10, -59, 11, "EPSG:4326")
    report = ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings(), area=away)
    assert "outside" in report.set_aside[0].reason


@pytest.mark.parametrize(
    ("sensor", "grid", "error"),
    [(SENSOR.subset(["red"]), GRID, RadiometryError), (SENSOR, Grid(GRID.crs, 20, 256), StoreError)],
)
def test_a_collection_keeps_its_sensor_and_grid(
    cube: Cube, make_scene: SceneMaker, sensor: Sensor, grid: Grid, error: type[Exception]
) -> None:
    run(cube, [make_scene(0)])
    with pytest.raises(error):
        ingest(cube, [make_scene(1)], sensor, grid, "s2", IngestSettings())


def test_scenes_come_in_waves_of_one_commit(cube: Cube, make_scene: SceneMaker) -> None:
    """Scenes are drawn from the source as waves need them; what was committed survives an interrupt."""
    before = len(cube.log())

    def source() -> Iterator[Scene]:
        yield from (make_scene(number) for number in range(4))
        assert len(cube.log()) == before + 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(cube, source(), SENSOR, GRID, "s2", IngestSettings(wave=2))
    assert cube.view().collection("s2").scene_ids(WEST) == [f"scene-00{number}" for number in range(4)]


def test_losing_the_race_for_a_commit_plans_again(
    cube: Cube, make_scene: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an object store, which has no lock: another ingest commits between plan and commit."""
    monkeypatch.setattr(repository, "local_folder", lambda _: None)
    rival = Cube.open(cube.uri)

    def meanwhile(what: str, done: int, total: int | None, note: str = "") -> None:
        if what == "tiles" and len(cube.log()) == 2:
            run(rival, [make_scene(1)])

    report = ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings(), progress=meanwhile)
    assert (report.ingested, report.tiles) == (["scene-000"], 2)
    collection = cube.view().collection("s2")
    assert collection.scene_ids(WEST) == ["scene-001", "scene-000"]
    for step, number in enumerate((1, 0)):
        np.testing.assert_array_equal(collection.image(WEST)[step], pixels_of(number, 256, 512)[:, :, :256])


def test_items_tell_where_a_scene_came_from(cube: Cube, make_scene: SceneMaker) -> None:
    scene = make_scene(0)
    run(cube, [scene])
    item = cube.view().collection("s2").items()["scene-000"]
    assert item["assets"]["B04"]["href"] == scene.bands["B04"].href
    assert item["properties"]["datetime"] == "2024-01-01T13:40:00Z"


def test_tiles_of_a_scene_in_another_projection(make_scene: SceneMaker, tmp_path: Path) -> None:
    """Every tile on which a pixel of the raster falls is found, whatever the coarse footprint says."""
    scene = make_scene(0)
    path = tmp_path / "degrees.tif"
    west, south, east, north = GRID[CORNER].extent.buffer(3000).to_crs("EPSG:4326").boundingbox.bbox
    transform = rasterio.transform.from_bounds(west, south, east, north, 50, 50)
    profile = {"width": 50, "height": 50, "count": 2, "dtype": "int16", "crs": "EPSG:4326", "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(np.ones((2, 50, 50), np.int16))
    bands = {name: dataclasses.replace(asset, href=str(path)) for name, asset in scene.bands.items()}
    scene = dataclasses.replace(scene, bands=bands, masks={})
    x, y = CORNER
    found = {tile.id for tile in tiles_of(scene_geobox(scene), GRID)}
    assert {f"x{x + i}y{y + j}" for i in (-1, 0, 1) for j in (-1, 0, 1)} <= found
    assert [tile.id for tile in tiles_of(scene_geobox(scene), GRID, GRID[CORNER].extent.buffer(-1))] == [WEST]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_last_block(path: Path) -> None:
    """Overwrite the start of the file's last compressed block, leaving all headers and lengths alone."""
    with rasterio.open(path) as file:
        last = f"{(file.width - 1) // file.block_shapes[1][1]}_0"
        start, size = (int(file.get_tag_item(f"BLOCK_{key}_{last}", "TIFF", bidx=2)) for key in ("OFFSET", "SIZE"))
    data = bytearray(path.read_bytes())
    data[start : start + size // 2] = b"\xff" * (size // 2)
    path.write_bytes(data)
