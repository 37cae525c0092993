"""What a STAC Item says: which asset is which band, and how its numbers relate to the sensor's.

Pure functions over items; nothing is opened. Providers name bands and state scale and offset in
several ways, so each question is answered by numbered rules, first match wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pystac

from geossl.bands import Band, Sensor, sensors
from geossl.errors import SceneError
from geossl.imagery.clouds import QualityKind

OWN = "geossl:"
"""Prefix of the properties that geossl itself writes into items."""

_PICTURES = {"visual", "overview", "thumbnail"}
"""Roles and keys of assets that show a scene rather than measure it."""

_BASELINE = re.compile(r"N?(\d\d)\.?\d\d")

_HLS = re.compile(r"hls2?[.\-]?([ls]30)", re.IGNORECASE)
"""How ids of HLS items and of their collections begin: HLS.S30.T…, HLSL30_2.0, hls2-s30."""

_LANDSAT = {"4": "landsat-5", "5": "landsat-5", "7": "landsat-7", "8": "landsat-8", "9": "landsat-8"}
"""Satellite → how the names of its sensor begin."""

_WAVELENGTH_TOLERANCE = 0.01
"""µm; closer than any two bands of one shipped sensor."""


def find_band(item: pystac.Item, band: Band) -> tuple[pystac.Asset, int] | None:
    """The asset and 1-based index within its file that hold a band, or None.

    1. an asset whose key is the band's name;
    2. an asset that lists a band of that name;
    3. an asset that lists a band of that common name;
    4. an asset whose key is the common name;
    5. an asset that lists a band of that centre wavelength.

    Among several by one rule: the finest, then a GeoTIFF before a JPEG 2000.
    """
    rules: tuple[Callable[[_Entry], bool], ...] = (
        lambda entry: _same(entry.key, band.name),
        lambda entry: _same(entry.says("name"), band.name),
        lambda entry: _same(entry.says("common_name"), band.common_name),
        lambda entry: _same(entry.key, band.common_name),
        lambda entry: _near(entry.says("center_wavelength"), band.wavelength),
    )
    entries = list(_band_entries(item))
    for rule in rules:
        if found := [entry for entry in entries if rule(entry)]:
            best = min(found, key=lambda entry: (_gsd(entry.asset), "jp2" in (entry.asset.media_type or "")))
            return best.asset, best.index
    return None


def require_sensor(item: pystac.Item, sensor: Sensor) -> None:
    """Refuse an item that says it is of another sensor; a sensor of one's own takes any.

    1. what geossl wrote itself; 2. HLS by its id or collection; 3. Landsat by platform, instrument and
    level; 4. Sentinel-2 by product type or level.

    Raises
    ------
    SceneError
        Names the sensor to choose.
    """
    said = str(item.properties.get(OWN + "sensor") or _sensor_said(item) or sensor.name)
    if sensor.name not in sensors() or said == sensor.name or sensor.name.startswith(said + "-"):
        return
    if sensor.name.startswith("hls-") and said not in sensors():  # HLS elsewhere may name only its satellite
        return
    raise SceneError(
        f"{item.id}: it is of sensor {said}, not {sensor.name}",
        f"choose sensor {said}" if said in sensors() else "describe a sensor of your own for it",
    )


def landsat_sensor(spacecraft: str, instruments: str, level: str) -> str:
    """Name of the sensor of a Landsat scene, such as ``landsat-8-l2``.

    Parameters
    ----------
    spacecraft, instruments, level:
        As USGS spells them: ``LANDSAT_8``, ``OLI_TIRS``, ``L2SP``; an empty level gives ``landsat-8``.
    """
    family = "landsat-mss" if "mss" in instruments.lower() else _LANDSAT.get(spacecraft[-1:], spacecraft.lower())
    return f"{family}-{level[:2].lower()}" if level else family


def find_masks(item: pystac.Item, sensor: Sensor) -> dict[QualityKind, tuple[pystac.Asset, int]]:
    """The provider's quality masks by kind: the finest asset and the band index within its file.

    An asset named ``Fmask`` holds bits in HLS and classes elsewhere.
    """
    kinds: dict[str, QualityKind] = {kind: kind for kind in get_args(QualityKind)}
    if OWN + "sensor" not in item.properties and "hls-" in f"{_sensor_said(item)} {sensor.name}":
        kinds["fmask"] = "hls_fmask"
    masks: dict[QualityKind, tuple[pystac.Asset, int]] = {}
    for name, kind in kinds.items():
        hits = [
            (asset, int(asset.extra_fields.get(OWN + "index", 1)))
            for key, asset in item.assets.items()
            if (key.lower() == name or key.lower().startswith(name + "_")) and not key.lower().endswith("jp2")
        ]
        if hits:
            masks[kind] = min(hits, key=lambda hit: _gsd(hit[0]))
    return masks


def shift(item: pystac.Item, asset: pystac.Asset, index: int, sensor: Sensor) -> int:
    """The exact integer that turns the asset's stored numbers into the sensor's.

    1. what geossl wrote itself;
    2. 0 for a sensor without a unit, which keeps the numbers as they are;
    3. ``earthsearch:boa_offset_applied``: the provider has undone the offset (its ``raster:bands``
       still state it), so 0;
    4. the scale and offset that the asset states;
    5. Sentinel-2 of baseline 04.00 or later, where nothing else is said: −1000;
    6. 0.

    Raises
    ------
    SceneError
        The asset's scale is not the sensor's, or its offset is no whole number of steps.
    """
    if OWN + "shift" in item.properties:
        return int(item.properties[OWN + "shift"])
    if sensor.radiometry.unit == "none" or item.properties.get("earthsearch:boa_offset_applied"):
        return 0
    entry = _raster_entry(asset, index)
    if "scale" in entry or "offset" in entry:
        scale, offset = float(entry.get("scale", 1.0)), float(entry.get("offset", 0.0))
        return shift_from_scale(item.id, scale, offset, sensor)
    baseline = _BASELINE.fullmatch(str(item.properties.get("s2:processing_baseline")))
    return -1000 if sensor.name.startswith("sentinel-2") and baseline and int(baseline[1]) >= 4 else 0


def _sensor_said(item: pystac.Item) -> str | None:
    """The sensor that another provider's item is of, as far as it says; without a level where it says none."""
    if hls := _HLS.match(item.id) or _HLS.match(item.collection_id or ""):
        return f"hls-{hls[1].lower()}"
    said = item.properties
    platform = str(said.get("platform") or said.get("constellation") or "").lower()
    if platform.startswith("landsat"):
        return landsat_sensor(
            platform, " ".join(said.get("instruments") or ()), str(said.get("landsat:correction", ""))
        )
    level = str(said.get("s2:product_type") or said.get("processing:level") or "")[-2:].lower()
    if platform.startswith("sentinel-2"):
        return f"sentinel-2-l{level}" if level in ("1c", "2a") else "sentinel-2"
    return None


