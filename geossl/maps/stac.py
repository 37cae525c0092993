"""STAC Items of published maps, and the static catalogue that leads to them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pystac
from pyproj import CRS
from pystac.extensions.classification import Classification
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.warp import transform_bounds, transform_geom
from shapely.geometry import box, mapping

import geossl
from geossl.files import write_json
from geossl.legend import NO_LABEL, Legend
from geossl.maps.cog import CONFIDENCE_SCALE, Extent
from geossl.maps.dates import NO_DATE
from geossl.maps.tiles import TileRecord

CATALOG = "catalog.json"
"""Name of the catalogue below the maps' root."""

MODELS = "models"
"""Folder of the models of a map, below the map's own."""

PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v1.1.0/schema.json"
"""Of the version that the extension of models (MLM) refers to."""


class File(NamedTuple):
    """One of the files of a release."""

    key: str
    """Of its asset."""
    ending: str
    """Of its name, which begins with the map's."""
    media_type: str
    role: str
    title: str
    optional: bool = False
    edited: bool = False
    """People write into it: it has no checksum that stays."""


_FILES = (
    File("map", ".tif", pystac.MediaType.COG, "data", "Class of every pixel"),
    File("confidence", "-confidence.tif", pystac.MediaType.COG, "data", "Probability of the class, 0 to 1"),
    File("change-date", "-date.tif", pystac.MediaType.COG, "data", "Days between which it changed, YYYYMMDD", True),
    File("polygons", "-polygons.gpkg", pystac.MediaType.GEOPACKAGE, "data", "Polygons (GeoPackage)"),
    File(
        "polygons-geoparquet", "-polygons.parquet", pystac.MediaType.VND_APACHE_PARQUET, "data", "Polygons (GeoParquet)"
    ),
    File("map-style", ".qml", pystac.MediaType.XML, "style", "QGIS style of the class raster"),
    File("confidence-style", "-confidence.qml", pystac.MediaType.XML, "style", "QGIS style of the confidence raster"),
    File("change-date-style", "-date.qml", pystac.MediaType.XML, "style", "QGIS style of the date raster", True),
    File("polygons-style", "-polygons.qml", pystac.MediaType.XML, "style", "QGIS style of the polygons"),
    File("map-names", ".tif.aux.xml", pystac.MediaType.XML, "metadata", "Class names, as GDAL reads them"),
    File("thumbnail", ".png", pystac.MediaType.PNG, "thumbnail", "Quicklook"),
    File("lineage", "-lineage.json", pystac.MediaType.JSON, "metadata", "Model and scenes of every tile"),
)


def alerts_of(root: Path) -> Path:
    """The folder of all alerts, beside that of the maps; each monitor has its own below."""
    return root.with_name("alerts")


def map_item(
    folder: Path,
    name: str,
    item_id: str,
    *,
    legend: Legend,
    extent: Extent,
    records: Sequence[TileRecord],
    lineage: dict[str, Any],
    model: pystac.Item | None = None,
) -> pystac.Item:
    """Describe the files of one published map, which lie in ``folder`` and begin with ``name``.

    Parameters
    ----------
    lineage:
        Further properties (model, encoder, seam error, …), published as ``geossl:…``.
    model:
        The Item of the model that made it, if it has one.
    """
    days = [day for record in records if record.extent is not None for day in record.dates]
    item = item_of(
        item_id,
        extent,
        min(days),
        max(days),
        {
            "title": f"{legend.title or name}, {min(days)} to {max(days)}",
            "processing:lineage": (
                f"Predicted by the model {lineage['task']} from the collection {records[0].collection}; "
                f"the scenes of every tile are in {name}-lineage.json."
            ),
            **{f"geossl:{key}": value for key, value in lineage.items()},
            "geossl:collection": records[0].collection,
            "geossl:snapshots": sorted({record.snapshot for record in records}),
            "geossl:scenes": sorted({source.scene for record in records for source in record.own}),
        },
    )
    add_files(item, folder, name, _FILES)
    for key in ("map", "confidence"):
        item.assets[key].extra_fields |= {"data_type": "uint8", "nodata": NO_LABEL}
    item.assets["confidence"].extra_fields["raster:scale"] = CONFIDENCE_SCALE
    if "change-date" in item.assets:
        item.assets["change-date"].extra_fields |= {"data_type": "int32", "nodata": NO_DATE}
        item.assets["change-date"].extra_fields["bands"] = [{"name": "date_from"}, {"name": "date_to"}]
    classes = [found.to_dict() for found in classes_of(legend, records)]
    item.assets["map"].extra_fields["classification:classes"] = classes
    if model is not None:
        item.add_link(
            pystac.Link("derived_from", f"../../{MODELS}/{model.id}.json", pystac.MediaType.GEOJSON, model.id)
        )
    return item


