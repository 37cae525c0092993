"""How often chips are seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import box

from geossl.chips.index import ChipIndex, build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.chips.sampling import MOST, kinds, looks, weigh
from geossl.cube.collection import Collection
from geossl.errors import SettingsError
from geossl.imagery.clouds import is_clear


@pytest.fixture(scope="module")
def reader(collection: Collection) -> ChipReader:
    return ChipReader(collection)


@pytest.fixture(scope="module")
def index(collection: Collection) -> ChipIndex:
    return build_index(collection, 64, min_clear=0.0)


def often(loader: ChipLoader, epochs: int) -> np.ndarray:
    """How often each chip of the index comes in so many epochs."""
    return sum(np.bincount(loader.order(epoch).ravel(), minlength=len(loader.index)) for epoch in range(epochs))  # type: ignore[return-value]  # no epoch gives 0


@settings(max_examples=10, report_multiple_bugs=False)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), min_size=6, max_size=6).filter(any),
    world=st.integers(1, 3),
)
def test_chips_come_as_often_as_they_weigh_on_all_ranks_together(
    reader: ChipReader, index: ChipIndex, weights: list[float], world: int
) -> None:
    each = np.resize(weights, len(index))
    ranks = [ChipLoader(reader, index, 4, weights=each, rank=rank, world=world) for rank in range(world)]
    assert {len(loader.order(0)) for loader in ranks} == {len(index) // (4 * world) * 4}
    once = sum(often(loader, 1) for loader in ranks)
    expected = each / each.mean()
    assert (once <= np.ceil(expected)).all()
    if len(index) % (4 * world) == 0:  # otherwise some are left over
        assert (once >= np.floor(expected)).all()
    many = sum(often(loader, 30) for loader in ranks) / 30
    for weight in set(weights):
        chosen = each == weight
        assert many[chosen].mean() == pytest.approx(expected[chosen].mean(), abs=0.15)
    assert (ranks[0].order(0) != ranks[0].order(1)).any()


def test_the_second_showing_of_a_chip_is_seldom_in_the_batch_of_the_first(reader: ChipReader, index: ChipIndex) -> None:
    weights = np.where(np.arange(len(index)) % 4 == 0, 4.0, 0.0)
    loader = ChipLoader(reader, index, 16, weights=weights)
    twice = [16 - len(set(batch)) for batch in loader.order(0).reshape(-1, 16)]
    assert np.mean(twice) < 2


def test_pairs_weigh_the_mean_of_their_two(reader: ChipReader, index: ChipIndex) -> None:
    weights = (index.row < 256).astype(np.float64)
    loader = ChipLoader(reader, index, 4, paired=True, weights=weights)
    assert loader.order(0).shape == (128, 2)
    assert (index.row[loader.order(0)] < 256).all()


def test_clear_chips_come_more_often_by_the_power_of_their_share(reader: ChipReader, index: ChipIndex) -> None:
    share = np.linspace(0, 1, len(index), dtype=np.float32)
    weights = weigh(reader, index, share=share, clear=2.0)
    assert weights is not None
    np.testing.assert_allclose(weights, share.astype(float) ** 2)
    assert weigh(reader, index) is None


def test_a_region_is_seen_as_often_as_it_weighs(reader: ChipReader, index: ChipIndex, collection: Collection) -> None:
    bounds = collection.tile(collection.tile_ids[0]).bounds
    half = box(bounds.left, bounds.bottom, bounds.left + 2560, bounds.top, collection.grid.crs).to_crs("EPSG:4326")
    weights = weigh(reader, index, regions=[(half, 3.0), (half, 0.5)])
    assert weights is not None
    inside = (index.tile == 0) & (index.col < 256)
    np.testing.assert_array_equal(weights, np.where(inside, 1.5, 1.0))
    with pytest.raises(SettingsError, match="no chip has a weight above 0"):
        weigh(reader, index.select(inside), regions=[(half, 0.0)])


def test_looks_are_those_of_the_clear_pixels_of_a_windows_clearest_chip(reader: ChipReader, index: ChipIndex) -> None:
    found = looks(reader, index)
    statistics = reader.collection.statistics
    assert statistics is not None
    row = 100
    same = np.flatnonzero(
        (index.tile == index.tile[row]) & (index.row == index.row[row]) & (index.col == index.col[row])
    )
    assert len(same) == 3
    clearest = same[np.argmax(index.clear[same])]
    pixels = reader.read(index, np.array([clearest]))
    seen = pixels.image[0][:, is_clear(pixels.quality[0])].astype(float)
    expected = np.r_[(seen.mean(1) - statistics.mean) / statistics.std, seen.std(1) / statistics.std]
    for chip in same:
        np.testing.assert_allclose(found[chip], 64 * expected, atol=0.51)


def test_kinds_are_told_apart_and_rare_ones_come_more_often(
    reader: ChipReader, index: ChipIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], [300, 74, 10])
    look = rng.normal(scale=2, size=(384, 4)).round().astype(np.int64) + 1000 * true[:, None]
    kind = kinds(look, 8, seed=0)
    assert len(set(zip(kind.tolist(), true.tolist(), strict=True))) == len(set(kind.tolist()))  # none mixes two
    np.testing.assert_array_equal(kinds(look, 8, seed=0), kind)
    monkeypatch.setattr("geossl.chips.sampling.looks", lambda *_: 1000 * true[:, None].astype(np.int64))
    even = weigh(reader, index, diversity=1.0)
    some = weigh(reader, index, diversity=0.5)
    assert even is not None
    assert some is not None
    ratio = Counter(dict(zip(true.tolist(), even.tolist(), strict=True)))
    assert ratio[1] / ratio[0] == pytest.approx(300 / 74)
    assert ratio[2] == MOST  # 12.8 otherwise
    half = dict(zip(true.tolist(), some.tolist(), strict=True))
    assert half[1] / half[0] == pytest.approx((300 / 74) ** 0.5)