def nodata(item: pystac.Item, asset: pystac.Asset, index: int) -> float | None:
    """The number that the item says means no-data, or None where it says nothing."""
    value = item.properties.get(OWN + "source_nodata", _raster_entry(asset, index).get("nodata"))
    return None if value is None else float(value)


def shift_from_scale(what: str, scale: float, offset: float, sensor: Sensor) -> int:
    """The exact integer that turns numbers of a stated scale and offset into the sensor's.

    Raises
    ------
    SceneError
        The scale is not the sensor's, or the offset is no whole number of steps.
    """
    ours = sensor.radiometry
    if not math.isclose(scale, ours.scale, rel_tol=1e-6):
        raise SceneError(
            f"{what}: its numbers have scale {scale:g}, sensor {sensor.name} has {ours.scale:g}",
            "choose or describe a sensor with this scale",
        )
    steps = (offset - ours.offset) / ours.scale
    if abs(steps - round(steps)) > 1e-3:
        raise SceneError(
            f"{what}: its offset {offset:g} is not a whole number of steps from sensor {sensor.name}'s",
            "describe a sensor with this offset",
        )
    return round(steps)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One band that an item lists."""

    key: str
    """The asset's key where the asset is this one band, else empty."""
    asset: pystac.Asset
    index: int
    said: Mapping[str, Any]

    def says(self, name: str) -> Any:
        """A property of the EO extension, as STAC 1.1 or as 1.0 spell it."""
        return self.said.get(f"eo:{name}", self.said.get(name))


def _band_entries(item: pystac.Item) -> Iterator[_Entry]:
    for key, asset in item.assets.items():
        if _PICTURES & {key.lower(), *(asset.roles or ())}:
            continue
        listed = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or [{}]
        own_index = asset.extra_fields.get(OWN + "index")
        for position, said in enumerate(listed, start=1):
            yield _Entry(key if len(listed) == 1 else "", asset, int(own_index or position), said)


def _raster_entry(asset: pystac.Asset, index: int) -> dict[str, Any]:
    """scale, offset, nodata of one band, from STAC 1.1 ``bands`` or from ``raster:bands``."""
    said = dict(asset.extra_fields)
    for listing in ("raster:bands", "bands"):
        listed = asset.extra_fields.get(listing) or []
        if listed:
            said |= listed[index - 1] if index <= len(listed) else listed[0]
    return {
        name: said[key] for name in ("scale", "offset", "nodata") for key in (name, f"raster:{name}") if key in said
    }


def _gsd(asset: pystac.Asset) -> float:
    raster = (asset.extra_fields.get("raster:bands") or [{}])[0]
    transform = asset.extra_fields.get("proj:transform")
    said = (
        asset.extra_fields.get("gsd")
        or asset.extra_fields.get("raster:spatial_resolution")
        or raster.get("spatial_resolution")
        or (transform[0] if transform else None)
    )
    return math.inf if said is None else abs(float(said))


def _same(said: str | None, wanted: str | None) -> bool:
    return said is not None and wanted is not None and said.lower() == wanted.lower()


def _near(said: float | None, wanted: float | None) -> bool:
    return said is not None and wanted is not None and abs(said - wanted) <= _WAVELENGTH_TOLERANCE
