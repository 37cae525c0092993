from __future__ import annotations

from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
from rasterio import features
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from geossl.demo.cover import CLASS_OF, LANDCOVER, Cover
from geossl.demo.landscape import REFERENCE, LandscapeInfo, LandscapeSettings
from geossl.demo.spectra import BANDS
from geossl.demo.world import World


def _bands(item: Path, names: tuple[str, ...]) -> np.ndarray:
    offset = pystac.Item.from_file(str(item)).assets["B04"].extra_fields["raster:bands"][0]["offset"]
    planes = []
    for name in names:
        with rasterio.open(item.parent / f"{name}.tif") as file:
            planes.append(file.read(1, out_shape=(256, 256)) * 1e-4 + offset)
    return np.stack(planes)


def _burn(frame: geopandas.GeoDataFrame, item: Path) -> np.ndarray:
    with rasterio.open(item.parent / "B02.tif") as file:
        return features.rasterize(frame.geometry, file.shape, transform=file.transform).astype(bool)


def test_every_kind_of_surface_has_a_class() -> None:
    assert len(CLASS_OF) == len(Cover)
    assert set(CLASS_OF) == set(LANDCOVER.codes)
    assert len(LANDCOVER) == 6


def test_land_cover_is_wall_to_wall(landscape: LandscapeInfo, world: World) -> None:
    frame = geopandas.read_file(landscape.landcover)
    assert set(frame["class"]) == set(LANDCOVER.names)
    assert frame.geometry.is_valid.all()
    assert frame.area.sum() == pytest.approx((256 * 10) ** 2)
    assert frame.union_all().area == pytest.approx((256 * 10) ** 2)
    codes = {c.name: c.code for c in LANDCOVER}
    with rasterio.open(landscape.scenes[0].parent / "B02.tif") as file:
        burnt = features.rasterize(
            ((g, codes[c]) for g, c in zip(frame.geometry, frame["class"], strict=True)),
            file.shape,
            transform=file.transform,
        )
    assert (burnt == world.land_cover(REFERENCE)).mean() > 0.97  # all but the smallest patches


def test_clearings_are_patches_of_forest_in_both_halves(landscape: LandscapeInfo, world: World) -> None:
    frame = geopandas.read_file(landscape.clearings)
    assert frame.area.between(1e4, 20.5e4).all()
    np.testing.assert_allclose(frame.area / 1e4, frame["area_ha"], atol=0.02)
    days = [date.fromisoformat(str(day)[:10]) for day in frame["date"]]
    assert all(6 <= day.month <= 9 for day in days)  # the dry season
    assert {day.year for day in days} == {2021, 2022, 2023, 2024}
    west, _, east, _ = geopandas.read_file(landscape.landcover).total_bounds
    assert 0.25 < (frame.centroid.x < (west + east) / 2).mean() < 0.75
    cleared = _burn(frame, landscape.scenes[0])
    assert np.isin(CLASS_OF[world.cover][cleared], [1]).all()
    assert ndimage.distance_transform_edt(~(world.settlement.road > 0.3))[cleared].min() < 8


def test_pixels_agree_with_the_dates_of_clearing(
    landscape: LandscapeInfo, scenes: dict[str, Path], world: World
) -> None:
    frame = geopandas.read_file(landscape.clearings)
    day = frame["date"].astype(str).str[:10]
    between = frame[(day > "2021-06-18") & (day <= "2022-10-21")]
    later = frame[day > "2022-10-21"]
    assert len(between) >= 4
    assert len(later) >= 4
    ndvi = {}
    for name in ("before", "after"):
        red, nir = _bands(scenes[name], ("B04", "B08"))
        ndvi[name] = (nir - red) / (nir + red)
    drop = ndvi["before"] - ndvi["after"]
    for patch in range(len(between)):
        assert np.median(drop[_burn(between.iloc[[patch]], scenes["before"])]) > 0.15
    for patch in range(len(later)):
        assert abs(np.median(drop[_burn(later.iloc[[patch]], scenes["before"])])) < 0.15


def test_after_a_clearing_the_class_changes(world: World) -> None:
    clearing = next(c for c in world.clearings if c.date.year == 2022)
    year = {
        day: world.land_cover(day).ravel()[clearing.pixels]
        for day in (date(2022, 1, 1), clearing.date, date(2024, 1, 1))
    }
    assert (year[date(2022, 1, 1)] == 1).all()
    assert (year[clearing.date] == 4).all()
    assert (year[date(2024, 1, 1)] == 3).all()


def test_single_pixels_tell_the_classes_apart_only_partly(
    scenes: dict[str, Path], world: World, settings: LandscapeSettings
) -> None:
    """Neither trivial nor hopeless: a pixel classifier on the other half of the map."""
    image = _bands(scenes["after"], BANDS).reshape(len(BANDS), -1).T
    truth = world.land_cover(REFERENCE).ravel()
    south = np.arange(truth.size) >= truth.size // 2
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.choice(np.flatnonzero((truth == code) & ~south), 80) for code in LANDCOVER.codes])
    test = rng.choice(np.flatnonzero(south), 5000)
    forest = RandomForestClassifier(60, random_state=0).fit(image[train], truth[train])
    score = f1_score(truth[test], forest.predict(image[test]), average="macro")
    assert 0.5 < score < 0.9
