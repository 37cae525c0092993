"""The legend of alerts, and the QGIS form in which they are judged by one click."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from geossl.legend import LandClass, Legend
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NONE
from geossl.maps.alerts.tiles import REVIEWED
from geossl.maps.style import categorised, class_fills, field_form, to_text

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


_NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
"""QGIS's own word for NULL."""


def alert_style(fields: Sequence[str]) -> str:
    """QML for the polygons: colours by ``status_code``, and a form in which only verdict and reason can be edited."""
    root = categorised("status_code", class_fills(ALERTS, (DETECTED, CONFIRMED, REVIEWED)), "Symbology|Fields|Forms")
    configuration = ET.SubElement(root, "fieldConfiguration")
    editable = ET.SubElement(root, "editable")
    choices = {"review": VERDICTS, "reason": REASONS}
    for name in fields:
        # a verdict can be taken back
        field_form(
            configuration, name, {"": _NULL} | {each: each for each in choices[name]} if name in choices else None
        )
        ET.SubElement(editable, "field", name=name, editable=str(int(name in choices)))
    return to_text(root)
