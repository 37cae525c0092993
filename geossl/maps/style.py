"""QGIS styles (QML, readable by QGIS 3.22 and later) in a legend's names and colours."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple
from xml.etree import ElementTree as ET

from geossl.legend import Legend

VERSION = "3.22.16-Białowieża"
"""The oldest QGIS that reads what is written here."""

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""From low to high, evenly spaced in lightness (matplotlib's viridis)."""


def raster_style(legend: Legend) -> str:
    """A paletted style for a class raster: one entry a class, with its name."""
    return _paletted(((land.code, land.name, land.color) for land in legend), band=1)


def confidence_style() -> str:
    """A continuous style for a confidence raster, from 0 to 1."""
    root, renderer = _raster("singlebandpseudocolor", band=1)
    renderer.set("classificationMin", "0")
    renderer.set("classificationMax", "1")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", minimumValue="0", maximumValue="1", clip="0",
    )  # fmt: skip
    for number, color in enumerate(_VIRIDIS):
        share = number / (len(_VIRIDIS) - 1)
        ET.SubElement(shader, "item", value=f"{share:g}", label=f"{share:g}", color=color, alpha="255")
    # with names for single values instead of a bar, the legend reads alike on screen and in print
    ET.SubElement(shader, "rampLegendSettings", useContinuousLegend="0")
    return to_text(root)


def date_style(days: Collection[int]) -> str:
    """A paletted style for the later band of a change-date raster: one entry a day, early ones dark."""
    ordered = sorted(days)
    last = max(1, len(ordered) - 1)
    colors = (_VIRIDIS[round(number * (len(_VIRIDIS) - 1) / last)] for number in range(len(ordered)))
    labels = (f"by {day // 10_000}-{day // 100 % 100:02d}-{day % 100:02d}" for day in ordered)
    return _paletted(zip(ordered, labels, colors, strict=True), band=2)


def picture_style() -> str:
    """A style for a picture of red, green, blue and alpha."""
    root, renderer = _raster("multibandcolor", band=1)
    del renderer.attrib["band"]
    for number, color in enumerate(("redBand", "greenBand", "blueBand", "alphaBand"), 1):
        renderer.set(color, str(number))
    return to_text(root)


def polygon_style(legend: Legend, codes: Collection[int] | None = None) -> str:
    """A categorised style for polygons by ``class_code``: filled, with a thin outline.

    Parameters
    ----------
    codes:
        Which classes there are polygons of; None: all. Of some, as of change, they lie on the map of another legend
        with colours like theirs, and have the bright outline that the report gives them.
    """
    fills = class_fills(legend, codes)
    if codes is not None:
        fills = (fill._replace(outline=_FOUND, width="0.5") for fill in fills)
    return to_text(categorised("class_code", fills))


_FOUND = "255,212,0,255"


class Fill(NamedTuple):
    """How the polygons with one value look."""

    value: str
    label: str
    color: str
    """Red, green, blue, alpha."""
    outline: str
    kind: str = "long"
    """QGIS's name of the value's type."""
    width: str = "0.2"
    """Of the outline, in millimetres."""
    opacity: str = "0.7"


def class_fills(legend: Legend, codes: Collection[int] | None = None) -> Iterator[Fill]:
    """The classes of a legend, or some of them, in their colours with a darker outline."""
    for land in legend:
        if codes is None or land.code in codes:
            red, green, blue = land.rgb
            outline = f"{red // 2},{green // 2},{blue // 2},255"
            yield Fill(str(land.code), land.name, f"{red},{green},{blue},255", outline)


def categorised(column: str, fills: Iterable[Fill], categories: str = "Symbology") -> ET.Element:
    """A style for polygons by a column's values.

    Parameters
    ----------
    categories:
        What the style speaks of, in QGIS's words.
    """
    root = ET.Element("qgis", version=VERSION, styleCategories=categories)
    renderer = ET.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0", enableorderby="0"
    )
    entries, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for name, fill in enumerate(fills):
        ET.SubElement(
            entries, "category", value=fill.value, symbol=str(name), label=fill.label, render="true", type=fill.kind
        )
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(name), alpha=fill.opacity, clip_to_extent="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        properties = {
            "color": fill.color,
            "outline_color": fill.outline,
            "outline_style": "solid",
            "outline_width": fill.width,
            "outline_width_unit": "MM",
            "style": "solid",
        }
        options = ET.SubElement(layer, "Option", type="Map")
        for key, value in properties.items():
            ET.SubElement(options, "Option", name=key, value=value, type="QString")
            ET.SubElement(layer, "prop", k=key, v=value)  # what releases before 3.24 read
    ET.SubElement(root, "layerGeometryType").text = "2"
    return root


def field_form(fields: ET.Element, name: str, choices: Mapping[str, str] | None = None) -> None:
    """How a field is filled in: by choosing from labels that stand for values, or as text."""
    field = ET.SubElement(fields, "field", name=name, configurationFlags="None")
    widget = ET.SubElement(field, "editWidget", type="TextEdit" if choices is None else "ValueMap")
    options = ET.SubElement(ET.SubElement(widget, "config"), "Option", type="Map")
    if choices is not None:
        values = ET.SubElement(options, "Option", name="map", type="List")
        for label, value in choices.items():
            entry = ET.SubElement(values, "Option", type="Map")
            ET.SubElement(entry, "Option", name=label, value=value, type="QString")


def to_text(root: ET.Element) -> str:
    """A QGIS document as text."""
    ET.indent(root)
    return f"{_HEAD}{ET.tostring(root, encoding='unicode')}\n"


def _paletted(entries: Iterable[tuple[int, str, str]], band: int) -> str:
    """One entry a value: value, label, colour."""
    root, renderer = _raster("paletted", band)
    palette = ET.SubElement(renderer, "colorPalette")
    for value, label, color in entries:
        ET.SubElement(palette, "paletteEntry", value=str(value), color=color, label=label, alpha="255")
    return to_text(root)


def _raster(kind: str, band: int) -> tuple[ET.Element, ET.Element]:
    """A raster style and its renderer, still to be filled."""
    root = ET.Element("qgis", version=VERSION, styleCategories="AllStyleCategories", hasScaleBasedVisibilityFlag="0")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type=kind, band=str(band), opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    # neighbouring codes are not neighbouring things: never interpolate between them
    ET.SubElement(pipe, "rasterresampler", zoomedInResampler="nearest", zoomedOutResampler="nearest")
    ET.SubElement(root, "blendMode").text = "0"
    return root, renderer
