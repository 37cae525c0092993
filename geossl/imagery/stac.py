"""Scenes from STAC: an API, a static catalog, an item collection, a stac-geoparquet file, or one item."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, overload
from urllib.parse import unquote, urlsplit

import pystac
import pystac_client
from pydantic import BaseModel, ConfigDict, Field
from pystac.utils import make_absolute_href
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import DoesNotConformTo
from requests import Request
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from urllib3 import Retry

from geossl.bands import Sensor
from geossl.errors import SceneError, SettingsError
from geossl.imagery.access import Access, AccessSettings
from geossl.imagery.buckets import BUCKETS
from geossl.imagery.listing import read
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.seen import Seen

TIMEOUT = 60.0
"""Seconds without a byte after which a request is given up."""

RETRY = Retry(total=4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None,
              raise_on_status=False)  # fmt: skip
"""A search is a question, so it may be asked again whatever its method: after 0, 1, 2 and 4 seconds."""

_PAGE = 100
"""Items a page asked of an API."""

_NOT_STAC = (ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError,
             ShapelyError)  # fmt: skip
"""What pystac and shapely raise on JSON that is not quite STAC."""

_FAILED = (OSError, APIError, ClientTypeError, DoesNotConformTo, *_NOT_STAC)
"""What else reading a catalog raises: files, connections, and servers that say no."""

Said = tuple[Any, str, str]
"""What should be an item's JSON, the address that its relative addresses start from, and what to call it."""


Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


