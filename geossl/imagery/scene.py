"""A scene: one acquisition, where its bands are, and how its numbers are to be read.

Whatever the source, ingest sees the same immutable :class:`Scene`. STAC is the vocabulary:
:meth:`Scene.to_item` and :meth:`Scene.from_item` are inverses, and ``from_item`` also reads other
providers' items by the rules of :mod:`geossl.imagery.items`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, Self

import pystac
import shapely
import shapely.geometry
from pystac.extensions.projection import ProjectionExtension
from shapely.affinity import translate

from geossl.bands import Sensor
from geossl.errors import SceneError
from geossl.imagery import items
from geossl.imagery.access import Access
from geossl.imagery.clouds import QualityKind
from geossl.imagery.items import OWN
from geossl.imagery.seen import Seen

_ENDS = 64 * 1024
"""Bytes at each end of a file that go into a scene's checksum."""

_CODE = re.compile(r"\w+:\w+")
"""A CRS by authority and code; anything else is WKT."""

_NEVER = datetime.max.replace(tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_PHOTOGRAPHS = datetime(1858, 1, 1, tzinfo=UTC)
"""From the air; an earlier time is a mistake, as are the epoch of a clock that was never set, and the future."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One band of one file."""

    href: str
    """A local path, or an http(s), s3, gs or az address."""
    index: int = 1
    """1-based band index within the file."""
    version: str = ""
    """Of a remote file, what a listing told it by from an earlier one, such as its entity tag."""


@dataclass(frozen=True)
class Scene:
    """One acquisition of one sensor."""

    id: str
    sensor: str
    """Name of the sensor whose bands these are."""
    time: datetime
    """Acquisition time, UTC."""
    footprint: dict[str, Any]
    """GeoJSON geometry, longitude and latitude."""
    crs: str | None
    """As the source states it; the files' own CRS is what pixels are read with."""
    bands: Mapping[str, Asset]
    """Sensor band name → where it is."""
    masks: Mapping[QualityKind, Asset] = field(default_factory=dict)
    """The provider's quality masks, by their kind; their flags add up."""
    shift: int = 0
    """Exact integer added to every number that is not no-data (Sentinel-2 baseline ≥ 04.00: −1000)."""
    source_nodata: float | None = None
    """Overrides what the files tag."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that the source says; JSON-ready. ``geossl:physical: true`` says that the files hold
    physical values (reflectance 0 … 1) rather than stored numbers."""
    access: Access | None = None
    """How to sign in where the files are not open to all; holds no secret, and is not part of the item."""

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise SceneError(f"{self.id}: acquisition time {self.time} has no time zone", "give it in UTC")
        object.__setattr__(self, "time", self.time.astimezone(UTC))

    @property
    def physical(self) -> bool:
        """Whether the files hold physical values rather than stored numbers."""
        return bool(self.properties.get(OWN + "physical", False))

    def checksum(self) -> str:
        """What the scene's pixels are made from, as 32 hex digits: equal for equal files wherever they lie.

        Covers each band's place, file name, file size and first and last 64 KiB, and how the numbers are
        read. A remote file counts by its address and its version or the item's ``updated`` property; where
        there is neither, its server is asked.

        Raises
        ------
        SceneError
            A file is not there or not to be had.
        """
        reading = (self.shift, self.source_nodata, tuple(self.masks), self.physical)
        digest = hashlib.blake2b(repr(reading).encode(), digest_size=16)
        assets = dict(self._assets())
        said = {asset.href: asset.version or self.properties.get("updated") for asset in assets.values()}
        unsaid = [href for href, version in said.items() if "://" in href and not version]
        if unsaid:
            from geossl.imagery.listing import versions

            said |= versions(unsaid, self.access, f"scene {self.id}")
        files: dict[str, bytes] = {}
        for name, asset in assets.items():
            if asset.href not in files:
                files[asset.href] = self._file_digest(name, asset.href, said[asset.href])
            digest.update(f"{name}:{asset.index}".encode() + files[asset.href])
        return digest.hexdigest()

    def to_item(self) -> pystac.Item:
        """The scene as a STAC Item, one asset a band."""
        own = {"sensor": self.sensor, "shift": self.shift}
        if self.source_nodata is not None:
            own["source_nodata"] = str(self.source_nodata)  # JSON knows no NaN
        item = pystac.Item(
            self.id,
            self.footprint,
            list(shapely.geometry.shape(self.footprint).bounds),
            self.time,
            dict(self.properties) | {OWN + key: value for key, value in own.items()},
        )
        if self.crs:
            by_code = _CODE.fullmatch(self.crs) is not None
            projection = ProjectionExtension.ext(item, add_if_missing=True)
            projection.apply(code=self.crs if by_code else None, wkt2=None if by_code else self.crs)
        for name, asset in self._assets():
            roles = ["data"] if name in self.bands else ["data-mask"]
            extra = {"bands": [{"name": name}], OWN + "index": asset.index}
            if asset.version:
                extra[OWN + "version"] = asset.version
            item.add_asset(name, pystac.Asset(asset.href, roles=roles, extra_fields=extra))
        return item

    @classmethod
    def from_item(cls, item: pystac.Item, sensor: Sensor) -> Self:
        """The scene of a STAC Item, ours or another provider's; asset addresses must be absolute.

        Raises
        ------
        SceneError
            The item lacks a band or a time, is of another sensor, or its numbers cannot become the sensor's
            by an exact shift.
        """
        items.require_sensor(item, sensor)
        time = item.datetime or item.common_metadata.start_datetime
        if item.geometry is None or time is None:
            raise SceneError(f"{item.id}: the item has no {'time' if time is None else 'geometry'}")
        found = {band.name: items.find_band(item, band) for band in sensor.bands}
        if missing := [name for name, hit in found.items() if hit is None]:
            raise SceneError(
                f"{item.id}: no asset holds band {', '.join(missing)}; there are {', '.join(item.assets) or 'none'}",
                f"name a sensor with the bands that are there, or only those you want of {sensor.name}",
            )
        hits = {name: hit for name, hit in found.items() if hit is not None}
        consumed = {"datetime", "proj:code", "proj:wkt2", OWN + "sensor", OWN + "shift", OWN + "source_nodata"}
        epsg = item.properties.get("proj:epsg")
        return cls(
            id=item.id,
            sensor=sensor.name,
            time=time.replace(tzinfo=time.tzinfo or UTC),
            footprint=item.geometry,
            crs=item.properties.get("proj:code") or (f"EPSG:{epsg}" if epsg else item.properties.get("proj:wkt2")),
            bands={name: _asset(*hit) for name, hit in hits.items()},
            masks={kind: _asset(*hit) for kind, hit in items.find_masks(item, sensor).items()},
            shift=_only(item, "shift", [items.shift(item, *hit, sensor) for hit in hits.values()]),
            source_nodata=_only(item, "no-data", [items.nodata(item, *hit) for hit in hits.values()]),
            properties={key: value for key, value in item.properties.items() if key not in consumed},
        )

    def _assets(self) -> Iterator[tuple[str, Asset]]:
        """All assets by name, in band order, masks last."""
        yield from self.bands.items()
        yield from self.masks.items()

    def _file_digest(self, name: str, href: str, version: str | None) -> bytes:
        if "://" in href:
            return hashlib.blake2b(f"{href} {version}".encode()).digest()
        path = Path(href)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(_ENDS)
                file.seek(max(0, size - _ENDS))
                tail = file.read(_ENDS)
        except OSError as error:
            raise SceneError(f"{self.id}, band {name}: cannot read {href}: {error.strerror}") from error
        return hashlib.blake2b(f"{path.name} {size} ".encode() + head + tail).digest()


def _asset(asset: pystac.Asset, index: int) -> Asset:
    return Asset(asset.href, index, asset.extra_fields.get(OWN + "version", ""))


def _only[T](item: pystac.Item, what: str, values: list[T]) -> T:
    """The one value that all bands share."""
    different = sorted({str(value) for value in values})  # as text, since NaN differs from itself
    if len(different) > 1:
        raise SceneError(
            f"{item.id}: its bands differ in {what}: {', '.join(different)}", "describe them as two sensors"
        )
    return values[0]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that looked like a scene and cannot be one."""

    source: str
    """File, folder or item id."""
    reason: str
    remedy: str = ""


class Source(Protocol):
    """Where scenes come from."""

    def scenes(self, sensor: Sensor, seen: Seen | None = None) -> Iterator[Scene | Rejected]:
        """Everything there is, as it is found; what cannot be used comes with its reason.

        With ``seen`` only what is new to it, or has a file that is; it notes all. :func:`in_order` puts the scenes
        of all sources in order and sets aside what contradicts itself.
        """
        ...


def in_order(found: Iterable[Scene | Rejected]) -> list[Scene | Rejected]:
    """Scenes by time and id, then what was rejected.

    Rejected here are scenes whose time cannot be right, and the later of two different scenes with one id;
    a scene that was found twice counts once.
    """
    scenes: dict[str, Scene] = {}
    rejected: list[Rejected] = []
    for entry in sorted(found, key=_place):
        if isinstance(entry, Rejected):
            rejected.append(entry)
        elif not _FIRST_PHOTOGRAPHS <= entry.time <= datetime.now(UTC) + timedelta(days=1) or entry.time == _EPOCH:
            reason = f"{entry.id}: it says it was acquired at {entry.time}, which cannot be right"
            rejected.append(Rejected(_source(entry), reason, "correct its time"))
        elif entry.id not in scenes:
            scenes[entry.id] = entry
        elif entry != scenes[entry.id]:
            reason = f"there is already a scene {entry.id}, of {scenes[entry.id].time}"
            rejected.append(Rejected(_source(entry), reason, "give scenes different names"))
    return [*scenes.values(), *rejected]


def outline(corners: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """GeoJSON polygon from (longitude, latitude) pairs; cut in two where it crosses the antimeridian."""
    longitudes = [x for x, _ in corners]
    found: shapely.geometry.base.BaseGeometry = shapely.geometry.Polygon(corners)
    if max(longitudes) - min(longitudes) >= 180:
        whole = shapely.make_valid(shapely.geometry.Polygon([(x % 360, y) for x, y in corners]))
        east, west = shapely.geometry.box(0, -90, 180, 90), shapely.geometry.box(180, -90, 360, 90)
        found = whole.intersection(east).union(translate(whole.intersection(west), -360))
    geometry: dict[str, Any] = json.loads(
        shapely.to_geojson(found)
    )  # mapping() gives tuples, which JSON turns to lists
    return geometry


def _place(entry: Scene | Rejected) -> tuple[datetime, str, str]:
    if isinstance(entry, Rejected):
        return _NEVER, entry.source, entry.reason
    return entry.time, entry.id, _source(entry)


def _source(scene: Scene) -> str:
    return next(iter(scene.bands.values())).href
