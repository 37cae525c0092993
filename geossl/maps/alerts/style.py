"""The legend of alerts, and the QGIS form in which they are judged by one click."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from geossl.legend import LandClass, Legend
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NONE
from geossl.maps.alerts.tiles import REVIEWED
from geossl.maps.style import polygon_style

ALERTS = Legend(
    (
        LandClass(NONE, "forest", "#dfe8d8"),
        LandClass(DETECTED, "detected", "#f5a9b8"),
        LandClass(CONFIRMED, "confirmed", "#dc2f6b"),
        LandClass(REVIEWED, "confirmed by a person", "#7a0f3c"),
    ),
    title="Alerts",
)
"""Status of a pixel, and of a patch."""

NOT_FOREST = "not forest before"
"""The reason after which a place is never watched again."""

VERDICTS = ("confirmed", "rejected")
REASONS = (
    "clear-cut",
    "selective logging",
    "fire",
    "road",
    "mining",
    NOT_FOREST,
    "cloud or haze",
    "shadow",
    "flood",
    "season",
)
"""What the form offers; a file that was edited elsewhere may give other reasons."""


def alert_style(fields: Sequence[str]) -> str:
    """QML for the polygons: colours by ``status_code``, and a form in which only verdict and reason can be edited."""
    text = polygon_style(ALERTS, (DETECTED, CONFIRMED, REVIEWED)).replace('attr="class_code"', 'attr="status_code"')
    head, _, body = text.partition("\n")
    root = ET.fromstring(body)
    root.set("styleCategories", "Symbology|Fields|Forms")
    configuration = ET.SubElement(root, "fieldConfiguration")
    editable = ET.SubElement(root, "editable")
    choices = {"review": VERDICTS, "reason": REASONS}
    for name in fields:
        field = ET.SubElement(configuration, "field", name=name, configurationFlags="None")
        widget = ET.SubElement(field, "editWidget", type="ValueMap" if name in choices else "TextEdit")
        options = ET.SubElement(ET.SubElement(widget, "config"), "Option", type="Map")
        if name in choices:
            values = ET.SubElement(options, "Option", name="map", type="List")
            # QGIS's own word for NULL: a verdict can be taken back
            for label, value in (
                ("", "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"),
                *((each, each) for each in choices[name]),
            ):
                entry = ET.SubElement(values, "Option", type="Map")
                ET.SubElement(entry, "Option", name=label, value=value, type="QString")
        ET.SubElement(editable, "field", name=name, editable=str(int(name in choices)))
    ET.indent(root)
    return f"{head}\n{ET.tostring(root, encoding='unicode')}\n"
