"""What is predicted again: only what is not as it would be predicted now."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.maps.predict import predict_map
from geossl.maps.settings import MapSettings
from geossl.maps.tiles import TileFolder

from .conftest import lattices, one_step


def test_only_tiles_whose_pixels_changed_are_predicted_again(new_collection, new_task, tmp_path):
    task, options = new_task(window=64, margin=4), MapSettings(overlap=8)
    collection = new_collection(columns=4, rows=1)
    first = predict_map(task, collection, one_step(collection), tmp_path, settings=options)
    assert first.computed == tuple(collection.tile_ids)
    stamps = {path: os.stat(path).st_mtime_ns for path in tmp_path.iterdir()}

    second = predict_map(task, collection, one_step(collection), tmp_path, settings=options)
    assert second.computed == ()
    assert second.windows == 0
    assert second.records == first.records
    assert {path: os.stat(path).st_mtime_ns for path in tmp_path.iterdir()} == stamps

    collection.images["x2y-1"] = collection.images["x2y-1"][:, ::-1].copy()
    collection.revised["x2y-1"] = 1
    third = predict_map(task, collection, one_step(collection), tmp_path, settings=options)
    assert third.computed == ("x1y-1", "x2y-1"), "the tile, and the neighbour whose windows reach into it"
    assert third.windows < 0.4 * first.windows, "of the neighbour only the edge: both tiles whole would be half of all"
    predict_map(task, collection, one_step(collection), tmp_path / "afresh", settings=options)
    for tile_id in collection.tile_ids:
        updated, afresh = (TileFolder(folder).read(tile_id) for folder in (tmp_path, tmp_path / "afresh"))
        np.testing.assert_array_equal(updated, afresh)

    other = predict_map(dataclasses.replace(task, id="pointwise-2"), collection, one_step(collection), tmp_path)
    assert len(other.computed) == 4


@settings(max_examples=4)
@given(lattices(), st.sets(st.sampled_from(["x-1y-1", "x0y0", "x1y0", "x1y1"]), min_size=1), st.booleans())
def test_beside_tiles_that_changed_only_what_looks_into_them_is_predicted_again(
    new_collection, new_task, tmp_path_factory, lattice, changed, gone
):
    """The model sees beyond its margin, so that every pixel tells which windows it was made from."""
    tmp_path = tmp_path_factory.mktemp("map")
    task = new_task(radius=9, window=lattice.window, margin=lattice.margin)
    options = MapSettings(overlap=lattice.overlap)
    collection = new_collection(columns=3, rows=3)
    predict_map(task, collection, one_step(collection), tmp_path, settings=options)
    steps = one_step(collection)
    for tile_id in changed:
        collection.images[tile_id] = collection.images[tile_id][:, :, ::-1].copy()
        collection.flags[tile_id][0, :20, :20] = 1
        collection.revised[tile_id] = 1
        if gone:
            del steps[tile_id]
    second = predict_map(task, collection, steps, tmp_path, settings=options)
    afresh = predict_map(task, collection, steps, tmp_path / "afresh", settings=options)
    assert second.records == afresh.records
    for tile_id in steps:
        updated, whole = (TileFolder(folder).read(tile_id) for folder in (tmp_path, tmp_path / "afresh"))
        np.testing.assert_array_equal(updated, whole)
    assert predict_map(task, collection, steps, tmp_path, settings=options).computed == ()


def test_an_interrupted_run_goes_on_where_it_stopped(collection, new_task, tmp_path):
    class Stopped(Exception):
        pass

    class Failing(new_task):
        def predict(self, image, valid):
            if len(self.seen) > 12:
                raise Stopped
            return super().predict(image, valid)

    options = MapSettings(overlap=8, batch=4)
    with pytest.raises(Stopped):
        predict_map(Failing(), collection, one_step(collection), tmp_path, settings=options)
    done = sorted(path.stem for path in tmp_path.glob("*.tif"))
    assert 0 < len(done) < 4
    assert not list(tmp_path.glob(".partial-*")), "nothing half-written stays"
    report = predict_map(new_task(), collection, one_step(collection), tmp_path, settings=options)
    assert sorted(report.computed) == sorted(set(collection.tile_ids) - set(done))


def test_asking_for_flips_means_predicting_again(collection, new_task, tmp_path):
    predict_map(new_task(), collection, one_step(collection), tmp_path)
    report = predict_map(new_task(), collection, one_step(collection), tmp_path, settings=MapSettings(flips=True))
    assert len(report.computed) == 4
    assert (
        predict_map(new_task(), collection, one_step(collection), tmp_path, settings=MapSettings(flips=True)).computed
        == ()
    )


def test_a_damaged_record_or_a_lost_raster_means_predicting_again(collection, new_task, tmp_path):
    predict_map(new_task(), collection, one_step(collection), tmp_path)
    (tmp_path / "x0y0.json").write_text("{")
    (tmp_path / "x-1y0.tif").unlink()
    (tmp_path / "x0y-1.json").write_text("{}")
    report = predict_map(new_task(), collection, one_step(collection), tmp_path)
    assert set(report.computed) == {"x0y0", "x-1y0", "x0y-1"}
