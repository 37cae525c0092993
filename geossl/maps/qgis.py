"""A QGIS project of all published maps, with names, colours and relative paths.

It is put together from the styles that lie beside each map, by the STAC Items of the newest releases, and
needs no QGIS to be written. Layers are those below ``<name>/latest``: a project that is kept open or saved
under another name shows the newest map after it was loaded again. Alerts, which lie beside the maps, are on top.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
from pyproj import CRS, Transformer

from geossl.files import write_bytes
from geossl.maps.picture import BACKGROUND, caption
from geossl.maps.polygons import LAYER
from geossl.maps.stac import alerts_of, relative
from geossl.maps.style import VERSION, confidence_style, picture_style, to_text

PROJECT = "maps.qgz"
"""Name of the project below the maps' root."""

_BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The time that ZIP counts from: the same maps make the same file."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of the project."""

    id: str
    name: str
    source: str
    """Path below the maps' root, or what its provider needs besides."""
    style: ET.Element
    """A ``qgis`` element, as QML has it."""
    crs: CRS
    shown: bool
    vector: bool = False


@dataclass(frozen=True, slots=True)
class _Map:
    """The layers of one published map, the topmost first."""

    title: str
    layers: list[_Layer]
    change: bool
    crs: CRS
    bounds: tuple[float, float, float, float]


_KINDS = (("polygons", "Polygons"), ("change-date", "Date of change"), ("map", "Class"), ("confidence", "Confidence"))
"""Assets that become layers, the topmost first, and what they are called."""

_ALERT_KINDS = (("alerts", "Alerts"), ("status", "Status of every pixel"), ("confidence", "Probability of clearing"))
"""The same of alerts."""


def write_project(root: Path) -> Path:
    """(Re)write the project of everything that is published below ``root``, in one move."""
    maps = [_read(root, path, _KINDS) for path in sorted(root.glob("*/latest/*-lineage.json"))]
    maps.sort(key=lambda found: not found.change)  # what changed lies on top of what is there
    news = sorted(alerts_of(root).glob("*/latest/*-lineage.json"))
    # alerts of earlier versions have no Item
    maps[:0] = [_read(root, path, _ALERT_KINDS) for path in news if _item(path.parent).is_file()]
    shown = next((found for found in maps if not found.change), None)
    for found in maps:
        if not found.change and found is not shown:  # one map of the whole ground would hide the other
            found.layers[:] = [_hidden(layer) for layer in found.layers]
    text = to_text(_project(maps, list(_background(root))))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("maps.qgs", _BEGINNING), text, zipfile.ZIP_DEFLATED)
    write_bytes(root / PROJECT, buffer.getvalue())
    return root / PROJECT


def _item(latest: Path) -> Path:
    """The STAC Item of a newest release."""
    return latest / f"{latest.resolve().name}.json"


def _read(root: Path, lineage: Path, kinds: Sequence[tuple[str, str]]) -> _Map:
    """One map, or the alerts of one monitor, by the STAC Item of its newest release."""
    latest = lineage.parent
    item = json.loads(_item(latest).read_text(encoding="utf-8"))
    properties, assets = item["properties"], item["assets"]
    crs = CRS.from_user_input(properties.get("proj:code") or properties["proj:projjson"])
    change = not {"change-date", "alerts"}.isdisjoint(assets)
    visible = {"polygons", "alerts"} if change else {"map"}
    layers = []
    for key, title in kinds:
        if key not in assets:
            continue
        given = assets.get(f"{key}-style")  # earlier releases had none for confidence
        text = (latest / given["href"]).read_text(encoding="utf-8") if given else confidence_style()
        layer = {"polygons": LAYER, "alerts": "alerts"}.get(key)
        file = relative(latest / assets[key]["href"], root)
        source = file if layer is None else f"{file}|layername={layer}"
        style = ET.fromstring(text)
        identity = f"{item['collection']}_{key}".replace("-", "_")
        layers.append(_Layer(identity, title, source, style, crs, key in visible, layer is not None))
    west, south, east, north = properties["proj:bbox"]
    return _Map(properties["title"], layers, change, crs, (west, south, east, north))


def _hidden(layer: _Layer) -> _Layer:
    return _Layer(layer.id, layer.name, layer.source, layer.style, layer.crs, False, layer.vector)


