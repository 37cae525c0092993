"""STAC Items of published maps, and the static catalogue that leads to them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Sequence
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

MODELS = "models"
"""Folder of the models of a map, below the map's own."""

PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v1.1.0/schema.json"
"""Of the version that the extension of models (MLM) refers to."""


class _File(NamedTuple):
    """One of a map's files."""

    key: str
    """Of its asset."""
    ending: str
    """Of its name, which begins with the map's."""
    media_type: str
    role: str
    title: str
    optional: bool = False


_FILES = (
    _File("map", ".tif", pystac.MediaType.COG, "data", "Class of every pixel"),
    _File("confidence", "-confidence.tif", pystac.MediaType.COG, "data", "Probability of the class, 0 to 1"),
    _File("change-date", "-date.tif", pystac.MediaType.COG, "data", "Days between which it changed, YYYYMMDD", True),
    _File("polygons", "-polygons.gpkg", pystac.MediaType.GEOPACKAGE, "data", "Polygons (GeoPackage)"),
    _File(
        "polygons-geoparquet", "-polygons.parquet", pystac.MediaType.VND_APACHE_PARQUET, "data", "Polygons (GeoParquet)"
    ),
    _File("map-style", ".qml", pystac.MediaType.XML, "style", "QGIS style of the class raster"),
    _File("confidence-style", "-confidence.qml", pystac.MediaType.XML, "style", "QGIS style of the confidence raster"),
    _File("change-date-style", "-date.qml", pystac.MediaType.XML, "style", "QGIS style of the date raster", True),
    _File("polygons-style", "-polygons.qml", pystac.MediaType.XML, "style", "QGIS style of the polygons"),
    _File("map-names", ".tif.aux.xml", pystac.MediaType.XML, "metadata", "Class names, as GDAL reads them"),
    _File("thumbnail", ".png", pystac.MediaType.PNG, "thumbnail", "Quicklook"),
    _File("lineage", "-lineage.json", pystac.MediaType.JSON, "metadata", "Model and scenes of every tile"),
)


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
    crs = CRS.from_user_input(extent.grid.crs)
    days = [day for record in records if record.extent is not None for day in record.dates]
    outline = transform_geom(
        crs, "EPSG:4326", mapping(box(*extent.bounds).segmentize(max(extent.shape) * extent.grid.resolution / 20))
    )
    item = pystac.Item(
        item_id,
        geometry=outline,
        bbox=list(transform_bounds(crs, "EPSG:4326", *extent.bounds)),
        datetime=None,
        start_datetime=dt.datetime.combine(min(days), dt.time.min, dt.UTC),
        end_datetime=dt.datetime.combine(max(days), dt.time(23, 59, 59), dt.UTC),
        properties={
            "title": f"{legend.title or name}, {min(days)} to {max(days)}",
            "created": pystac.utils.datetime_to_str(dt.datetime.now(dt.UTC)),
            "processing:software": {"geossl": geossl.__version__},
            "processing:lineage": (
                f"Predicted by the model {lineage['task']} from the collection {records[0].collection}; "
                f"the scenes of every tile are in {name}-lineage.json."
            ),
            **{f"geossl:{key}": value for key, value in lineage.items()},
            "geossl:collection": records[0].collection,
            "geossl:snapshots": sorted({record.snapshot for record in records}),
            "geossl:scenes": sorted({source.scene for record in records for source in record.own}),
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
    for file in _FILES:
        path = folder / f"{name}{file.ending}"
        if file.optional and not path.exists():
            continue
        asset = pystac.Asset(f"./{path.name}", title=file.title, media_type=file.media_type, roles=[file.role])
        item.add_asset(file.key, asset)
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=_multihash(path), size=path.stat().st_size)
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


def write_collection(folder: Path, name: str, title: str, items: Sequence[Path]) -> None:
    """(Re)write ``collection.json`` of a map in one move: its releases, the newest last.

    Parameters
    ----------
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
        description=f"Releases of the map {name}; the last item is the newest.",
        title=title,
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[min(starts), max(ends)]]),
        ),
        license="other",
    )
    links = [link("root", "../catalog.json"), link("parent", "../catalog.json")]
    if (folder / MODELS / "collection.json").is_file():
        links.append(link("child", f"./{MODELS}/collection.json", "Models"))
    links += [
        link("item", f"./{path.relative_to(folder).as_posix()}", item.properties["title"], pystac.MediaType.GEOJSON)
        for path, item in zip(items, found, strict=True)
    ]
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False) | {"links": links})


def write_catalog(root: Path) -> None:
    """(Re)write ``catalog.json``, which lists every published map below ``root``, in one move."""
    catalog = pystac.Catalog("maps", description="Maps made by geossl", title="Maps")
    links = [link("root", "./catalog.json")]
    for path in sorted(root.glob("*/collection.json")):
        title = json.loads(path.read_text(encoding="utf-8"))["title"]
        links.append(link("child", f"./{path.relative_to(root).as_posix()}", title))
    write_json(root / "catalog.json", catalog.to_dict(include_self_link=False) | {"links": links})


def write_item(path: Path, item: pystac.Item, name: str) -> None:
    """Write an Item two folders below the ``collection.json`` of the map ``name``."""
    links = [
        link("root", "../../../catalog.json"),
        link("parent", "../../collection.json"),
        link("collection", "../../collection.json"),
        *(found.to_dict() for found in item.get_links("derived_from")),
    ]
    write_json(path, item.to_dict(include_self_link=False) | {"collection": name, "links": links})


def link(rel: str, href: str, title: str | None = None, media_type: str = pystac.MediaType.JSON) -> dict[str, str]:
    """A link as it is written: relative, so that the store can be moved and served from anywhere."""
    return {"rel": rel, "href": href, "type": str(media_type)} | ({"title": title} if title else {})
