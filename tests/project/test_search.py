"""`geossl embed` and `geossl search` as a person meets them, on the small project's trained encoder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from geossl.cli.app import app
from geossl.errors import GeosslError, SettingsError, StoreError
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import embed
from geossl.project.stages.run import stage
from geossl.project.stages.search import search
from geossl.search.nearest import Exact, places_of, question
from geossl.search.table import Embeddings, Where

EXACT = ["search.milvus=none"]


@pytest.fixture(scope="module")
def project(small_project: Path) -> Project:
    project = Project.load(small_project, EXACT)
    for verb in ("ingest", "stats", "pretrain", "embed"):
        stage(verb)(project, silent)
    return project


@pytest.fixture(scope="module")
def embeddings(project: Project) -> Embeddings:
    record = project.state.get("embed")
    assert record is not None
    return Embeddings(project.embeddings / record.result["folder"])


def corner(project: Project) -> tuple[float, float]:
    """A point in the first chip's ground."""
    tile = project.scenes().tile(project.scenes().tile_ids[0])
    left, _, _, top = tile.bounds
    x, y = left + 50, top - 50
    point = shapely.Point(x, y)
    found = geopandas.GeoSeries([point], crs=tile.grid.crs).to_crs("EPSG:4326")[0]
    return found.x, found.y


def test_embedding_again_does_nothing(project: Project, embeddings: Embeddings) -> None:
    before = {path: path.stat().st_mtime_ns for path in embeddings.folder.iterdir()}
    assert embed.run(project, silent).skipped
    assert {path: path.stat().st_mtime_ns for path in embeddings.folder.iterdir()} == before
    frame = geopandas.read_parquet(embeddings.folder)
    scenes = project.scenes()
    assert set(frame["scene"]) <= set(scenes.items())
    assert set(frame["snapshot"]) == {scenes.snapshot} <= set(project.cube().tags().values())