def _background(root: Path) -> Iterator[_Layer]:
    """The picture of the imagery that the stage of maps wrote, if it did."""
    path = root / BACKGROUND
    if path.is_file():
        with rasterio.open(path) as picture:
            crs = CRS.from_user_input(picture.crs.to_wkt())
        style = ET.fromstring(picture_style())
        yield _Layer("imagery_background", caption(path) or "Imagery", f"./{BACKGROUND}", style, crs, True)


def _project(maps: Sequence[_Map], background: Sequence[_Layer]) -> ET.Element:
    root = ET.Element("qgis", projectname="Maps made by geossl", version=VERSION)
    ET.SubElement(root, "title").text = "Maps made by geossl"
    layers = [layer for found in maps for layer in found.layers] + list(background)
    if maps:
        root.append(_crs("projectCrs", maps[0].crs))
    tree = ET.SubElement(root, "layer-tree-group")
    for found in maps:
        group = ET.SubElement(tree, "layer-tree-group", name=found.title, checked="Qt::Checked", expanded="1")
        for layer in found.layers:
            group.append(_node(layer))
    for layer in background:
        tree.append(_node(layer))
    if maps:
        canvas = ET.SubElement(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
        ET.SubElement(canvas, "units").text = "meters"
        canvas.append(_extent("extent", _bounds(maps)))
        ET.SubElement(canvas, "rotation").text = "0"
        canvas.append(_crs("destinationsrs", maps[0].crs))
        view = ET.SubElement(root, "ProjectViewSettings", UseProjectScales="0")
        view.append(_extent("DefaultViewExtent", _bounds(maps)))
    order = ET.SubElement(root, "layerorder")
    for layer in layers:
        ET.SubElement(order, "layer", id=layer.id)
    described = ET.SubElement(root, "projectlayers")
    for layer in layers:
        described.append(_described(layer))
    properties = ET.SubElement(root, "properties")
    ET.SubElement(ET.SubElement(properties, "Paths"), "Absolute", type="bool").text = "false"
    # without it QGIS passes over the project's CRS
    ET.SubElement(ET.SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int").text = "1"
    return root


def _node(layer: _Layer) -> ET.Element:
    """A layer's place in the tree of layers, which is the legend too."""
    return ET.Element(
        "layer-tree-layer", id=layer.id, name=layer.name, source=layer.source,
        providerKey="ogr" if layer.vector else "gdal", checked="Qt::Checked" if layer.shown else "Qt::Unchecked",
        expanded="1" if layer.shown else "0",
    )  # fmt: skip


def _described(layer: _Layer) -> ET.Element:
    """What a layer is and how it looks."""
    element = ET.Element("maplayer", type="vector" if layer.vector else "raster", hasScaleBasedVisibilityFlag="0")
    if layer.vector:
        element.set("geometry", "Polygon")
    for key, value in (("id", layer.id), ("datasource", layer.source), ("layername", layer.name)):
        ET.SubElement(element, key).text = value
    element.append(_crs("srs", layer.crs))
    provider = ET.SubElement(element, "provider", encoding="UTF-8")
    provider.text = "ogr" if layer.vector else "gdal"
    element.extend(layer.style)
    return element


def _crs(tag: str, crs: CRS) -> ET.Element:
    element = ET.Element(tag)
    system = ET.SubElement(element, "spatialrefsys")
    ET.SubElement(system, "wkt").text = crs.to_wkt()
    authority: Any = crs.to_authority()
    if authority is not None:
        ET.SubElement(system, "authid").text = ":".join(authority)
    ET.SubElement(system, "description").text = crs.name
    return element


def _bounds(maps: Sequence[_Map]) -> tuple[float, float, float, float]:
    """All maps together, in the CRS of the first."""
    boxes = [
        found.bounds
        if found.crs == maps[0].crs
        else Transformer.from_crs(found.crs, maps[0].crs, always_xy=True).transform_bounds(*found.bounds)
        for found in maps
    ]
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


def _extent(tag: str, bounds: tuple[float, float, float, float]) -> ET.Element:
    element = ET.Element(tag)
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True):
        element.set(key, repr(value))  # QGIS 3.22 reads the view from attributes, the canvas from elements
        ET.SubElement(element, key).text = repr(value)
    return element