class StacSettings(BaseModel):
    """Scenes that a STAC catalog knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["stac"] = "stac"
    href: str = Field(
        description="Address or file of an API, a catalog, an item collection (JSON or stac-geoparquet) or an item."
    )
    collections: tuple[str, ...] = Field(default=(), description="Only these collections; an API needs at least one.")
    bbox: Box | None = Field(default=None, description="Only what touches west, south, east, north in degrees.")
    start: datetime | None = Field(default=None, description="Only scenes from this time on (UTC).")
    end: datetime | None = Field(default=None, description="Only scenes up to this time (UTC).")
    max_cloud: float | None = Field(
        default=None, description="Only scenes with at most this cloud cover in percent, or that do not say theirs."
    )
    access: AccessSettings | None = Field(
        default=None, description="How to sign in where the files (and the catalog) lie."
    )
    files: Path | None = Field(
        default=None,
        description="Folder of this machine whose files a server's items may name: an archive that it lists.",
    )


class StacSource:
    """The scenes of a catalog that the settings ask for."""

    def __init__(self, settings: StacSettings, base: Path) -> None:
        self.settings = settings
        href = local(settings.href)
        self.href = href if "://" in href else str((base / href).resolve())
        self._reader = _Reader(settings.access)
        self._files = None if settings.files is None else base / settings.files

    def scenes(self, sensor: Sensor, seen: Seen | None = None) -> Iterator[Scene | Rejected]:
        """Every scene as it is found, page by page; what cannot be one comes with its reason.

        With ``seen`` only those whose item, or a file of this machine that it names, is new to it.

        Raises
        ------
        SettingsError
            The catalog cannot be read, or a part of it: a missing file, a server that fails or answers
            something else than STAC.
        """
        seen = seen or Seen()
        try:
            for said in self._said():
                if not _is_new(said, seen):
                    continue
                entry = (
                    said if isinstance(said, Rejected) else scene_or_reason(*said, sensor, self._wanted, self._files)
                )
                if entry is not None:
                    yield entry
        except _FAILED as error:
            raise SettingsError(
                f"{self.href} cannot be read as STAC: {_why(error)}", "check `href`, and whether the server answers"
            ) from error

    def _said(self) -> Iterator[Said | Rejected]:
        if urlsplit(self.href).path.lower().endswith(".parquet"):
            yield from self._table()
            return
        said: Any = self._reader.read_json(self.href)
        if not isinstance(said, dict):
            raise ValueError("it is no JSON object")
        links = {link["rel"] for link in said.get("links", ())}
        if "conformsTo" in said:
            yield from self._search()
        elif said.get("type") == "FeatureCollection":
            if "next" in links and "://" in self.href:
                raise SettingsError(f"{self.href} is one page of a search", "give the API's own address as `href`")
            for feature in said["features"]:
                yield _listed(feature, self.href)
        elif said.get("type") == "Feature":
            yield said, self.href, self.href
        elif "stac_version" not in said:
            raise ValueError("it is neither an item nor a catalog")
        elif "items" in links and not links & {"item", "child"}:
            raise SettingsError(
                f"{self.href} is a collection of a STAC API",
                f"give the API's own address as `href`, and `collections: [{said.get('id')}]`",
            )
        else:
            yield from self._below(said, self.href, {self.href})

    def _below(self, catalog: Mapping[str, Any], href: str, seen: set[str]) -> Iterator[Said | Rejected]:
        """The items of a static catalog and of those below it; an item that cannot be read is set aside."""
        for link in catalog.get("links", ()):
            target = local(make_absolute_href(link["href"], href))
            if link["rel"] not in ("item", "child") or target in seen:
                continue
            seen.add(target)
            if _reaches_in(target, href):
                yield Rejected(target, f"{href} names {target}, a file of this machine", "mend the catalog")
                continue
            if link["rel"] == "child":
                yield from self._below(self._reader.read_json(target), target, seen)
                continue
            try:
                yield self._reader.read_json(target), target, target
            except (OSError, APIError, ValueError) as error:
                yield Rejected(
                    target, f"{target} cannot be read: {_why(error)}", "mend the catalog, or fetch the item again"
                )

    def _search(self) -> Iterator[Said]:
        if not self.settings.collections:
            raise SettingsError(f"{self.href} is a STAC API", "name the `collections` to search")
        client = pystac_client.Client.open(self.href, stac_io=self._reader)
        period = (self.settings.start, self.settings.end)
        for part in _spans(self.settings.bbox) if self.settings.bbox else [None]:
            found = client.search(
                collections=list(self.settings.collections),
                bbox=part,
                datetime=period if any(period) else None,
                limit=_PAGE,
            )
            for said in found.items_as_dicts():
                yield _listed(said, self.href)

    def _table(self) -> Iterator[Said]:
        """The items of a stac-geoparquet file, a row group at a time."""
        import pyarrow
        import pyarrow.parquet
        from stac_geoparquet.arrow import stac_table_to_items

        place = pyarrow.BufferReader(self._reader.read_bytes(self.href)) if "://" in self.href else self.href
        with pyarrow.parquet.ParquetFile(place) as file:
            for number in range(file.num_row_groups):
                for said in stac_table_to_items(file.read_row_group(number)):
                    yield _listed(said, self.href)

    def _wanted(self, item: pystac.Item) -> bool:
        """The settings' conditions; an API has applied most, some servers ignore what they do not know."""
        wanted = self.settings
        if wanted.collections and item.collection_id not in wanted.collections:
            return False
        if wanted.bbox and item.geometry:
            place = shape(item.geometry)
            if not any(box(*part).intersects(place) for part in _spans(wanted.bbox)):
                return False
        time = item.datetime or item.common_metadata.start_datetime
        if time and (
            (wanted.start and _utc(time) < _utc(wanted.start)) or (wanted.end and _utc(time) > _utc(wanted.end))
        ):
            return False
        cloud = item.properties.get("eo:cloud_cover")
        return wanted.max_cloud is None or cloud is None or float(cloud) <= wanted.max_cloud


class _Reader(StacApiIO):
    """Reads files, buckets and http(s) addresses, with patience that ends.

    Whom the access sends a token to is sent it here as well; requests itself drops it where a redirect leads to
    another host.
    """

    def __init__(self, access: Access | None) -> None:
        super().__init__(timeout=TIMEOUT, max_retries=RETRY, request_modifier=self._sign)
        self._access = access

    def _sign(self, request: Request) -> Request:
        if self._access is not None:
            request.headers = {**request.headers, **self._access.request(str(request.url)).unredirected_hdrs}
        return request

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        if isinstance(source, str) and urlsplit(source).scheme not in ("http", "https"):
            bucket = urlsplit(source).scheme in BUCKETS
            return (read(source, self._access) if bucket else Path(local(source)).read_bytes()).decode()
        return super().read_text(source, *args, **kwargs)

    def read_bytes(self, href: str) -> bytes:
        if urlsplit(href).scheme in BUCKETS:
            return read(href, self._access)
        signed = self.session.prepare_request(self._sign(Request("GET", href)))
        response = self.session.send(signed, timeout=self.timeout)
        if not response.ok:
            raise APIError.from_response(response)
        return response.content


