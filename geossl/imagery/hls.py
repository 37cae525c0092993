"""Granules of HLS (Harmonized Landsat Sentinel-2) version 2: one GeoTIFF a band, named by NASA's rule.

``HLS.S30.T10SEH.2020273T190109.v2.0.B02.tif``: product, Sentinel-2 tile, time of acquisition, version and band
(HLS Product User Guide 2.0). The numbers are surface reflectance × 10,000 with no-data −9999 in both products.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from geossl.bands import Sensor, sensors
from geossl.errors import SceneError
from geossl.imagery.access import Access
from geossl.imagery.raster import footprint, geobox, open_raster
from geossl.imagery.scene import Asset, Scene

NAME = re.compile(
    r"(?P<granule>HLS\.(?P<product>[LS]30)\.T\w{5}\.(?P<time>\d{7}T\d{6})\.v(?P<version>\d+\.\d+))\.(?P<band>\w+)\.tif"
)
"""The name of one file: granule, product, time, version, band."""


def read_hls(
    paths: Sequence[Path], sensor: Sensor, href: Callable[[str], str] = str, access: Access | None = None
) -> Scene:
    """The scene of the files of one granule, its place that of the first band's file.

    Parameters
    ----------
    href, access:
        Where a path's file really is, and how to sign in there, when paths only stand for files elsewhere.

    Raises
    ------
    SceneError
        The granule is of the other product or of an older version, lacks a band or its mask, or the first
        band's file cannot be opened.
    """
    found = {match["band"]: (path, match) for path in paths if (match := NAME.fullmatch(path.name))}
    if not found:
        raise SceneError(f"none of {len(paths)} files is named as HLS names its files", "fetch the granule again")
    said = next(iter(found.values()))[1]
    granule, expected = said["granule"], f"hls-{said['product'].lower()}"
    if sensor.name in sensors() and sensor.name != expected:
        raise SceneError(f"{granule}: it is of sensor {expected}, not {sensor.name}", f"choose sensor {expected}")
    if not said["version"].startswith("2."):
        raise SceneError(f"{granule}: it is of HLS version {said['version']}", "fetch version 2.0 of it")
    if missing := [name for name in (*sensor.band_names, "Fmask") if name not in found]:
        raise SceneError(
            f"{granule} has no {', '.join(missing)} (there are: {', '.join(found)})", "fetch what is missing"
        )
    bands = {name: Asset(str(found[name][0])) for name in sensor.band_names}
    what = f"scene {granule}, band {sensor.band_names[0]}"
    with open_raster(href(bands[sensor.band_names[0]].href), what, access) as dataset:
        box, crs = geobox(dataset, what), dataset.crs.to_string()
    return Scene(
        id=granule,
        sensor=sensor.name,
        time=_time(granule, said["time"]),
        footprint=footprint(box, what),
        crs=crs,
        bands=bands,
        masks={"hls_fmask": Asset(str(found["Fmask"][0]))},
        source_nodata=-9999,
    )


def _time(granule: str, text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y%jT%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise SceneError(f"{granule}: {text} is no year, day of year and time", "fetch the granule again") from error