def test_similar_places_are_of_the_same_land_cover(project: Project, embeddings: Embeddings) -> None:
    where, lattice = Where(), embeddings.about.lattice
    places = places_of(embeddings, where)
    truth = project.cube().view().labels("landcover")
    size, side = lattice.size, lattice.grid.tile_size
    cover, pure = [], []
    for row, col in places.tolist():
        label = truth.read(lattice.grid[col // side, row // side].id)
        counts = np.bincount(label[row % side :, col % side :][:size, :size].ravel(), minlength=256)[:255]
        cover.append(int(counts.argmax()))
        pure.append(counts.max() / size**2)
    of_place = dict(zip(map(tuple, places.tolist()), cover, strict=True))
    share = np.bincount(cover) / len(cover)
    rng = np.random.default_rng(0)
    same, chance = [], []
    for chosen in rng.permutation(np.flatnonzero(np.array(pure) > 0.7))[:40]:
        hits = Exact(embeddings).nearest(question(embeddings, places[[chosen]], where), where, 5)
        found = lattice.corners(
            [h.tile for h in hits], np.array([h.row for h in hits]), np.array([h.col for h in hits])
        )
        same.append(np.mean([of_place[tuple(place)] == cover[chosen] for place in found.tolist()]))
        chance.append(share[cover[chosen]])
    print(f"same land cover: {np.mean(same):.2f} of the answers, {np.mean(chance):.2f} by chance")
    assert np.mean(same) > np.mean(chance) + 0.15


def test_search_prints_geojson_and_draws_a_contact_sheet(
    project: Project, embeddings: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longitude, latitude = corner(project)
    assert latitude < 0, "the point of a leading hyphen"
    at = ["search", "--at", f"{longitude},{latitude}", "-p", str(project.root), "-s", *EXACT, "--most", "4"]
    capsys.readouterr()
    assert app(at, result_action="return_value") == 0
    told = capsys.readouterr()
    printed = json.loads(told.out)
    assert "contact sheet" in told.err
    assert len(printed["features"]) == 4
    assert app([*at, "--out", str(tmp_path / "found.geojson")], result_action="return_value") == 0
    assert json.loads((tmp_path / "found.geojson").read_text()) == printed
    frame = geopandas.read_file(tmp_path / "found.geojson")
    assert frame.crs == "EPSG:4326"
    assert list(frame["rank"]) == [1, 2, 3, 4]
    assert frame["similarity"].is_monotonic_decreasing
    whole = geopandas.read_parquet(embeddings.folder)
    keys = ["scene", "tile", "row", "col"]
    for found in frame.itertuples():
        (chip,) = whole[(whole[keys] == [getattr(found, key) for key in keys]).all(axis=1)].geometry
        assert chip.symmetric_difference(found.geometry).area < 1e-9 * chip.area + 1e-12
        assert not chip.intersects(shapely.Point(longitude, latitude))
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 4 * 192


def test_filters_hold_for_every_answer(project: Project) -> None:
    where = Where(np.datetime64("2022-01-01").item(), np.datetime64("2022-09-30").item(), 0.9)
    found = search(project, at=corner(project), where=where, most=6)
    assert found.geojson["features"]
    for feature in found.geojson["features"]:
        assert "2022-01-01" <= feature["properties"]["time"][:10] <= "2022-09-30"
        assert feature["properties"]["clear_fraction"] >= 0.9


def test_a_polygon_in_any_crs_asks_the_same(project: Project, embeddings: Embeddings, tmp_path: Path) -> None:
    box = embeddings.about.lattice.boxes(places_of(embeddings, Where())[[0]])
    frame = geopandas.GeoDataFrame(geometry=list(box), crs=embeddings.about.lattice.grid.crs)
    frame.to_file(tmp_path / "native.gpkg", driver="GPKG")
    frame.to_crs("EPSG:3857").to_file(tmp_path / "web.gpkg", driver="GPKG")
    by = [search(project, like=tmp_path / name, most=3).geojson["features"] for name in ("native.gpkg", "web.gpkg")]
    by.append(search(project, at=corner(project), most=3).geojson["features"])
    assert by[0] == by[1] == by[2]


def test_what_a_person_may_get_wrong(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longitude, latitude = corner(project)
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(10, 50, 10.1, 50.1)], crs="EPSG:4326")
    frame.to_file(tmp_path / "far.geojson", driver="GeoJSON")
    wrong: list[tuple[dict[str, object], str]] = [
        ({}, "--at LON,LAT or --like FILE"),
        ({"at": (longitude, latitude), "like": tmp_path / "far.geojson"}, "--at LON,LAT or --like FILE"),
        ({"at": (longitude + 3, latitude)}, "no chip with an embedding holds the point"),
        ({"at": (latitude, longitude)}, "longitude first"),
        ({"like": tmp_path / "far.geojson"}, "no chip with an embedding lies in the polygon"),
        ({"like": tmp_path / "absent.geojson"}, "cannot be read as a vector file"),
        ({"at": (longitude, latitude), "where": Where(clear=1.1)}, "ask for other dates, or less clear ones"),
    ]
    for asked, message in wrong:
        with pytest.raises(SettingsError, match=message):
            search(project, **asked)  # type: ignore[arg-type]
    for option in (["--at", "here"], ["--at", "200,0"], ["--at", "1,2", "--from", "yesterday"]):
        with pytest.raises(GeosslError):
            app(["search", *option, "-p", str(project.root)], result_action="return_value")


def copied(project: Project, folder: Path) -> Path:
    """A copy of what embedding and searching read and write."""
    for name in ("geossl.yaml", "store/cube", "store/encoders", "store/state", "store/embeddings"):
        source, target = project.root / name, folder / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    return folder


def test_with_the_extra_milvus_answers_the_same(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="the extra `search` is not installed")
    both = Project.load(copied(project, tmp_path))
    assert not embed.run(both, silent).skipped
    assert embed.run(both, silent).skipped
    exact, found = (search(each, at=corner(project), most=6).geojson for each in (project, both))
    assert (exact["query"]["by"], found["query"]["by"]) == ("exact comparison", "Milvus, lite")
    for one, other in zip(exact["features"], found["features"], strict=True):
        assert one["properties"]["similarity"] == pytest.approx(other["properties"].pop("similarity"), abs=1e-4)
        assert one | {"properties": one["properties"] | {"similarity": None}} == other | {
            "properties": other["properties"] | {"similarity": None}
        }
    # what Milvus lost is no reason to embed again, nor to go without
    shutil.rmtree(both.embeddings / "milvus.db")
    assert "Milvus had lost" in embed.run(both, silent).lines[0]
    assert search(both, at=corner(project), most=6).geojson["query"]["by"] == "Milvus, lite"


def test_stages_before_their_time_name_the_one_to_run(project: Project, tmp_path: Path) -> None:
    """A copy of the store as it was: before pretraining, before embedding, and with a newer encoder."""
    copied(project, tmp_path)
    state = tmp_path / "store" / "state"
    embedded = (state / "embed.json").read_text()
    (state / "embed.json").unlink()
    young = Project.load(tmp_path, EXACT)
    with pytest.raises(StoreError, match="run `geossl embed` first"):
        search(young, at=corner(project))
    (state / "embed.json").write_text(embedded)
    record = young.state.get("pretrain")
    assert record is not None
    newer = dataclasses.replace(record, result=record.result | {"encoder": "mae-vit-tiny-12345678"})
    (state / "pretrain.json").write_text(json.dumps(newer.__dict__))
    with pytest.raises(StoreError, match="but the project's is now mae-vit-tiny-12345678"):
        search(young, at=corner(project))
    (state / "pretrain.json").unlink()
    with pytest.raises(StoreError, match="pretrain"):
        embed.run(young, silent)
    with pytest.raises(StoreError, match="has no encoder yet"):
        search(young, at=corner(project))
