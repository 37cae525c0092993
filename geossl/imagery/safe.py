"""Sentinel-2 products as ESA ships them: a ``.SAFE`` folder, Level-1C or Level-2A."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.imagery.scene import Asset, Scene, outline

_IMAGE = re.compile(r"_(?P<band>B\d[\dA]|SCL)(?:_(?P<gsd>\d{2})m)?\.jp2$")


def read_safe(folder: Path, sensor: Sensor) -> Scene:
    """The scene of one ``.SAFE`` folder: each band from the finest resolution that is there, and the mask
    (scene classification) whose resolution is nearest to the finest band's.

    Raises
    ------
    SceneError
        The folder is no complete product, lacks a band, or is of another level or scale than the sensor.
    """
    try:
        return _scene(folder, sensor)
    except ValueError as error:
        raise SceneError(
            f"{folder.name}: the metadata hold no number or time: {error}", "fetch the product again"
        ) from error


def _scene(folder: Path, sensor: Sensor) -> Scene:
    product = _metadata(folder, "MTD_MSIL*.xml")
    granule = _metadata(folder, "GRANULE/*/MTD_TL.xml")
    level = _text(product, folder, "PROCESSING_LEVEL").removeprefix("Level-").lower()
    if sensor.name in ("sentinel-2-l1c", "sentinel-2-l2a") and not sensor.name.endswith(level):
        raise SceneError(f"{folder.name} is a Level-{level.upper()} product, the sensor is {sensor.name}")
    quantification = float(_text(product, folder, "BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE"))
    if abs(sensor.radiometry.scale * quantification - 1) > 1e-9:
        raise SceneError(
            f"{folder.name}: a step is 1/{quantification:g}, for {sensor.name} {sensor.radiometry.scale:g}"
        )
    images = _images(folder)
    if missing := [name for name in sensor.band_names if name not in images]:
        there = ", ".join(sorted(images)) or "none"
        raise SceneError(
            f"{folder.name} has no image of band {', '.join(missing)} (there are: {there})",
            "fetch the whole product, or name only the bands that are there",
        )
    bands = {name: min(images[name]) for name in sensor.band_names}
    finest = min(gsd for gsd, _ in bands.values())
    mask = min(images.get("SCL", []), key=lambda image: abs(image[0] - finest), default=None)
    return Scene(
        id=folder.name.removesuffix(".SAFE"),
        sensor=sensor.name,
        time=datetime.fromisoformat(_text(product, folder, "PRODUCT_START_TIME")),
        footprint=_footprint(_text(product, folder, "EXT_POS_LIST")),
        crs=_text(granule, folder, "HORIZONTAL_CS_CODE"),
        bands={name: Asset(str(path)) for name, (_, path) in bands.items()},
        masks={"scl": Asset(str(mask[1]))} if mask else {},
        shift=_shift(product, folder),
        source_nodata=0,
        properties=_properties(product),
    )


def _metadata(folder: Path, pattern: str) -> ElementTree.Element:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        count = "several files" if found else "no file"
        raise SceneError(f"{folder.name} has {count} {pattern}", "fetch the product again, one granule a product")
    try:
        return ElementTree.parse(found[0]).getroot()
    except ElementTree.ParseError as error:
        raise SceneError(f"{found[0]} is not XML: {error}", "fetch the product again") from error


def _elements(root: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    """Elements of these names, whatever their namespace."""
    return (element for element in root.iter() if element.tag.rpartition("}")[2] in names)


def _text(root: ElementTree.Element, folder: Path, *names: str) -> str:
    for element in _elements(root, *names):
        return (element.text or "").strip()
    raise SceneError(f"{folder.name}: the metadata has no {names[0]}", "fetch the product again")


def _images(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Band name → (ground sample distance, file) of each of its images; Level-1C names say no distance."""
    images: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        if match := _IMAGE.search(path.name):
            images[match["band"]].append((int(match["gsd"] or 0), path))
    return images


def _shift(product: ElementTree.Element, folder: Path) -> int:
    """The integer offset that baseline 04.00 and later add to every band, to be undone exactly."""
    offsets = {int(e.text or 0) for e in _elements(product, "BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")}
    if len(offsets) > 1:
        raise SceneError(f"{folder.name}: its bands have different offsets: {sorted(offsets)}")
    return offsets.pop() if offsets else 0


def _footprint(positions: str) -> dict[str, Any]:
    """GeoJSON from a list of latitude longitude pairs."""
    numbers = [float(number) for number in positions.split()]
    return outline(list(zip(numbers[1::2], numbers[::2], strict=True)))


def _properties(product: ElementTree.Element) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for element in _elements(product, "PROCESSING_BASELINE"):
        said["s2:processing_baseline"] = element.text
    for element in _elements(product, "Cloud_Coverage_Assessment"):
        said["eo:cloud_cover"] = float(element.text or 0)
    return said
