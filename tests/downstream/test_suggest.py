"""What to label next: unsure places that differ, on unlabelled ground of training blocks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from geossl.chips.split import TRAIN
from geossl.downstream import landcover
from geossl.downstream.settings import LandcoverSettings
from geossl.downstream.suggest import GAP, SIDE, candidates, choose, suggest
from geossl.errors import LabelError
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

from . import landscape
from .landscape import SPLIT, make_data


def apart(count: int) -> NDArray[np.int64]:
    """Places on the ground that keep no other from being chosen."""
    return np.stack([np.arange(count) * 100, np.zeros(count, int)], axis=1)


def test_each_kind_of_doubt_is_asked_about_before_any_twice() -> None:
    """Three kinds of ground, two kinds of doubt: copies of a place that was chosen lie at its very gradient."""
    doubts = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]])
    looks = np.eye(3)
    kinds = [(doubt, look) for doubt in range(3) for look in range(3)]
    proba = np.concatenate([np.tile(doubts[doubt], (20, 1)) for doubt, _ in kinds])
    features = np.concatenate([np.tile(looks[look], (20, 1)) for _, look in kinds])
    for seed in range(5):
        chosen = choose(proba, features, apart(len(proba)), 6, seed=seed)
        # all that the model doubts, on every ground; nothing that it is sure of
        assert sorted(chosen // 20) == [0, 1, 2, 3, 4, 5]
        np.testing.assert_array_equal(chosen, choose(proba, features, apart(len(proba)), 6, seed=seed))
    # where there are no more doubts, the rest is drawn evenly
    assert len(set(choose(proba, features, apart(len(proba)), 100))) == 100


@given(
    at=arrays(np.int64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(0, 150)),
    count=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_places_lie_apart(at: NDArray[np.int64], count: int, seed: int) -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), len(at))
    chosen = choose(proba, rng.normal(size=(len(at), 4)), at, count, seed=seed)
    away = np.abs(at[chosen][:, None] - at[chosen][None]).max(axis=-1)
    assert (away[~np.eye(len(chosen), dtype=bool)] >= SIDE + GAP).all()
    near = np.abs(at[:, None] - at[chosen][None]).max(axis=-1) < SIDE + GAP
    assert len(chosen) == count or near.any(axis=1).all()  # or there are no more


def few_labels(ix: int, seed: int) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """The first tile is labelled in its north alone, the second not at all."""
    images, codes = landscape.landcover(ix, seed)
    codes[80 if ix == 0 else 0 :] = NO_LABEL
    return images, codes


def test_only_unlabelled_clear_ground_of_training_blocks(tmp_path: Path, encoder: Encoder, card: Card) -> None:
    data = make_data(tmp_path, few_labels)
    task = landcover.fit(data, encoder, card, LandcoverSettings(mode="few", labels=60))
    places = candidates(data, task, encoder, card.statistics)
    assert set(places.tile) == set(data.collection.tile_ids)
    np.testing.assert_allclose(places.proba.sum(axis=1), 1, atol=1e-5)
    for tile_id in set(places.tile):
        tile = data.collection.tile(tile_id)
        subset = SPLIT.subset_mask(tile)
        labelled = data.labels.read(tile_id) != NO_LABEL
        away = distance_transform_cdt(~labelled, "chessboard") if labelled.any() else np.full(tile.shape, 999)
        steps = data.steps(tile_id)
        assert steps is not None
        clear = data.valid(tile_id, steps).all(axis=0)
        here = places.tile == tile_id
        for row, col in zip(places.row[here], places.col[here], strict=True):
            square = slice(row, row + SIDE), slice(col, col + SIDE)
            assert (subset[square] == TRAIN).all()
            assert clear[square].all()
            assert (away[square] > GAP).all()
    # what model and encoder say of a place is what they say of its pixels
    tile_id, row, col = places.tile[0], places.row[0], places.col[0]
    image, valid = data.images(tile_id)
    whole = task.describe(image, valid)[:, row : row + SIDE, col : col + SIDE].mean(axis=(1, 2))
    np.testing.assert_allclose(places.proba[0], whole, atol=0.05)  # a window sees its edge, not beyond

    chosen = suggest(data, task, encoder, card.statistics, 12)
    assert len(chosen) == 12
    again = suggest(data, task, encoder, card.statistics, 12)
    np.testing.assert_array_equal(chosen.row, again.row)
    assert chosen.uncertainty.mean() > places.uncertainty.mean()


def test_nothing_is_left_to_label(landcover_data: Any, encoder: Encoder, card: Card) -> None:
    task = landcover.fit(landcover_data, encoder, card, LandcoverSettings(mode="few", labels=60))
    with pytest.raises(LabelError, match=r"lies farther than 16 pixels from the labels[^→]*→ all of it is labelled"):
        suggest(landcover_data, task, encoder, card.statistics, 5)
