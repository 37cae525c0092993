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
from geossl.maps.style import Fill, categorised, field_form, to_text

_EMPTY = "227,26,28"


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
    kind = "long" if all(isinstance(value, int) for value in values.values()) else "string"
    fills = [
        _fill(str(value), land.name, f"{','.join(map(str, land.rgb))},204", kind) for land, value in values.items()
    ]
    fills.append(_fill("", "to be labelled", f"{_EMPTY},0", "string"))
    root = categorised(column, fills, "AllStyleCategories")
    root.set("labelsEnabled", "1")
    _labels(root)
    fields = ET.SubElement(root, "fieldConfiguration")
    field_form(fields, column, {land.name: str(value) for land, value in values.items()})
    return to_text(root)


def _fill(value: str, label: str, color: str, kind: str) -> Fill:
    return Fill(value, label, color, f"{_EMPTY},255", kind, width="0.5", opacity="1")


def _labels(root: ET.Element) -> None:
    """The rank beside each square."""
    labeling = ET.SubElement(root, "labeling", type="simple")
    settings = ET.SubElement(labeling, "settings", calloutType="simple")
    text = ET.SubElement(settings, "text-style", fieldName="rank", fontSize="9", textColor="255,255,255,255")
    ET.SubElement(text, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferSizeUnits="MM", bufferColor="0,0,0,255")
    ET.SubElement(settings, "placement", placement="1", dist="0.5")
