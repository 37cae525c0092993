"""Prediction: exact where the model is pointwise, seamless, resumable, and no-data stays no-data."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.errors import GeosslError, RadiometryError, SettingsError, StoreError
from geossl.maps import blend, canvas
from geossl.maps.blend import Blender, Lattice
from geossl.maps.canvas import Canvas
from geossl.maps.predict import predict_map
from geossl.maps.settings import MapSettings
from geossl.maps.tiles import TileFolder
from geossl.maps.work import tile_spans

from .conftest import lattices, one_step


def mosaic(collection, tile_ids):
    """Whole-area image (C, H, W) and its first global row and column."""
    canvas = Canvas(collection, dict.fromkeys(tile_ids, (0,)), 1)
    origins = [collection.tile(tile_id).pixel_origin for tile_id in collection.tile_ids]
    top, left = min(r for r, _ in origins), min(c for _, c in origins)
    bottom, right = max(r for r, _ in origins) + 256, max(c for _, c in origins) + 256
    rows, cols = range(top, bottom), range(left, right)
    image, valid = canvas.read(rows, cols)
    return rows, cols, image[0], valid[0]


@given(lattices(), st.integers(-300, 300), st.integers(1, 300))
def test_windows_fade_into_each_other_and_over_names_exactly_those_that_meet(lattice, start, length):
    pixels = range(start, start + length)
    over = lattice.over(pixels)
    for k in range(over[0] - 2, over[-1] + 3):
        span = lattice.span(k)
        inside = (np.arange(span.start, span.stop) >= start) & (np.arange(span.start, span.stop) < start + length)
        assert inside.any() == (k in over)
        if k in over:
            assert lattice.reach(pixels).start <= lattice.frame(k).start
            assert lattice.reach(pixels).stop >= lattice.frame(k).stop
    touched = lattice.touched(pixels)
    looking = [k for k in range(over[0] - 30, over[-1] + 31) if not set(lattice.frame(k)).isdisjoint(pixels)]
    assert (touched.start, touched.stop) == (lattice.span(looking[0]).start, lattice.span(looking[-1]).stop)
    rise = lattice.rise()
    assert (np.diff(rise, prepend=0, append=1) > 0).all()
    np.testing.assert_allclose(rise + rise[::-1], 1, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("window", "margin", "overlap"), [(32, 16, 0), (32, 8, 9), (32, -1, 0), (32, 0, -1)])
def test_impossible_windows_are_refused(window, margin, overlap):
    with pytest.raises(SettingsError, match="px"):
        Lattice(window, margin, overlap)


def test_lattice_takes_the_models_window_unless_told(new_task):
    task = new_task(window=64, margin=8)
    assert Lattice.of(task, MapSettings()) == Lattice(64, 8, 16)
    assert Lattice.of(new_task(window=256, margin=32), MapSettings()) == Lattice(256, 32, 32)
    assert Lattice.of(new_task(window=40, margin=5), MapSettings()) == Lattice(40, 5, 5)
    assert Lattice.of(task, MapSettings(window=96, overlap=0)) == Lattice(96, 8, 0)


@settings(max_examples=20, deadline=None)
@given(
    lattices(),
    st.sets(st.sampled_from(["x-1y-1", "x0y-1", "x-1y0", "x0y0"]), min_size=1),
    st.tuples(*[st.integers(-256, 200)] * 2, *[st.integers(1, 150)] * 2),
)
def test_a_pointwise_prediction_is_blended_to_itself_exactly(new_collection, new_task, lattice, tiles, box):
    collection, task = new_collection(), new_task(margin=lattice.margin)
    top, left, height, width = box
    rows, cols = range(top, top + height), range(left, left + width)
    canvas = Canvas(collection, dict.fromkeys(tiles, (0,)), 1)
    parts = list(Blender(task, canvas, lattice, batch=5).blend(rows, cols))
    assert [row for part in parts for row in part.rows] == list(rows)
    image, valid = canvas.read(rows, cols)
    expected = task.predict(image, valid)[0]
    valid = valid[0]
    np.testing.assert_array_equal(np.concatenate([part.valid for part in parts]), valid)
    blended = np.concatenate([part.probabilities for part in parts], axis=1)
    np.testing.assert_array_equal(blended[:, valid], expected[:, valid])


def test_tiles_hold_the_whole_area_prediction(collection, new_task, tmp_path):
    task = new_task(margin=8)
    collection.flags["x0y0"][0, 30:60, :] = 2  # cloud
    collection.flags["x-1y-1"][:] = 1  # nothing measured
    report = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=12, batch=3))
    rows, cols, image, valid = mosaic(collection, collection.tile_ids)
    probabilities = task.predict(image[None], valid[None])[0]
    codes = np.where(valid, np.array([1, 2, 7])[probabilities.argmax(0)], 255)
    percent = np.where(valid, np.rint(probabilities.max(0) * 100), 255)
    assert [record.tile for record in report.records] == ["x-1y-1", "x0y-1", "x-1y0", "x0y0"]
    for record in report.records:
        tile = collection.tile(record.tile)
        with rasterio.open(tmp_path / f"{record.tile}.tif") as raster:
            got = raster.read()
            assert raster.transform == tile.transform
            assert raster.crs.to_epsg() == 32722
            assert raster.nodata == 255
        r, c = tile.pixel_origin[0] - rows.start, tile.pixel_origin[1] - cols.start
        here = np.s_[r : r + 256, c : c + 256]
        np.testing.assert_array_equal(got[0], codes[here])
        np.testing.assert_array_equal(got[1], percent[here])
        assert record.counts == {code: int((codes[here] == code).sum()) for code in (1, 2, 7)}
    by_id = {record.tile: record for record in report.records}
    assert by_id["x-1y-1"].extent is None
    assert by_id["x0y0"].extent == (0, 256, 0, 256)
    assert by_id["x-1y0"].extent == (0, 256, -256, 0)


def test_extent_is_that_of_the_data(collection, new_task, tmp_path):
    flags = collection.flags["x-1y0"]
    flags[:] = 1
    flags[0, 10:20, 200:203] = 0
    report = predict_map(new_task(), collection, one_step(collection), tmp_path, tiles=["x-1y0"])
    assert report.records[0].extent == (10, 20, -56, -53)


def test_tile_borders_leave_no_trace(collection, new_task, tmp_path):
    """A model with a receptive field within its margin predicts as if there were no tiles and no windows."""
    task = new_task(radius=5, window=64, margin=5)
    report = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=16))
    rows, cols, image, valid = mosaic(collection, collection.tile_ids)
    probabilities = task.predict(image[None], valid[None])[0]
    store = TileFolder(tmp_path)
    for record in report.records:
        tile = collection.tile(record.tile)
        r, c = tile.pixel_origin[0] - rows.start, tile.pixel_origin[1] - cols.start
        expected = probabilities[:, r : r + 256, c : c + 256]
        np.testing.assert_allclose(store.read(record.tile)[1], expected.max(0) * 100, atol=0.51)
    assert report.seam is not None
    assert report.seam.edge < 1e-6
    assert report.seam.error < 1e-6


def test_seam_error_shows_a_receptive_field_beyond_the_margin(collection, new_task, tmp_path):
    task = new_task(radius=12, window=64, margin=0)
    report = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=0))
    blended = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=16))
    assert report.seam is not None
    assert blended.seam is not None
    assert report.seam.pixels > 0
    assert report.seam.edge > 2 * report.seam.error > 0, "the pixels beside the edges are the wrong ones"
    assert 0 < blended.seam.edge < report.seam.edge / 2
    assert 0 < blended.seam.step < report.seam.step / 5, "what is blended has no steps"
    again = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=16))
    assert again.windows == 0, "the seam error of a model is measured once"
    assert again.seam == blended.seam


def test_the_seam_error_is_the_difference_from_a_prediction_without_windows(collection, new_task, tmp_path):
    task = new_task(radius=12, window=64, margin=0)
    options = MapSettings(overlap=16)
    seam = predict_map(task, collection, one_step(collection), tmp_path, settings=options).seam
    rows, cols, image, valid = mosaic(collection, collection.tile_ids)
    canvas = Canvas(collection, one_step(collection), 1)
    ours = np.concatenate(
        [part.probabilities for part in Blender(task, canvas, Lattice(64, 0, 16), 8).blend(rows, cols)], axis=1
    )
    # the whole area at once; only its border, which lacks context in either, is left out
    apart = np.abs(ours - task.predict(image[None], valid[None])[0]).max(axis=0)[64:-64, 64:-64]
    shared = np.arange(rows.start + 64, rows.stop - 64) % 48 < 16
    assert seam is not None
    assert seam.error == pytest.approx(apart.mean(), rel=0.3)
    assert seam.edge == pytest.approx(apart[shared[:, None] | shared[None, :]].mean(), rel=0.3)
    assert seam.edge > seam.error


def test_windows_do_not_upset_a_network_that_pools(collection, new_task, tmp_path):
    """Pooling sees the same pixels together in every window, so a margin of one cell is enough."""

    class Pooling(new_task):
        def predict(self, image, valid):
            size = image.shape[-1]
            cells = image.reshape(*image.shape[:2], size // 16, 16, size // 16, 16).mean(axis=(3, 5))
            return super().predict(cells.repeat(16, axis=-1).repeat(16, axis=-2), valid)

    report = predict_map(Pooling(window=128, margin=16), collection, one_step(collection), tmp_path)
    assert report.seam is not None
    assert report.seam.pixels > 0
    assert report.seam.error < 1e-6


class Asymmetric:
    """A model that tells up from down and left from right."""

    def __init__(self, task):
        self._task = task

    def __getattr__(self, name):
        return getattr(self._task, name)

    def predict(self, image, valid):
        height, width = valid.shape[-2:]
        ramp = np.linspace(0, 3000, height)[:, None] + np.linspace(0, 1000, width)
        return self._task.predict((image + ramp).astype(np.int16), valid)


@pytest.mark.parametrize("dates", [1, 2])
def test_flips_are_the_mean_over_all_eight_views_and_turn_with_the_image(collection, new_task, dates):
    task = Asymmetric(new_task(margin=0, dates=dates))
    canvas = Canvas(collection, dict.fromkeys(collection.tile_ids, (0,) * dates), dates)
    plain, flipped = (Blender(task, canvas, Lattice(64, 0, 8), 4, flips=flips) for flips in (False, True))
    image, valid = (part[None] for part in canvas.read(range(64), range(64)))
    views = []
    for turns in range(4):
        for axis in (None, -1):
            turned = [np.rot90(part, turns, (-2, -1)) for part in (image, valid)]
            turned = [part if axis is None else np.flip(part, axis) for part in turned]
            answer = plain.predict(*turned)
            answer = answer if axis is None else np.flip(answer, axis)
            views.append(np.rot90(answer, -turns, (-2, -1)))
    mean = flipped.predict(image, valid)
    np.testing.assert_allclose(mean, np.mean(views, axis=0), atol=1e-6)
    assert np.abs(mean - plain.predict(image, valid)).max() > 0.05
    mirrored = flipped.predict(image[..., ::-1].copy(), valid[..., ::-1].copy())
    np.testing.assert_allclose(mirrored[..., ::-1], mean, atol=1e-6)
    turned = flipped.predict(np.rot90(image, 1, (-2, -1)).copy(), np.rot90(valid, 1, (-2, -1)).copy())
    np.testing.assert_allclose(np.rot90(turned, -1, (-2, -1)), mean, atol=1e-6)


def test_windows_shared_by_tiles_are_predicted_once(collection, new_task, tmp_path):
    task = new_task(window=64)
    report = predict_map(task, collection, one_step(collection), tmp_path, settings=MapSettings(overlap=8))
    over = len(Lattice(64, 0, 8).cells(range(-256, 256))) ** 2
    seam = 1 + 4**2  # the seam error looks at one larger window, and at those that meet it
    assert report.windows <= over + seam


@settings(max_examples=30, deadline=None)
@given(lattices(), st.sets(st.sampled_from(["x-1y-1", "x0y-1", "x-1y0", "x0y0"]), min_size=1))
def test_a_window_is_kept_while_a_tile_to_come_needs_it_and_no_longer(new_collection, new_task, lattice, tiles):
    collection, task = new_collection(), new_task(margin=lattice.margin, radius=3)
    view = Canvas(collection, dict.fromkeys(tiles, (0,)), 1)
    blender = Blender(task, view, lattice)
    looked_at = set()
    for tile in sorted((collection.grid.tile(name) for name in tiles), key=lambda tile: (tile.iy, tile.ix)):
        rows, cols = tile_spans(tile)
        looked_at |= set(itertools.product(lattice.cells(rows), lattice.cells(cols)))
        # one that has kept nothing says the same
        for ours, theirs in zip(blender.blend(rows, cols), Blender(task, view, lattice).blend(rows, cols), strict=True):
            assert ours.rows == theirs.rows
            np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    assert blender.windows == len(looked_at), "each is predicted once"
    assert not blender._kept


def test_for_a_tile_below_the_rows_that_it_needs_are_kept_alone(new_collection, new_task):
    lattice, tiles = Lattice(100, 10, 20), ["x0y-1", "x0y0"]
    blender = Blender(new_task(), Canvas(new_collection(), dict.fromkeys(tiles, (0,)), 1), lattice)
    for _ in blender.blend(range(-256, 0), range(256)):
        pass
    kept = {key: part.shape for key, part in blender._kept.items()}
    lowest = lattice.span(-1)
    assert kept == {(-1, kx): (3, lowest.stop, 80) for kx in lattice.cells(range(256))}


def test_memory_does_not_grow_with_the_number_of_tiles(new_collection, new_task, tmp_path, monkeypatch):
    monkeypatch.setattr(blend, "KEEP_BYTES", 1 << 20)
    monkeypatch.setattr(canvas, "KEEP_BYTES", 1 << 20)

    def peak(rows):
        fake = new_collection(1, 1)
        ids = [fake.grid[0, iy].id for iy in range(rows)]
        # broadcast: the collection itself takes no memory
        fake.images = dict.fromkeys(ids, np.broadcast_to(np.int16(7), (1, 2, 256, 256)))
        fake.flags = dict.fromkeys(ids, np.broadcast_to(np.uint8(0), (1, 256, 256)))
        tracemalloc.start()
        predict_map(new_task(), fake, one_step(fake), tmp_path / str(rows), settings=MapSettings(overlap=8))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is loaded and cached once
    # 54 more tiles would be 14 MB of pixels alone; how far reading has run ahead is a matter of chance
    assert peak(60) - peak(6) < 4e6


def test_change_needs_both_dates_clear(new_collection, new_task, tmp_path):
    collection = new_collection(steps=3)
    collection.flags["x0y0"][2, :100] = 4
    collection.flags["x0y0"][0, :, :50] = 1
    task = new_task(dates=2)
    steps = dict.fromkeys(collection.tile_ids, (0, 2))
    report = predict_map(task, collection, steps, tmp_path)
    codes = TileFolder(tmp_path).read("x0y0")[0]
    images = collection.images["x0y0"][[0, 2]]
    expected = np.array([1, 2, 7])[task.predict(images[None], np.ones((1, 2, 256, 256), bool))[0].argmax(0)]
    expected[:100], expected[:, :50] = 255, 255
    np.testing.assert_array_equal(codes, expected)
    record = report.records[-1]
    assert [source.scene for source in record.own] == ["scene-0", "scene-2"]
    assert [str(day) for day in record.dates] == ["2020-03-01", "2022-03-01"]


def test_a_composite_stands_for_its_whole_period(collection, new_task, tmp_path):
    collection.kind = "composite"
    collection.scene_ids = lambda tile_id: ["2023-11-01/P4M"]  # noqa: ARG005
    report = predict_map(new_task(), collection, one_step(collection), tmp_path)
    assert [str(day) for day in report.records[0].dates] == ["2023-11-01", "2024-02-29"]


def test_radiometry_must_match(collection, new_task, tmp_path):
    sensor = collection.sensor
    collection.sensor = dataclasses.replace(sensor, radiometry=dataclasses.replace(sensor.radiometry, scale=1e-4))
    with pytest.raises(RadiometryError, match=r"model pointwise-1 .* collection toy .* scale"):
        predict_map(new_task(), collection, one_step(collection), tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_steps_are_named(collection, new_task, tmp_path):
    with pytest.raises(StoreError, match="2 date"):
        predict_map(new_task(dates=2), collection, one_step(collection), tmp_path)
    with pytest.raises(StoreError, match="no tile x9y9"):
        predict_map(new_task(), collection, {"x9y9": (0,)}, tmp_path)


@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_a_model_that_returns_nonsense_is_refused(collection, new_task, tmp_path, bad):
    class Nonsense(new_task):
        def predict(self, image, valid):
            found = super().predict(image, valid)
            return found[:, :2] if bad == "shape" else found * np.float32(np.nan)

    with pytest.raises(GeosslError, match="pointwise-1 returned"):
        predict_map(Nonsense(), collection, one_step(collection), tmp_path)


def test_reads_a_real_cube(tiny_cube, new_task, tmp_path: Path):
    collection = tiny_cube.view().collection("sentinel-2-l2a")

    class Ndvi(new_task):
        def predict(self, image, valid):  # noqa: ARG002  # the protocol's signature
            green = (image[:, 3] > image[:, 2]).astype(np.float32)
            return np.stack([green, 1 - green, 0 * green], axis=1)

    report = predict_map(Ndvi(sensor=collection.sensor), collection, dict.fromkeys(collection.tile_ids, (2,)), tmp_path)
    assert report.records[0].snapshot == collection.snapshot
    for tile_id in collection.tile_ids:
        image = np.asarray(collection.image(tile_id)[2])
        expected = np.where(image[3] > image[2], 1, 2)
        expected[:, :40] = 255  # the no-data stripe
        np.testing.assert_array_equal(TileFolder(tmp_path).read(tile_id)[0], expected)