def item_of(item_id: str, extent: Extent, first: dt.date, last: dt.date, properties: Mapping[str, Any]) -> pystac.Item:
    """An Item of rasters over an extent, of some days, still without its files."""
    crs = CRS.from_user_input(extent.grid.crs)
    outline = transform_geom(
        crs, "EPSG:4326", mapping(box(*extent.bounds).segmentize(max(extent.shape) * extent.grid.resolution / 20))
    )
    item = pystac.Item(
        item_id,
        geometry=outline,
        bbox=list(transform_bounds(crs, "EPSG:4326", *extent.bounds)),
        datetime=None,
        start_datetime=dt.datetime.combine(first, dt.time.min, dt.UTC),
        end_datetime=dt.datetime.combine(last, dt.time(23, 59, 59), dt.UTC),
        properties={
            "created": pystac.utils.datetime_to_str(dt.datetime.now(dt.UTC)),
            "processing:software": {"geossl": geossl.__version__},
            **properties,
        },
        stac_extensions=[PROCESSING, RASTER, CLASSIFICATION],
    )
    code = crs.to_authority()
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=None if code is None else ":".join(code),
        projjson=None if code is not None else crs.to_json_dict(),
        bbox=list(extent.bounds),
        shape=list(extent.shape),
        transform=list(extent.transform)[:6],
    )
    return item


def add_files(item: pystac.Item, folder: Path, name: str, files: Sequence[File]) -> None:
    """Add the files that lie in ``folder`` and begin with ``name`` as assets."""
    for file in files:
        path = folder / f"{name}{file.ending}"
        if file.optional and not path.exists():
            continue
        asset = pystac.Asset(f"./{path.name}", title=file.title, media_type=file.media_type, roles=[file.role])
        item.add_asset(file.key, asset)
        if not file.edited:
            FileExtension.ext(asset, add_if_missing=True).apply(checksum=_multihash(path), size=path.stat().st_size)


def classes_of(legend: Legend, records: Sequence[TileRecord] = ()) -> list[Classification]:
    """A legend in the words of STAC, with counts where there are records."""
    counts = {land.code: sum(record.counts.get(land.code, 0) for record in records) for land in legend}
    total = max(1, sum(counts.values()))
    return [
        Classification.create(
            value=land.code,
            description=land.name,
            name=re.sub(r"[^0-9A-Za-z_-]+", "-", land.name).strip("-") or f"class-{land.code}",
            title=land.name,
            color_hint=land.color[1:].upper(),
            count=counts[land.code] if records else None,
            percentage=round(100 * counts[land.code] / total, 4) if records else None,
        )
        for land in legend
    ]


def _multihash(path: Path) -> str:
    """SHA2-256 as a multihash: function 0x12, length 0x20, digest."""
    with path.open("rb") as file:
        return f"1220{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_collection(root: Path, folder: Path, name: str, title: str, items: Sequence[Path]) -> None:
    """(Re)write ``collection.json`` of a map, or of alerts, in one move: its releases, the newest last.

    Parameters
    ----------
    root:
        Where the catalogue lies.
    items:
        Item files below ``folder``.
    """
    found = [pystac.Item.from_dict(json.loads(path.read_text(encoding="utf-8"))) for path in items]
    boxes = [item.bbox for item in found if item.bbox is not None]
    west, south, east, north = zip(*boxes, strict=True)
    starts, ends = zip(
        *((i.common_metadata.start_datetime, i.common_metadata.end_datetime) for i in found), strict=True
    )
    collection = pystac.Collection(
        name,
        description=f"Releases of {name}; the last item is the newest.",
        title=title,
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[min(starts), max(ends)]]),
        ),
        license="other",
    )
    catalog = relative(root / CATALOG, folder)
    links = [link("root", catalog), link("parent", catalog)]
    if (folder / MODELS / "collection.json").is_file():
        links.append(link("child", f"./{MODELS}/collection.json", "Models"))
    links += [
        link("item", f"./{path.relative_to(folder).as_posix()}", item.properties["title"], pystac.MediaType.GEOJSON)
        for path, item in zip(items, found, strict=True)
    ]
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False) | {"links": links})


def write_catalog(root: Path) -> None:
    """(Re)write the catalogue, which lists every map below ``root`` and all alerts beside it, in one move."""
    catalog = pystac.Catalog("maps", description="Maps and alerts made by geossl", title="Maps")
    links = [link("root", f"./{CATALOG}")]
    for path in (*sorted(root.glob("*/collection.json")), *sorted(alerts_of(root).glob("*/collection.json"))):
        title = json.loads(path.read_text(encoding="utf-8"))["title"]
        links.append(link("child", relative(path, root), title))
    write_json(root / CATALOG, catalog.to_dict(include_self_link=False) | {"links": links})


def write_item(root: Path, path: Path, item: pystac.Item, name: str) -> None:
    """Write an Item two folders below the ``collection.json`` of the map, or of the alerts, ``name``."""
    links = [
        link("root", relative(root / CATALOG, path.parent)),
        link("parent", "../../collection.json"),
        link("collection", "../../collection.json"),
        *(found.to_dict() for found in item.get_links("derived_from")),
    ]
    write_json(path, item.to_dict(include_self_link=False) | {"collection": name, "links": links})


def relative(path: Path, folder: Path) -> str:
    """A path as a folder's files write it."""
    found = Path(os.path.relpath(path, folder)).as_posix()
    return found if found.startswith("../") else f"./{found}"


def link(rel: str, href: str, title: str | None = None, media_type: str = pystac.MediaType.JSON) -> dict[str, str]:
    """A link as it is written: relative, so that the store can be moved and served from anywhere."""
    return {"rel": rel, "href": href, "type": str(media_type)} | ({"title": title} if title else {})
