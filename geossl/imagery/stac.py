"""Scenes from STAC: an API, a static catalog, an item collection, or one item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import pystac
import pystac_client
import shapely.geometry
from pydantic import BaseModel, ConfigDict, Field
from pystac_client.exceptions import APIError

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.imagery.scene import Rejected, Scene, in_order

_NOT_STAC = (ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError)
"""What pystac raises on JSON that is not quite STAC."""


class StacSettings(BaseModel):
    """Scenes that a STAC catalog knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["stac"] = "stac"
    href: str = Field(description="Address or file of an API, a catalog, an item collection or an item.")
    collections: tuple[str, ...] = Field(default=(), description="Only these collections; an API needs at least one.")
    bbox: tuple[float, float, float, float] | None = Field(
        default=None, description="Only what touches west, south, east, north in degrees."
    )
    start: datetime | None = Field(default=None, description="Only scenes from this time on (UTC).")
    end: datetime | None = Field(default=None, description="Only scenes up to this time (UTC).")
    max_cloud: float | None = Field(default=None, description="Only scenes with at most this cloud cover in percent.")


class StacSource:
    """The scenes of a catalog that the settings ask for."""

    def __init__(self, settings: StacSettings, base: Path) -> None:
        self.settings = settings
        self.href = settings.href if "://" in settings.href else str((base / settings.href).resolve())

    def scenes(self, sensor: Sensor) -> Iterator[Scene | Rejected]:
        return iter(in_order(scene_or_reason(item, sensor) for item in self._items() if self._wanted(item)))

    def _items(self) -> Iterable[pystac.Item]:
        try:
            said: Any = pystac.StacIO.default().read_json(self.href)
            if not isinstance(said, dict):
                raise ValueError("it is a list")
            if "conformsTo" in said:
                return list(self._search())
            if said.get("type") == "FeatureCollection":
                return list(pystac.ItemCollection.from_dict(said))
            entry = pystac.read_file(self.href)
            return list(entry.get_items(recursive=True)) if isinstance(entry, pystac.Catalog) else [_as_item(entry)]
        except (OSError, APIError, *_NOT_STAC) as error:
            raise SettingsError(f"{self.href} cannot be read as STAC: {error}", "check `href`") from error

    def _search(self) -> Iterable[pystac.Item]:
        if not self.settings.collections:
            raise SettingsError(f"{self.href} is a STAC API", "name the `collections` to search")
        client = pystac_client.Client.open(self.href)
        period = (self.settings.start, self.settings.end)
        return client.search(
            collections=list(self.settings.collections),
            bbox=self.settings.bbox,
            datetime=period if any(period) else None,
        ).items()

    def _wanted(self, item: pystac.Item) -> bool:
        """The settings' conditions; an API has applied most, some servers ignore what they do not know."""
        wanted = self.settings
        if wanted.collections and item.collection_id not in wanted.collections:
            return False
        if wanted.bbox and item.geometry:
            area = shapely.geometry.box(*wanted.bbox)
            if not area.intersects(shapely.geometry.shape(item.geometry)):
                return False
        time = item.datetime or item.common_metadata.start_datetime
        if time and ((wanted.start and time < _utc(wanted.start)) or (wanted.end and time > _utc(wanted.end))):
            return False
        return wanted.max_cloud is None or float(item.properties.get("eo:cloud_cover", 0)) <= wanted.max_cloud


def read_item(path: Path, sensor: Sensor) -> Scene | Rejected:
    """The scene of an Item file, or why it cannot be one."""
    try:
        item = pystac.Item.from_file(path)
    except _NOT_STAC as error:
        return Rejected(str(path), f"{path.name} is no valid STAC Item: {error!r}", "write the item again")
    return scene_or_reason(item, sensor)


def scene_or_reason(item: pystac.Item, sensor: Sensor) -> Scene | Rejected:
    """The scene of an item, with local files as paths, or why it cannot be one."""
    item = item.clone()
    if item.get_self_href():
        item.make_asset_hrefs_absolute()
    for asset in item.assets.values():
        if asset.href.startswith("file://"):
            asset.href = unquote(urlparse(asset.href).path)
    try:
        return Scene.from_item(item, sensor)
    except SceneError as error:
        return Rejected(item.get_self_href() or item.id, error.what, error.remedy)


def _as_item(entry: pystac.STACObject) -> pystac.Item:
    if not isinstance(entry, pystac.Item):
        raise ValueError("it is neither an item nor a catalog")
    return entry


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