def read_item(path: Path, sensor: Sensor) -> Scene | Rejected:
    """The scene of an Item file, or why it cannot be one."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return Rejected(str(path), f"{path.name} cannot be read: {error}", "write the item again")
    return scene_or_reason(said, str(path), str(path), sensor)


@overload
def scene_or_reason(said: Any, place: str, source: str, sensor: Sensor) -> Scene | Rejected: ...
@overload
def scene_or_reason(
    said: Any,
    place: str,
    source: str,
    sensor: Sensor,
    wanted: Callable[[pystac.Item], bool],
    files: Path | None,
) -> Scene | Rejected | None: ...
def scene_or_reason(
    said: Any,
    place: str,
    source: str,
    sensor: Sensor,
    wanted: Callable[[pystac.Item], bool] = lambda _: True,
    files: Path | None = None,
) -> Scene | Rejected | None:
    """The scene of an item's JSON, or why it cannot be one; None where it is not wanted.

    Parameters
    ----------
    place:
        The address that relative addresses start from; local files become paths.
    source:
        What to call it where it is rejected.
    files:
        Folder of this machine whose files it may name, wherever it comes from.
    """
    try:
        item = pystac.Item.from_dict(said, preserve_dict=False)
        if not (isinstance(item.id, str) and item.id):
            raise ValueError("it has no id")
        for asset in item.assets.values():
            asset.href = local(make_absolute_href(asset.href, place))
        scene = Scene.from_item(item, sensor) if wanted(item) else None
    except SceneError as error:
        return Rejected(source, error.what, error.remedy)
    except _NOT_STAC as error:
        name = source.rpartition("/")[2]
        return Rejected(source, f"{name} is no valid STAC Item: {error!r}", "write the item again")
    hrefs = [asset.href for asset in (*scene.bands.values(), *scene.masks.values())] if scene else []
    inside = [href for href in hrefs if _reaches_in(href, place)]
    if closed := [href for href in inside if files is None or not _lies_in(Path(href), files)]:
        reason = f"it comes from {place} and names {closed[0]}, a file of this machine"
        return Rejected(source, reason, "if it may read that file, name the folder in the source's `files`")
    return scene


def named_files(item: Any, place: str) -> list[str]:
    """The files of this machine that an item's JSON names, whether they are there or not."""
    assets = item.get("assets") if isinstance(item, dict) else None
    named = (
        [asset.get("href") for asset in assets.values() if isinstance(asset, dict)] if isinstance(assets, dict) else []
    )
    hrefs = [local(href) for href in named if isinstance(href, str)]
    if "://" in place:
        return []
    folder = os.path.dirname(place)  # "./" goes: in a bucket a file is known by its name alone
    return [os.path.normpath(os.path.join(folder, href)) for href in hrefs if "://" not in href]


def _is_new(said: Said | Rejected, seen: Seen) -> bool:
    if isinstance(said, Rejected):
        return seen.new(said.source, said.reason)
    item, place, source = said
    # links often hold what differs from answer to answer
    own = {key: value for key, value in item.items() if key != "links"} if isinstance(item, dict) else item
    said_new = seen.new(source, json.dumps(own, sort_keys=True, default=str))
    return seen.new_files(named_files(item, place)) or said_new  # in this order: all are noted


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether it does once `..` and symbolic links are followed."""
    return path.resolve().is_relative_to(folder.resolve())


def _reaches_in(href: str, place: str) -> bool:
    """Whether something that lies elsewhere names a file of this machine."""
    return "://" in place and "://" not in href


def local(href: str) -> str:
    """A ``file://`` address as a path; anything else as it is."""
    return unquote(urlsplit(href).path) if href.startswith("file://") else href


def _why(error: Exception) -> str:
    """What went wrong, in a line; servers often answer with whole web pages, or with nothing."""
    text = textwrap.shorten(str(error), 300) or type(error).__name__
    status = getattr(error, "status_code", None)
    return f"HTTP {status}: {text}" if status else text


def _listed(said: Any, href: str) -> Said:
    """One of several items of a file or answer, which says itself where it lies, or lies where they do."""
    if not isinstance(said, dict):
        return said, href, href
    own = next((local(link["href"]) for link in said.get("links") or () if link["rel"] == "self"), "")
    return (
        (said, own, own)
        if "://" in own or (own.startswith("/") and not _reaches_in(own, href))
        else (said, href, f"{href}: {said.get('id')}")
    )


def _spans(bbox: Box) -> list[Box]:
    """A box as one or, where west is more than east because it crosses the antimeridian, as two: few servers
    understand such a box."""
    west, south, east, north = bbox
    return [bbox] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
