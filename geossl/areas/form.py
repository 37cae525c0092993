"""The QGIS form (QML, readable by QGIS 3.22 and later) in which an interpreter answers a sample's points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

CONFIDENCE = ("high", "medium", "low")
"""What an interpreter may say of an answer."""

_OPEN, _DONE = "230,159,0,255", "0,158,115,255"


def form(fields: Sequence[str], classes: Sequence[str], hints: Mapping[str, str]) -> str:
    """A style for points with a form: drop-downs for answers, the picture shown, everything else fixed.

    Parameters
    ----------
    fields:
        All fields of the layer, in order.
    classes:
        Names of the legend's classes, which ``reference`` chooses from.
    hints:
        Field → what to ask for.
    """
    root = ET.Element("qgis", version="3.22.0-Białowieża", styleCategories="Symbology|Fields|Forms", labelsEnabled="0")
    _symbols(root)
    widgets, editable, aliases = (ET.SubElement(root, tag) for tag in ("fieldConfiguration", "editable", "aliases"))
    for index, name in enumerate(fields):
        field = ET.SubElement(widgets, "field", name=name, configurationFlags="None")
        _widget(field, name, classes)
        answer = name in ("reference", "confidence", "comment", "before", "after")
        ET.SubElement(editable, "field", name=name, editable=str(int(answer)))
        ET.SubElement(aliases, "alias", index=str(index), field=name, name=hints.get(name, ""))
    ET.SubElement(root, "layerGeometryType").text = "0"
    ET.indent(root)
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{ET.tostring(root, encoding='unicode')}\n"


def _widget(field: ET.Element, name: str, classes: Sequence[str]) -> None:
    if name in ("reference", "confidence"):
        options = _config(field, "ValueMap")
        values = ET.SubElement(options, "Option", name="map", type="List")
        for value in classes if name == "reference" else CONFIDENCE:
            entry = ET.SubElement(values, "Option", type="Map")
            ET.SubElement(entry, "Option", name=value, value=value, type="QString")
    elif name == "picture":
        options = _config(field, "ExternalResource")
        # an image, by a path from where the points lie, be there a QGIS project or not
        for key, number in {"DocumentViewer": 1, "RelativeStorage": 2, "StorageMode": 0}.items():
            ET.SubElement(options, "Option", name=key, value=str(number), type="int")
        for key in ("FileWidget", "FileWidgetButton"):
            ET.SubElement(options, "Option", name=key, value="false", type="bool")
        _data_defined(options, "propertyRootPath", "file_path(layer_property(@layer, 'path'))")
    else:
        options = _config(field, "TextEdit")
        ET.SubElement(options, "Option", name="IsMultiline", value=str(name == "comment").lower(), type="bool")


def _data_defined(options: ET.Element, name: str, expression: str) -> None:
    collection = ET.SubElement(options, "Option", name="PropertyCollection", type="Map")
    ET.SubElement(collection, "Option", name="type", value="collection", type="QString")
    properties = ET.SubElement(collection, "Option", name="properties", type="Map")
    entry = ET.SubElement(properties, "Option", name=name, type="Map")
    # 3: by an expression
    for key, value, kind in (("active", "true", "bool"), ("expression", expression, "QString"), ("type", "3", "int")):
        ET.SubElement(entry, "Option", name=key, value=value, type=kind)


def _config(field: ET.Element, kind: str) -> ET.Element:
    config = ET.SubElement(ET.SubElement(field, "editWidget", type=kind), "config")
    return ET.SubElement(config, "Option", type="Map")


def _symbols(root: ET.Element) -> None:
    """Open points in one colour, answered ones in another."""
    renderer = ET.SubElement(root, "renderer-v2", type="RuleRenderer", symbollevels="0", enableorderby="0")
    rules, symbols = ET.SubElement(renderer, "rules", key="rules"), ET.SubElement(renderer, "symbols")
    for number, (label, rule, colour) in enumerate(
        (("open", '"reference" IS NULL', _OPEN), ("answered", '"reference" IS NOT NULL', _DONE))
    ):
        ET.SubElement(rules, "rule", key=label, label=label, filter=rule, symbol=str(number))
        symbol = ET.SubElement(symbols, "symbol", type="marker", name=str(number), alpha="1", clip_to_extent="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleMarker"}, enabled="1", locked="0")
        properties = {"name": "circle", "color": colour, "outline_color": "255,255,255,255", "size": "3"}
        options = ET.SubElement(layer, "Option", type="Map")
        for key, value in properties.items():
            ET.SubElement(options, "Option", name=key, value=value, type="QString")
            ET.SubElement(layer, "prop", k=key, v=value)  # what releases before 3.24 read
