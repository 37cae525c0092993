"""STAC Items of published alerts, in the catalogue of the maps."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pystac

from geossl.legend import NO_LABEL
from geossl.maps.alerts.rule import EPOCH, NEVER
from geossl.maps.alerts.style import ALERTS
from geossl.maps.cog import CONFIDENCE_SCALE, Extent
from geossl.maps.stac import File, add_files, classes_of, item_of, write_catalog, write_collection, write_item

_FILES = (
    File("status", "-status.tif", pystac.MediaType.COG, "data", "Status of every pixel"),
    File("date", "-date.tif", pystac.MediaType.COG, "data", f"First detection, days since {EPOCH}"),
    File("confidence", "-confidence.tif", pystac.MediaType.COG, "data", "Probability of clearing, 0 to 1"),
    File("alerts", ".gpkg", pystac.MediaType.GEOPACKAGE, "data", "Alerts to be judged in QGIS", edited=True),
    File("alerts-geoparquet", ".parquet", pystac.MediaType.VND_APACHE_PARQUET, "data", "Alerts as they were found"),
    File("status-style", "-status.qml", pystac.MediaType.XML, "style", "QGIS style of the status raster"),
    File("confidence-style", "-confidence.qml", pystac.MediaType.XML, "style", "QGIS style of the confidence raster"),
    File("alerts-style", ".qml", pystac.MediaType.XML, "style", "QGIS style and form of the alerts"),
    File("thumbnail", ".png", pystac.MediaType.PNG, "thumbnail", "Quicklook"),
    File("lineage", "-lineage.json", pystac.MediaType.JSON, "metadata", "Forest and scenes of every tile"),
)


def write_alert_item(
    root: Path,
    folder: Path,
    name: str,
    release: str,
    *,
    extent: Extent,
    since: dt.date,
    until: dt.date,
    figures: Mapping[str, Any],
) -> None:
    """Describe the files of one release of alerts, which lie in ``folder`` and begin with ``name``.

    Parameters
    ----------
    root:
        The maps' root, where the catalogue lies.
    since, until:
        First day of the monitoring, and day of the newest scene that was looked at.
    figures:
        What is counted, published as ``geossl:…``.
    """
    item = item_of(
        release,
        extent,
        min(since, until),
        until,
        {
            "title": f"Alerts {name}, {since} to {until}",
            "processing:lineage": f"The scenes that were looked at are in {name}-lineage.json.",
            **{f"geossl:{key}": value for key, value in figures.items()},
        },
    )
    add_files(item, folder, name, _FILES)
    item.assets["status"].extra_fields |= {
        "data_type": "uint8",
        "nodata": NO_LABEL,
        "classification:classes": [found.to_dict() for found in classes_of(ALERTS)],
    }
    item.assets["date"].extra_fields |= {"data_type": "int16", "nodata": NEVER, "unit": f"days since {EPOCH}"}
    item.assets["confidence"].extra_fields |= {
        "data_type": "uint8",
        "nodata": NO_LABEL,
        "raster:scale": CONFIDENCE_SCALE,
    }
    write_item(root, folder / f"{release}.json", item, _id(name))


def list_releases(root: Path, folder: Path, name: str) -> None:
    """(Re)write the collection of a monitor's releases that are there, the newest last, and the catalogue."""
    found = [path for path in folder.glob("releases/*/*.json") if path.stem == path.parent.name]
    if found:
        ends = {path: json.loads(path.read_text(encoding="utf-8"))["properties"]["created"] for path in found}
        write_collection(root, folder, _id(name), f"Alerts {name}", sorted(found, key=lambda path: ends[path]))
        write_catalog(root)


def _id(name: str) -> str:
    """Of the collection; a map may be called as the monitor is."""
    return f"alerts-{name}"
