"""Where forest stood before: indices of the earlier image, and what change is asked for there."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from geossl.downstream.forest import by_index, river_bed
from geossl.downstream.images import DatedImages
from geossl.downstream.settings import ChangeSettings, IndexForest, RiverSettings
from geossl.downstream.unlabelled import fit
from geossl.errors import LabelError

from .test_unlabelled import CLEARED, GREENED, SIZE, _card, _world


def test_forest_is_where_the_earlier_image_reaches_every_index(tmp_path: Path) -> None:
    images = _world(tmp_path)
    forest = by_index(images, IndexForest(kind="index", ndvi=0.7, ndmi=0.2))("x0y0")
    red, nir, swir = np.asarray(images.collection.image("x0y0")[0]).astype(float) * 1e-4
    np.testing.assert_array_equal(forest, ((nir - red) / (nir + red) >= 0.7) & ((nir - swir) / (nir + swir) >= 0.2))
    assert forest[CLEARED].mean() > 0.99
    assert not forest[GREENED].any()
    assert not forest[200:, 200:].any()


def test_what_was_no_forest_is_neither_learnt_from_nor_asked_for(tmp_path: Path) -> None:
    images = _world(tmp_path)
    within = DatedImages(images.collection, images.dates, lambda _: np.arange(SIZE * SIZE).reshape(SIZE, SIZE) < 0)
    with pytest.raises(LabelError, match="both dates and is forest before"):
        fit(within, None, _card(images), ChangeSettings(method="irmad"))
    forest = by_index(images, IndexForest(kind="index", ndvi=0.7))
    within = DatedImages(images.collection, images.dates, forest)
    np.testing.assert_array_equal(within.asked("x0y0"), forest("x0y0"))
    assert (
        fit(within, None, _card(images), ChangeSettings(method="irmad")).id
        != fit(images, None, _card(images), ChangeSettings(method="irmad")).id
    )


def test_a_rivers_bed_is_water_and_banks_by_the_image_after(tmp_path: Path) -> None:
    images = _world(tmp_path, ("B03", "B08", "B11"))
    later = DatedImages(images.collection, images.dates[1:])
    (step,) = later.steps("x0y0") or ()
    green, _, swir = np.asarray(images.collection.image("x0y0")[step]).astype(float) * 1e-4
    with np.errstate(invalid="ignore", divide="ignore"):
        wet = (green - swir) / (green + swir)
    seen = later.valid("x0y0", (step,))[0]
    low, high = np.quantile(wet[seen], (0.3, 0.8)) + 1e-5  # beside every value
    bed = river_bed(later, RiverSettings(water=high, bed=low))("x0y0")
    np.testing.assert_array_equal(bed, np.where(seen, (wet >= low).astype(int) + (wet >= high), 0))
    with pytest.raises(LabelError, match="river: mndwi needs the bands green and swir16/swir22"):
        river_bed(_world(tmp_path / "two", ("B04", "B08")), RiverSettings())
    with pytest.raises(ValueError, match="is above water"):
        RiverSettings(water=-0.5)


def test_a_missing_band_and_a_missing_index_are_named(tmp_path: Path) -> None:
    images = _world(tmp_path, ("B04", "B08"))
    with pytest.raises(
        LabelError, match=r"forest by ndmi needs the bands nir/nir08 and swir16/swir22, .* has red, nir"
    ):
        by_index(images, IndexForest(kind="index", ndmi=0.2))
    with pytest.raises(ValueError, match="needs ndvi, ndmi or both"):
        IndexForest(kind="index")


def test_dates_that_mean_one_image_and_an_empty_period_are_named(tmp_path: Path) -> None:
    images = _world(tmp_path)
    card = _card(images)
    once = DatedImages(images.collection, (dt.date(2022, 5, 1), dt.date(2022, 9, 1)))
    with pytest.raises(LabelError, match=r"nearest to one and the same image .* between 2020-07-01 and 2022-07-01"):
        fit(once, None, card, ChangeSettings(method="irmad"))
    empty = DatedImages(images.collection, ("2020-06-01/P4M", "2022-06-01/P4M"))
    with pytest.raises(LabelError, match="the period 2020-06-01/P4M has no clear image"):
        fit(empty, None, card, ChangeSettings(method="irmad"))
