from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from numpy.typing import NDArray
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rio_cogeo.cogeo import cog_validate

from geossl.demo.landscape import LandscapeInfo
from geossl.demo.sensor import SENSOR, observe
from geossl.demo.sky import build_sky, sun
from geossl.demo.spectra import BANDS
from geossl.demo.world import World
from geossl.imagery.folder import FolderSettings
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source

LATITUDE = -9.0


def _read(item: Path, asset: str) -> NDArray[Any]:
    with rasterio.open(item.parent / f"{asset}.tif") as file:
        stored: NDArray[Any] = file.read(1)
    return stored


def _reflectance(path: Path, band: str) -> NDArray[np.floating]:
    """As the Item says, at 10 m; NaN where there is no data."""
    item = pystac.Item.from_file(str(path))
    meta = item.assets[band].extra_fields["raster:bands"][0]
    stored = _read(path, band)
    value = np.where(stored == meta["nodata"], np.nan, stored * meta["scale"] + meta["offset"])
    return value.repeat(256 // len(value), 0).repeat(256 // len(value), 1)


def test_items_are_valid_stac(scenes: dict[str, Path]) -> None:
    for path in scenes.values():
        item = pystac.Item.from_file(str(path))
        JsonSchemaSTACValidator().validate_core(
            item.to_dict(),
            pystac.STACObjectType.ITEM,
            pystac.get_stac_version(),
        )
        assert item.id == path.stem
        assert set(item.assets) == {*BANDS, "scl"}
        assert item.properties["proj:code"] == "EPSG:32722"
        for band in SENSOR.bands:
            eo = item.assets[band.name].extra_fields["eo:bands"][0]
            assert (eo["name"], eo["common_name"], eo["center_wavelength"]) == (
                band.name,
                band.common_name,
                band.wavelength,
            )


def test_assets_are_cogs_that_lie_where_the_item_says(scenes: dict[str, Path]) -> None:
    path = scenes["before"]
    item = pystac.Item.from_file(str(path))
    for key, asset in item.assets.items():
        href = asset.get_absolute_href()
        assert href is not None
        valid, errors, _ = cog_validate(href, strict=True)
        assert valid, errors
        with rasterio.open(href) as file:
            assert file.count == 1
            assert file.nodata == 0
            assert file.crs.to_epsg() == 32722
            assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
            assert list(file.shape) == asset.extra_fields["proj:shape"]
            gsd = 20 if key == "scl" else SENSOR.band(key).gsd
            assert file.res == (gsd, gsd)
            with rasterio.open(scenes["before"].parent / "B02.tif") as ten:
                assert file.bounds == ten.bounds


def test_the_offset_is_declared_and_undone(world: World, scenes: dict[str, Path]) -> None:
    declared = {
        name: (
            pystac.Item.from_file(str(path)).properties["s2:processing_baseline"],
            pystac.Item.from_file(str(path)).assets["B04"].extra_fields["raster:bands"][0]["offset"],
        )
        for name, path in scenes.items()
    }
    assert declared["before"] == ("03.01", 0)
    assert declared["after"] == ("04.00", pytest.approx(-0.1))
    # The same season on both sides of the change of baseline.
    forest = world.land_cover(date(2024, 12, 31)) == 1
    medians, raw = [], []
    for day in (date(2021, 8, 7), date(2022, 8, 7)):
        seen = observe(world, day, LATITUDE)
        clear = np.isin(seen.scl, (4, 5)).repeat(2, 0).repeat(2, 1) & forest
        raw.append(float(np.median(seen.bands["B08"][clear])))
        medians.append(float(np.median((seen.bands["B08"][clear] - seen.offset) * 1e-4)))
    assert medians[0] == pytest.approx(medians[1], rel=0.06)
    assert 0.2 < medians[0] < 0.4
    assert raw[1] - raw[0] > 800


def test_the_folder_source_undoes_the_offset(landscape: LandscapeInfo) -> None:
    found = list(open_source(FolderSettings(path="scenes"), landscape.folder).scenes(SENSOR))
    assert not [scene for scene in found if isinstance(scene, Rejected)]
    shifts = {scene.id: scene.shift for scene in found if isinstance(scene, Scene)}
    assert shifts == {
        path.stem: 0 if day < date(2022, 1, 25) else -1000
        for path, day in zip(landscape.scenes, landscape.dates, strict=True)
    }
    assert {kind for scene in found if isinstance(scene, Scene) for kind in scene.masks} == {"scl"}


def test_one_orbit_sees_only_a_part(scenes: dict[str, Path]) -> None:
    for name, path in scenes.items():
        seen = np.isfinite(_reflectance(path, "B04"))
        assert (seen == np.isfinite(_reflectance(path, "B11"))).all()
        assert (seen == (_read(path, "scl") > 0).repeat(2, 0).repeat(2, 1)).all()
        if name == "partial":
            assert 0.4 < seen.mean() < 0.9
            assert seen[:, 0].all()
        else:
            assert seen.all()


def test_the_classification_finds_the_clouds_imperfectly(world: World, scenes: dict[str, Path]) -> None:
    day = date(2022, 2, 8)
    path = scenes["cloudy"]
    sky = build_sky(world.size, world.seed, day, sun(day, LATITUDE))
    truth = sky.cloud > 0.5
    scl = _read(path, "scl").repeat(2, 0).repeat(2, 1)
    flagged = np.isin(scl, (8, 9))
    recall, precision = (truth & flagged).sum() / truth.sum(), (truth & flagged).sum() / flagged.sum()
    assert 0.85 < recall < 0.999
    assert 0.75 < precision < 0.999
    blue, nir = _reflectance(path, "B02"), _reflectance(path, "B8A")
    assert np.median(blue[scl == 9]) > 5 * np.median(blue[scl == 4])
    assert np.median(nir[scl == 3]) < 0.7 * np.median(nir[scl == 4])
    cover = pystac.Item.from_file(str(path)).properties["eo:cloud_cover"]
    assert cover == pytest.approx(100 * np.isin(_read(path, "scl"), (8, 9, 10)).mean(), abs=0.01)


def test_spectra_look_like_their_surfaces(world: World, scenes: dict[str, Path]) -> None:
    codes = world.land_cover(date(2022, 10, 21))
    r = {band: _reflectance(scenes["after"], band) for band in BANDS}
    middle = {
        name: {b: float(np.median(r[b][codes == code])) for b in BANDS}
        for name, code in [("forest", 1), ("bare", 4), ("water", 5)]
    }
    assert middle["forest"]["B08"] > 5 * middle["forest"]["B04"]  # the red edge
    assert middle["forest"]["B04"] < middle["forest"]["B05"] < middle["forest"]["B06"] < middle["forest"]["B8A"]
    assert middle["bare"]["B11"] > middle["bare"]["B08"] > middle["bare"]["B04"] > middle["bare"]["B02"]
    assert middle["water"]["B11"] < 0.05
    # chlorophyll: the gap between red and near infrared closes where soil is bare
    ndvi = {name: (m["B08"] - m["B04"]) / (m["B08"] + m["B04"]) for name, m in middle.items()}
    assert ndvi["forest"] > 0.7 > 0.4 > ndvi["bare"] > ndvi["water"]
