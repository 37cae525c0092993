"""Landsat Collection 2 products as USGS ships them: a metadata file (MTL) beside one GeoTIFF a band.

The metadata come as text, JSON or XML and say the same in each. Names and groups are those of the
Level-1 and Level-2 data format control books (USGS, LSDS-1414, LSDS-1415, LSDS-1822, LSDS-1618, LSDS-1619).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from geossl.bands import Sensor, sensors
from geossl.errors import SceneError
from geossl.imagery.clouds import QualityKind
from geossl.imagery.items import landsat_sensor, shift_from_scale
from geossl.imagery.scene import Asset, Scene, outline

_MTL = re.compile(r"(?P<product>.+)_MTL\.(?P<kind>txt|json|xml)", re.IGNORECASE)
_KINDS = ("txt", "json", "xml")
_LINE = re.compile(r'(\w+)\s*=\s*"?(.*?)"?')

_PARAMETERS = {
    "l1": ("LEVEL1_RADIOMETRIC_RESCALING",),
    "l2": ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS"),
}
"""Where each level states its scale and offset; a Level-2 file repeats those of Level-1, for other numbers."""

_MASKS: dict[QualityKind, str] = {
    "qa_pixel": "FILE_NAME_QUALITY_L1_PIXEL",
    "qa_radsat": "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION",
}

_NUMBERS = {
    "eo:cloud_cover": "CLOUD_COVER",
    "view:sun_azimuth": "SUN_AZIMUTH",
    "view:sun_elevation": "SUN_ELEVATION",
}


def metadata_files(names: Iterable[str]) -> list[str]:
    """The one metadata file of each Landsat product among file names: text before JSON before XML."""
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        if match := _MTL.fullmatch(name):
            found = _KINDS.index(match["kind"].lower()), name
            best[match["product"]] = min(found, best.get(match["product"], found))
    return sorted(name for _, name in best.values())


def read_landsat(mtl: Path, sensor: Sensor) -> Scene:
    """The scene that a metadata file describes, with its bands and both its quality masks.

    Raises
    ------
    SceneError
        The file is damaged, is of Collection 1 or of another sensor (names the one to choose), states
        another scale or offset than the sensor's, or a band or mask is missing.
    """
    try:
        return _scene(mtl, _Metadata.read(mtl), sensor)
    except ValueError as error:
        raise SceneError(
            f"{mtl.name}: the metadata hold no number or time: {error}", "fetch the product again"
        ) from error


def _scene(mtl: Path, said: _Metadata, sensor: Sensor) -> Scene:
    contents, image = said.group("PRODUCT_CONTENTS"), said.group("IMAGE_ATTRIBUTES")
    level = contents["PROCESSING_LEVEL"][:2].lower()
    expected = landsat_sensor(image["SPACECRAFT_ID"], image["SENSOR_ID"], level)
    if sensor.name in sensors() and sensor.name != expected:
        raise SceneError(
            f"{mtl.name}: it is of sensor {expected}, not {sensor.name}",
            f"choose sensor {expected}" if expected in sensors() else "describe a sensor of your own for it",
        )
    coefficients = {band: _coefficients(said, level, band) for band in sensor.band_names}
    physical = sensor.radiometry.unit != "none"
    return Scene(
        id=contents["LANDSAT_PRODUCT_ID"],
        sensor=sensor.name,
        time=datetime.fromisoformat(f"{image['DATE_ACQUIRED']}T{image['SCENE_CENTER_TIME']}"),
        footprint=outline(_corners(said.group("PROJECTION_ATTRIBUTES"))),
        crs=_crs(said.group("PROJECTION_ATTRIBUTES")),
        bands={band: _asset(mtl, contents, f"FILE_NAME_BAND_{_number(band)}", band) for band in sensor.band_names},
        masks={kind: _asset(mtl, contents, key, kind) for kind, key in _MASKS.items()},
        shift=_shift(mtl.name, coefficients, sensor) if physical else 0,
        source_nodata=0,
        properties=_properties(contents, image) | ({} if physical else _kept(coefficients)),
    )


class _Group(dict[str, str]):
    """One group of the metadata; what it lacks is an error that names the file."""

    def __init__(self, file: str, said: Mapping[str, str]) -> None:
        super().__init__(said)
        self.file = file

    def __missing__(self, key: str) -> str:
        raise SceneError(f"{self.file}: the metadata have no {key}", "fetch the product again")


@dataclass(frozen=True, slots=True)
class _Metadata:
    file: str
    groups: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, path: Path) -> _Metadata:
        parse = {".txt": _from_text, ".json": _from_json, ".xml": _from_xml}[path.suffix.lower()]
        try:
            # USGS's own text files end in kilobytes of zeros
            root, groups = parse(path.read_text(encoding="utf-8", errors="replace").rstrip("\0 \n"))
        except (ValueError, TypeError, AttributeError, ElementTree.ParseError, OSError) as error:
            raise SceneError(
                f"{path} cannot be read as Landsat metadata: {error}", "fetch the product again"
            ) from error
        contents = groups.get("PRODUCT_CONTENTS", {})
        if root == "L1_METADATA_FILE" or contents.get("COLLECTION_NUMBER", "02").lstrip("0") == "1":
            raise SceneError(
                f"{path.name} is of Landsat Collection 1 or older, whose calibration and quality bits differ",
                "fetch the scene of Collection 2, or read its files by a `pattern` with a sensor of your own",
            )
        if root != "LANDSAT_METADATA_FILE":
            raise SceneError(f"{path} is no Landsat metadata file (it begins with {root})", "fetch the product again")
        return cls(path.name, groups)

    def group(self, name: str) -> _Group:
        if name not in self.groups:
            raise SceneError(f"{self.file}: the metadata have no {name}", "fetch the product again")
        return _Group(self.file, self.groups[name])


def _from_text(text: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Object description language: ``KEY = value`` within ``GROUP = name … END_GROUP = name``."""
    path: list[str] = []
    root, groups = "", dict[str, dict[str, str]]()
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        key, value = match.groups()
        if key == "GROUP":
            path.append(value)
            root = path[0]
        elif key == "END_GROUP":
            if not path or path.pop() != value:
                raise ValueError(f"group {value} ends where it was not open")
        elif path:
            groups.setdefault(path[-1], {})[key] = value
    if path:
        raise ValueError(f"group {path[-1]} does not end")
    return root, groups


