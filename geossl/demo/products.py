"""Observations as files: one cloud-optimised GeoTIFF a band, and a STAC Item beside them."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, time
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
from pystac.extensions.raster import DataType, RasterBand, RasterExtension
from pystac.extensions.view import ViewExtension
from rasterio.warp import transform_bounds, transform_geom
from shapely.geometry import mapping

from geossl.demo.sensor import SENSOR, Observation

LONLAT = "EPSG:4326"

_PASS = time(13, 42, 11, tzinfo=UTC)
_COG = {"driver": "COG", "compress": "DEFLATE", "level": 6, "predictor": "YES", "blocksize": 512, "num_threads": 1}


def scene_id(day: date) -> str:
    """Name of the scene of a day; it says that it is generated."""
    return f"DEMO_22LGR_{day:%Y%m%d}_L2A"


def lonlat_bounds(box: GeoBox) -> tuple[float, float, float, float]:
    """West, south, east, north in degrees."""
    west, south, east, north = transform_bounds(str(box.crs), LONLAT, *box.boundingbox.bbox)
    return west, south, east, north


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
        meta = RasterBand.create(
            nodata=0,
            data_type=DataType.UINT16,
            spatial_resolution=band.gsd,
            scale=1e-4,
            offset=-observation.offset * 1e-4,
            unit="1",
        )
        asset = _add(item, band.name, stored, box, meta, ["data", "reflectance"])
        eo = Band.create(band.name, band.common_name, center_wavelength=band.wavelength)
        EOExtension.ext(asset).apply([eo])
        _write(home / f"{band.name}.tif", stored, box, "AVERAGE")
    meta = RasterBand.create(nodata=0, data_type=DataType.UINT8, spatial_resolution=20)
    _add(item, "scl", observation.scl, box, meta, ["data"])
    _write(home / "scl.tif", observation.scl, box, "MODE")
    path = home / f"{name}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(item.to_dict(include_self_link=False), indent=1), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _item(name: str, observation: Observation, box: GeoBox) -> pystac.Item:
    item = pystac.Item(
        id=name,
        geometry=transform_geom(str(box.crs), LONLAT, mapping(box.extent.geom), precision=7),
        bbox=[round(degrees, 7) for degrees in lonlat_bounds(box)],
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


def _add(
    item: pystac.Item, key: str, stored: NDArray[Any], box: GeoBox, meta: RasterBand, roles: list[str]
) -> pystac.Asset:
    item.add_asset(key, pystac.Asset(f"./{key}.tif", title=key, media_type=pystac.MediaType.COG, roles=roles))
    asset = item.assets[key]
    transform = list(_transform(stored, box))[:6]
    ProjectionExtension.ext(asset).apply(code=str(box.crs), shape=list(stored.shape), transform=transform)
    RasterExtension.ext(asset).apply([meta])
    asset.extra_fields["gsd"] = meta.spatial_resolution
    return asset


def _transform(stored: NDArray[Any], box: GeoBox) -> Affine:
    """Of an array that covers the box with its own, coarser pixels."""
    step = box.shape[0] / stored.shape[0]
    return box.affine @ Affine.scale(step)


def _write(path: Path, stored: NDArray[np.uint16] | NDArray[np.uint8], box: GeoBox, overviews: str) -> None:
    height, width = stored.shape
    with rasterio.open(
        path,
        "w",
        height=height,
        width=width,
        count=1,
        dtype=str(stored.dtype),
        nodata=0,
        crs=str(box.crs),
        transform=_transform(stored, box),
        overview_resampling=overviews,
        **_COG,
    ) as file:
        file.write(stored, 1)
