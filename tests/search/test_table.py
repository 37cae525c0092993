"""Embeddings on disk."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import torch
from pyproj import Transformer

from geossl.augment import Normalize
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.errors import RadiometryError, StoreError
from geossl.features import embed as pooled
from geossl.grid import Grid
from geossl.imagery.clouds import is_clear
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.search.embed import embed
from geossl.search.places import Lattice, near
from geossl.search.settings import SearchSettings
from geossl.search.table import About, Embeddings, Rows, Where

from .conftest import DIM, LATTICE, SCENES, rows


def table(folder: Path, encoder: tuple[Encoder, Card], scenes: Collection) -> Embeddings:
    about = About(encoder[1].id, scenes.name, Lattice(scenes.grid.plain, 64), encoder[0].dims[-1])
    return Embeddings.create(folder, about)


def test_geopandas_reads_the_folder_as_one_table_in_the_right_place(made: Embeddings) -> None:
    frame = geopandas.read_parquet(made.folder)
    assert frame.crs == "EPSG:4326"
    assert len(frame) == 512 == made.count()
    assert set(frame["scene"]) == set(SCENES)
    assert str(frame["time"].dtype).endswith("UTC]")
    assert set(frame["encoder"]) == {made.about.encoder}
    assert set(frame["snapshot"]) == {"SNAPSHOT1"}
    wanted = np.concatenate([rows(scene).vectors for scene in sorted(SCENES)])
    found = frame.sort_values(["scene", "tile", "row", "col"])
    np.testing.assert_array_equal(np.stack(list(found["embedding"])), wanted)
    # an outline is the chip's: back on the grid it is 640 m wide and where its tile, row and column say
    there = found.to_crs(LATTICE.grid.crs).bounds.to_numpy()
    for row in (0, 77, 500):
        chip = found.iloc[row]
        left, _, _, top = LATTICE.grid.tile(chip["tile"]).bounds
        west, north = left + 10 * chip["col"], top - 10 * chip["row"]
        np.testing.assert_allclose(there[row], [west, north - 640, west + 640, north], atol=0.01)
    assert shapely.is_ccw(shapely.get_exterior_ring(found.geometry.to_numpy())).all()


def test_every_file_carries_the_card_and_fixed_size_vectors(made: Embeddings) -> None:
    path = made.folder / "scene-4.parquet"
    schema = pq.read_schema(path)
    assert json.loads(schema.metadata[b"geossl"])["card"] == {"method": "simclr"}
    assert json.loads(schema.metadata[b"geo"])["primary_column"] == "geometry"
    field = schema.field("embedding").type
    assert (field.list_size, str(field.value_type)) == (DIM, "float")


def test_outlines_at_the_antimeridian_are_cut_in_two() -> None:
    lattice = Lattice(Grid("EPSG:32601", 10, 512), 64)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(180, -17)
    corner = np.array([[int(-y // 10) - 32, int(x // 10) - 32]])
    (found,) = lattice.footprints(corner)
    assert len(found.geoms) == 2
    assert found.area < 1e-3
    west, _, east, _ = found.bounds
    assert (west, east) == (-180, 180)


def test_a_day_is_whole(made: Embeddings) -> None:
    day = dt.date(2024, 4, 10)
    found = [scene for part in made.scan(["scene"], Where(day, day)) for scene in part["scene"].to_pylist()]
    assert set(found) == {"scene-4"}
    assert len(found) == 128
    assert not list(made.scan(["scene"], Where(until=dt.date(2024, 1, 9))))


def test_what_is_cut_off_while_writing_leaves_what_was_there(made: Embeddings) -> None:
    before = (made.folder / "scene-4.parquet").read_bytes()

    def some() -> Iterator[Rows]:
        yield rows("scene-4", seed=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.write("scene-4", "second", "SNAPSHOT2", {}, some())
    assert (made.folder / "scene-4.parquet").read_bytes() == before
    assert made.keys() == dict.fromkeys(SCENES, "first")
    assert len(geopandas.read_parquet(made.folder)) == 512


def test_a_damaged_file_counts_as_none_and_is_named_in_a_search(made: Embeddings) -> None:
    path = made.folder / "scene-4.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert set(made.keys()) == set(SCENES) - {"scene-4"}
    with pytest.raises(StoreError, match="geossl embed"):
        list(made.scan(["scene"]))


def test_embeddings_are_what_the_encoder_says_of_clear_chips(
    tmp_path: Path, scenes: Collection, encoder: tuple[Encoder, Card]
) -> None:
    into = table(tmp_path, encoder, scenes)
    new, count = embed(into, scenes, *encoder, SearchSettings(min_clear=0.6))
    assert new == ["scene-0", "scene-1", "scene-2"]
    frame = geopandas.read_parquet(tmp_path)
    assert len(frame) == count
    seen = {}
    for tile_id in scenes.tile_ids:
        image, quality = np.asarray(scenes.image(tile_id)[:]), np.asarray(scenes.quality(tile_id)[:])
        for step, scene in enumerate(scenes.scene_ids(tile_id)):
            for row in range(0, 512, 64):
                for col in range(0, 512, 64):
                    part = np.s_[step, ..., row : row + 64, col : col + 64]
                    seen[scene, tile_id, row, col] = image[part], is_clear(quality[part])
    clear = {key for key, (_, valid) in seen.items() if valid.mean() >= 0.6}
    assert {tuple(chip) for chip in frame[["scene", "tile", "row", "col"]].to_numpy().tolist()} == clear
    for chip in frame.sample(12, random_state=0).itertuples():
        image, valid = seen[chip.scene, chip.tile, chip.row, chip.col]
        batch = {"image": torch.from_numpy(image[None]), "valid": torch.from_numpy(valid[None])}
        (wanted,) = pooled(encoder[0], [batch], Normalize.from_statistics(encoder[1].statistics))
        np.testing.assert_allclose(chip.embedding, wanted, atol=1e-4)
        assert chip.clear_fraction == pytest.approx(valid.mean(), abs=1e-6)


def test_only_what_is_new_is_embedded(
    tmp_path: Path, scenes: Collection, encoder: tuple[Encoder, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    into = table(tmp_path, encoder, scenes)
    settings = SearchSettings()
    read: list[int] = []
    real = ChipReader.read
    monkeypatch.setattr(ChipReader, "read", lambda self, index, rows, out: (read.append(len(rows)), real(self, index, rows, out))[1])  # fmt: skip
    assert len(embed(into, scenes, *encoder, settings)[0]) == 3
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    read.clear()
    assert embed(into, scenes, *encoder, settings) == ([], 0)
    assert read == []
    # a scene that is missing, one under another key (processed again), and one that the cube no longer has
    into.remove("scene-0")
    into.write("scene-1", "older", "SNAPSHOT0", {}, [])
    into.write("gone", "any", "SNAPSHOT0", {}, [])
    new, _ = embed(into, scenes, *encoder, settings)
    assert new == ["scene-0", "scene-1"]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")} == first


def test_interrupted_embedding_goes_on_where_it_stopped(
    tmp_path: Path, scenes: Collection, encoder: tuple[Encoder, Card]
) -> None:
    into = table(tmp_path, encoder, scenes)

    def cut(what: str, done: int, total: int | None, note: str = "") -> None:
        if total and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(into, scenes, *encoder, SearchSettings(), progress=cut)
    kept = into.keys()
    assert 0 < len(kept) < 3
    assert set(embed(into, scenes, *encoder, SearchSettings())[0]) == set(into.keys()) - set(kept)
    assert not list(tmp_path.glob(".partial*"))


def test_imagery_of_other_bands_is_refused(tmp_path: Path, scenes: Collection, encoder: tuple[Encoder, Card]) -> None:
    network, card = encoder
    other = dataclasses.replace(card, sensor=card.sensor.subset(("blue", "green", "red")))
    with pytest.raises(RadiometryError):
        embed(table(tmp_path, encoder, scenes), scenes, network, other, SearchSettings())


def test_rows_are_written_as_they_come(made: Embeddings) -> None:
    """A thousand rows or so are in memory: a group is on its way to the disk before more is asked for."""
    sizes: list[int] = []

    def many() -> Iterator[Rows]:
        for _ in range(40):
            sizes.extend(path.stat().st_size for path in made.folder.glob(".partial*"))
            yield rows("scene-4")

    made.write("scene-4", "k", "S", {}, many())
    metadata = pq.read_metadata(made.folder / "scene-4.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [1024] * 5
    assert sizes[8] < sizes[20] < sizes[39]


def test_nothing_clear_is_told(tmp_path: Path) -> None:
    empty = Embeddings.create(tmp_path, About("e", "c", LATTICE, DIM))
    empty.write("scene-1", "k", "S", {}, [])
    with pytest.raises(StoreError, match=r"search\.min_clear"):
        empty.settle()


def test_near_is_overlap_or_touch() -> None:
    corners = np.array([[0, 0], [64, 64], [65, 0], [-64, 10], [0, 130]])
    assert near(corners, np.array([0, 0]), 64).tolist() == [True, True, False, True, False]