def _from_json(text: str) -> tuple[str, dict[str, dict[str, str]]]:
    ((root, groups),) = json.loads(text).items()
    return root, {name: {key: str(value) for key, value in group.items()} for name, group in groups.items()}


def _from_xml(text: str) -> tuple[str, dict[str, dict[str, str]]]:
    root = ElementTree.fromstring(text)
    return root.tag, {group.tag: {entry.tag: (entry.text or "").strip() for entry in group} for group in root}


def _number(band: str) -> str:
    """How the metadata call a band: ``B4`` is 4, ``ST_B10`` is itself."""
    return band.removeprefix("B")


def _coefficients(said: _Metadata, level: str, band: str) -> tuple[float, float] | None:
    """Scale and offset of a band's reflectance or temperature, or None where nothing is said."""
    stated = {key: value for name in _PARAMETERS.get(level, ()) for key, value in said.groups.get(name, {}).items()}
    for quantity in ("REFLECTANCE", "TEMPERATURE"):
        keys = [f"{quantity}_{part}_BAND_{_number(band)}" for part in ("MULT", "ADD")]
        if all(key in stated for key in keys):
            scale, offset = (float(stated[key]) for key in keys)
            return scale, offset
    return None


def _shift(file: str, coefficients: Mapping[str, tuple[float, float] | None], sensor: Sensor) -> int:
    """The exact integer that turns the product's numbers into the sensor's."""
    if unsaid := [band for band, stated in coefficients.items() if stated is None]:
        raise SceneError(f"{file}: the metadata state no scale of band {', '.join(unsaid)}", "fetch the product again")
    shifts = {
        shift_from_scale(f"{file}, band {band}", *stated, sensor) for band, stated in coefficients.items() if stated
    }
    if len(shifts) > 1:
        raise SceneError(f"{file}: its bands have different offsets", "describe them as two sensors")
    return shifts.pop()


def _asset(mtl: Path, contents: _Group, key: str, name: str) -> Asset:
    path = mtl.parent / contents[key]
    if Path(contents[key]).name != contents[key] or not path.is_file():
        raise SceneError(
            f"{mtl.name}: {name} should be in {contents[key]}, which is not there", "fetch the whole product"
        )
    return Asset(str(path))


def _corners(projection: _Group) -> list[tuple[float, float]]:
    """Longitude and latitude of the raster's corners."""
    return [
        (float(projection[f"CORNER_{corner}_LON_PRODUCT"]), float(projection[f"CORNER_{corner}_LAT_PRODUCT"]))
        for corner in ("UL", "UR", "LR", "LL")
    ]


def _crs(projection: _Group) -> str | None:
    """UTM zones are those of the north on either side of the equator; the files say what else there is."""
    return f"EPSG:{32600 + int(projection['UTM_ZONE'])}" if projection["MAP_PROJECTION"] == "UTM" else None


def _properties(contents: _Group, image: _Group) -> dict[str, Any]:
    said: dict[str, Any] = {
        "platform": image["SPACECRAFT_ID"].lower().replace("_", "-"),
        "landsat:correction": contents["PROCESSING_LEVEL"],
        "landsat:collection_category": contents["COLLECTION_CATEGORY"],
    }
    numbers = {name: float(image[key]) for name, key in _NUMBERS.items() if key in image}
    return said | {name: number for name, number in numbers.items() if name != "eo:cloud_cover" or number >= 0}


def _kept(coefficients: Mapping[str, tuple[float, float] | None]) -> dict[str, Any]:
    """Scale and offset by band, for numbers that have none in common with other scenes'."""
    return {"landsat:reflectance": {band: list(stated) for band, stated in coefficients.items() if stated}}
