"""Observations as files: one cloud-optimised GeoTIFF a band, and a STAC Item beside them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pystac.extensions.eo import Band, EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterBand, RasterExtension
from pystac.extensions.view import ViewExtension

from geossl.demo.sensor import SENSOR, Observation

_PASS = time(13, 42, 11, tzinfo=UTC)
_COG = {"driver": "COG", "compress": "DEFLATE", "level": 6, "predictor": "YES", "blocksize": 512, "num_threads": 1}


def scene_id(observation_day: Any) -> str:
    """Name of the scene of a day; it says that it is generated."""
    return f"DEMO_22LGR_{observation_day:%Y%m%d}_L2A"


def write_scene(folder: Path, observation: Observation, box: GeoBox) -> Path:
    """Write bands, scene classification and, last of all, the Item that makes them a scene.

    Parameters
    ----------
    folder:
        Gets one sub-folder named after the scene.
    box:
        The square at 10 m.

    Returns
    -------
    Path
        The Item's JSON file.
    """
    name = scene_id(observation.day)
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    item = _item(name, observation, box)
    for band in SENSOR.bands:
        stored = observation.bands[band.name]
        step = box.shape[0] // stored.shape[0]
        _write(home / f"{band.name}.tif", stored, box.zoom_out(step), "AVERAGE")
        asset = _asset(item, band.name, f"./{band.name}.tif", stored, box.zoom_out(step), ["data", "reflectance"])
        eo = Band.create(band.name, band.common_name, center_wavelength=band.wavelength)
        EOExtension.ext(asset).apply([eo])
        asset.extra_fields["gsd"] = band.gsd
        RasterExtension.ext(asset).apply(
            [
                RasterBand.create(
                    nodata=0,
                    data_type="uint16",
                    spatial_resolution=band.gsd,
                    scale=1e-4,
                    offset=-observation.offset * 1e-4,
                    unit="1",
                )
            ]
        )
    step = box.shape[0] // observation.scl.shape[0]
    _write(home / "scl.tif", observation.scl, box.zoom_out(step), "MODE")
    asset = _asset(item, "scl", "./scl.tif", observation.scl, box.zoom_out(step), ["data"])
    RasterExtension.ext(asset).apply([RasterBand.create(nodata=0, data_type="uint8", spatial_resolution=20)])
    path = home / f"{name}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(item.to_dict(include_self_link=False), indent=1), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _item(name: str, observation: Observation, box: GeoBox) -> pystac.Item:
    footprint = box.geographic_extent
    item = pystac.Item(
        id=name,
        geometry=footprint.json,
        bbox=list(footprint.boundingbox.bbox),
        datetime=datetime.combine(observation.day, _PASS),
        properties={
            "title": f"Generated landscape, {observation.day:%d %B %Y}",
            "description": "Not a measurement: a generated scene in the form of a Sentinel-2 Level-2A product.",
            "platform": "sentinel-2a" if observation.day.toordinal() % 10 < 5 else "sentinel-2b",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "gsd": 10,
            "s2:processing_baseline": observation.baseline,
        },
    )
    EOExtension.ext(item, add_if_missing=True).cloud_cover = round(observation.cloud_cover, 2)
    ProjectionExtension.ext(item, add_if_missing=True).apply(code=str(box.crs))
    view = ViewExtension.ext(item, add_if_missing=True)
    view.sun_azimuth, view.sun_elevation = round(observation.sun.azimuth, 2), round(observation.sun.elevation, 2)
    RasterExtension.add_to(item)
    return item


def _asset(
    item: pystac.Item, key: str, href: str, stored: NDArray[Any], box: GeoBox, roles: list[str]
) -> pystac.Asset:
    item.add_asset(key, pystac.Asset(href, title=key, media_type=pystac.MediaType.COG, roles=roles))
    asset = item.assets[key]
    transform: Affine = box.affine
    ProjectionExtension.ext(asset).apply(code=str(box.crs), shape=list(stored.shape), transform=list(transform)[:6])
    return asset


def _write(path: Path, stored: NDArray[np.uint16] | NDArray[np.uint8], box: GeoBox, overviews: str) -> None:
    profile = _COG | {"dtype": str(stored.dtype), "count": 1, "nodata": 0, "crs": str(box.crs), "transform": box.affine}
    with rasterio.open(
        path, "w", height=stored.shape[0], width=stored.shape[1], overview_resampling=overviews, **profile
    ) as file:
        file.write(stored, 1)
