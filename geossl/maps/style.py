"""QGIS styles (QML, readable by QGIS 3.22 and later) in a legend's names and colours."""

from __future__ import annotations

from collections.abc import Collection
from xml.etree import ElementTree as ET

from geossl.legend import Legend

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0-Białowieża"


def raster_style(legend: Legend) -> str:
    """A paletted style for a class raster: one entry a class, with its name."""
    root = ET.Element("qgis", version=_VERSION, styleCategories="AllStyleCategories", hasScaleBasedVisibilityFlag="0")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for land in legend:
        ET.SubElement(palette, "paletteEntry", value=str(land.code), color=land.color, label=land.name, alpha="255")
    # neighbouring codes are not neighbouring things: never interpolate between them
    ET.SubElement(pipe, "rasterresampler", zoomedInResampler="nearest", zoomedOutResampler="nearest")
    ET.SubElement(root, "blendMode").text = "0"
    return _text(root)


def polygon_style(legend: Legend, codes: Collection[int] | None = None) -> str:
    """A categorised style for polygons by ``class_code``: filled, with a thin outline.

    Parameters
    ----------
    codes:
        Which classes there are polygons of; None: all.
    """
    root = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    renderer = ET.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="class_code", symbollevels="0", enableorderby="0"
    )
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    shown = [land for land in legend if codes is None or land.code in codes]
    for name, land in enumerate(shown):
        ET.SubElement(
            categories, "category", value=str(land.code), symbol=str(name), label=land.name, render="true", type="long"
        )
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(name), alpha="0.7", clip_to_extent="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        red, green, blue = land.rgb
        properties = {
            "color": f"{red},{green},{blue},255",
            "outline_color": f"{red // 2},{green // 2},{blue // 2},255",
            "outline_style": "solid",
            "outline_width": "0.2",
            "outline_width_unit": "MM",
            "style": "solid",
        }
        options = ET.SubElement(layer, "Option", type="Map")
        for key, value in properties.items():
            ET.SubElement(options, "Option", name=key, value=value, type="QString")
            ET.SubElement(layer, "prop", k=key, v=value)  # what releases before 3.24 read
    ET.SubElement(root, "layerGeometryType").text = "2"
    return _text(root)


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return f"{_HEAD}{ET.tostring(root, encoding='unicode')}\n"
