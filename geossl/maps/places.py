"""Places to be labelled in QGIS: a GeoPackage with an empty class column, and a style that fills it from a list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas
import pandas as pd
import pyogrio

from geossl.files import aside, write_text
from geossl.legend import LandClass

_EMPTY = "227,26,28"

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def write_places(path: Path, frame: geopandas.GeoDataFrame, column: str, values: Mapping[LandClass, int | str]) -> None:
    """Write the layer with its style inside, where QGIS looks for it, and as a QML file beside.

    Parameters
    ----------
    column:
        The column to be filled.
    values:
        What is to be written for each class.
    """
    style = places_style(column, values)
    with aside(path) as partial:
        # a version of the format that QGIS 3.22 knows
        pyogrio.write_dataframe(frame, partial, layer=path.stem, driver="GPKG", VERSION="1.2")
        table = pd.DataFrame(
            {
                "f_table_catalog": [""],
                "f_table_schema": [""],
                "f_table_name": [path.stem],
                "f_geometry_column": ["geom"],
                "styleName": ["geossl"],
                "styleQML": [style],
                "styleSLD": [""],
                "useAsDefault": [True],
                "description": ["places to be labelled"],
                "owner": [""],
                "ui": [""],
                "update_time": [pd.Timestamp.now(tz="UTC").tz_localize(None)],
            }
        )
        pyogrio.write_dataframe(table, partial, layer="layer_styles", driver="GPKG", FID="id")
    write_text(path.with_suffix(".qml"), style)


def places_style(column: str, values: Mapping[LandClass, int | str]) -> str:
    """Squares in the colour of their class, red outlines where that is still empty, each with its rank; the class is
    chosen from a list."""
    root = ET.Element("qgis", version="3.22.0-Białowieża", styleCategories="AllStyleCategories", labelsEnabled="1")
    renderer = ET.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0", enableorderby="0"
    )
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    kind = "long" if all(isinstance(value, int) for value in values.values()) else "string"
    for name, (land, value) in enumerate(values.items()):
        _category(categories, symbols, name, str(value), land.name, kind, ",".join(map(str, land.rgb)), "204")
    _category(categories, symbols, len(values), "", "to be labelled", "string", _EMPTY, "0")
    _labels(root)
    fields = ET.SubElement(root, "fieldConfiguration")
    widget = ET.SubElement(ET.SubElement(fields, "field", name=column), "editWidget", type="ValueMap")
    config = ET.SubElement(ET.SubElement(widget, "config"), "Option", type="Map")
    choices = ET.SubElement(config, "Option", name="map", type="List")
    for land, value in values.items():
        choice = ET.SubElement(choices, "Option", type="Map")
        ET.SubElement(choice, "Option", name=land.name, value=str(value), type="QString")
    ET.SubElement(root, "layerGeometryType").text = "2"
    ET.indent(root)
    return f"{_HEAD}{ET.tostring(root, encoding='unicode')}\n"


def _category(
    categories: ET.Element, symbols: ET.Element, name: int, value: str, label: str, kind: str, color: str, alpha: str
) -> None:
    ET.SubElement(categories, "category", value=value, symbol=str(name), label=label, render="true", type=kind)
    symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(name), alpha="1", clip_to_extent="1")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
    properties = {
        "color": f"{color},{alpha}",
        "outline_color": f"{_EMPTY},255",
        "outline_style": "solid",
        "outline_width": "0.5",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    options = ET.SubElement(layer, "Option", type="Map")
    for key, text in properties.items():
        ET.SubElement(options, "Option", name=key, value=text, type="QString")
        ET.SubElement(layer, "prop", k=key, v=text)  # what releases before 3.24 read


def _labels(root: ET.Element) -> None:
    """The rank beside each square."""
    labeling = ET.SubElement(root, "labeling", type="simple")
    settings = ET.SubElement(labeling, "settings", calloutType="simple")
    text = ET.SubElement(settings, "text-style", fieldName="rank", fontSize="9", textColor="255,255,255,255")
    ET.SubElement(text, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferSizeUnits="MM", bufferColor="0,0,0,255")
    ET.SubElement(settings, "placement", placement="1", dist="0.5")
