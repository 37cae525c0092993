"""Scenes from a folder or a bucket: by a file name pattern, or whatever explains itself.

Without a pattern a folder may hold Sentinel-2 ``.SAFE`` products, Landsat products (``*_MTL.txt``), HLS
granules, rasters with their STAC Items beside them, or, where there is nothing of these, rasters each of
which is a whole scene.

A bucket is looked at as a folder too: its names and its small metadata files are laid out in a scratch
folder, the readers of products walk that, and what they find gets the bucket's addresses back.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from geossl.bands import Sensor
from geossl.errors import NothingFoundError, SceneError, SettingsError
from geossl.imagery.access import AccessSettings
from geossl.imagery.buckets import BUCKETS
from geossl.imagery.clouds import QualityKind
from geossl.imagery.hls import NAME as HLS_NAME
from geossl.imagery.hls import read_hls
from geossl.imagery.items import OWN
from geossl.imagery.landsat import metadata_files, read_landsat
from geossl.imagery.listing import METADATA, Skeleton, skeleton
from geossl.imagery.pattern import NameParts, NamePattern
from geossl.imagery.raster import SUFFIXES, footprint, geobox, open_raster
from geossl.imagery.safe import read_safe
from geossl.imagery.scene import Asset, Rejected, Scene, in_order
from geossl.imagery.seen import Seen
from geossl.imagery.stac import named_files, read_item

MASKS: tuple[QualityKind, ...] = get_args(QualityKind)
_UNREAD = {"AUX_DATA", "DATASTRIP", "HTML", "QI_DATA", "rep_info"}
"""Parts of a SAFE product that no scene is made from."""
_DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")


class FolderSettings(BaseModel):
    """Scenes that lie in a folder or a bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["folder"] = "folder"
    path: str = Field(
        description="The folder, relative to the project file; or a bucket: s3://bucket/prefix, gs:// or az://."
    )
    pattern: str | None = Field(
        default=None,
        description="File names below it, with {scene}, {band} and {date:%Y%m%d} in place of what differs."
        " Without a pattern: SAFE, Landsat and HLS products, STAC Items beside their files, or one raster a scene.",
    )
    date: datetime | None = Field(default=None, description="Acquisition date (UTC), where file names do not say it.")
    scene: str | None = Field(default=None, description="Name of the scene or series, where file names do not say it.")
    bands: tuple[str, ...] | dict[str, str | int] | None = Field(
        default=None,
        description="Which band is what: a list in file order (or of the names in the pattern), or band: name in the"
        " pattern, or band: number within the file. scl, qa_pixel, qa_radsat, fmask or hls_fmask name quality masks.",
    )
    nodata: float | None = Field(
        default=None, description="The number for no-data, where files tag none or a wrong one."
    )
    physical: bool = Field(default=False, description="The files hold physical values, such as reflectance 0 … 1.")
    access: AccessSettings | None = Field(default=None, description="How to sign in to a bucket.")


class FolderSource:
    """The scenes below one folder or one bucket's prefix.

    Raises
    ------
    SettingsError
        There is no such folder, or the address cannot be listed.
    """

    def __init__(self, settings: FolderSettings, base: Path) -> None:
        self.settings = settings
        self._bucket: Skeleton | None = None
        """What :attr:`folder` stands for while a bucket is looked at."""
        self._seen = Seen()
        scheme, remote, _ = settings.path.partition("://")
        if remote and scheme not in BUCKETS:
            raise SettingsError(
                f"{settings.path} cannot be listed: {scheme} has no folders",
                f"name a folder or a bucket ({', '.join(f'{name}://' for name in BUCKETS)}), or a STAC catalog",
            )
        self.folder = Path() if remote else (base / settings.path).resolve()
        if not self.folder.is_dir():
            raise SettingsError(f"the imagery folder {self.folder} does not exist", "check `path`")

    def scenes(self, sensor: Sensor, seen: Seen | None = None) -> Iterator[Scene | Rejected]:
        """Everything that is a scene, or looks like one; with ``seen`` only what has a file that is new to it.

        Raises
        ------
        NothingFoundError
            There is nothing of the kind.
        SettingsError
            ``bands`` lacks one of the sensor's; or the bucket cannot be listed.
        """
        self._seen = seen or Seen()
        stated = self.settings.bands
        if stated is not None:
            names = {_name_in(sensor, name) for name in stated}
            if missing := [name for name in sensor.band_names if name not in names]:
                raise SettingsError(
                    f"`bands` does not say which is {', '.join(missing)}",
                    "name all bands of the sensor, each before where it is: `B2: 1` or `B2: what the file calls it`",
                )
        if "://" not in self.settings.path:
            return iter(in_order(self._found(sensor)))
        wanted = _is_raster if self.settings.pattern else _is_raster_or_metadata
        with skeleton(self.settings.path, self.settings.access, wanted, self._seen) as bucket:
            if bucket is None:
                return iter(())
            self.folder, self._bucket = bucket.folder, bucket
            return iter(in_order(_in_bucket(entry, bucket) for entry in self._found(sensor)))

    def _found(self, sensor: Sensor) -> Iterator[Scene | Rejected]:
        return self._by_pattern(sensor) if self.settings.pattern else self._by_kind(sensor)

    def _href(self, path: str) -> str:
        """Where a path's file really is."""
        return self._bucket.href(path) if self._bucket else path

    def _is_new(self, files: Iterable[str | Path]) -> bool:
        """Whether any of these files is, and so what they make up."""
        if self._bucket is None:
            return self._seen.new_files(files)
        hrefs = [self._bucket.href(str(path)) for path in files]
        return self._seen.new_ones((href, self._bucket.version(href)) for href in hrefs)

    def _by_pattern(self, sensor: Sensor) -> Iterator[Scene | Rejected]:
        """Files whose names say the same scene and date are one scene."""
        texts = self._band_texts(sensor)
        pattern = NamePattern(self.settings.pattern or "", texts.values())
        for name, stated in (("scene", self.settings.scene), ("date", self.settings.date)):
            if stated and name in pattern.placeholders:
                raise SettingsError(f"both the pattern {pattern.pattern!r} and `{name}:` say the {name}", "drop one")
        groups: dict[tuple[str | None, str | None], list[tuple[Path, NameParts]]] = defaultdict(list)
        for path, parts in pattern.files(self.folder):
            groups[parts.scene, parts.date_text].append((path, parts))
        if not groups:
            raise self._nothing_found(f"matches the pattern {pattern.pattern!r}")
        for (scene, date_text), files in groups.items():
            if not self._is_new(path for path, _ in files):
                continue
            name = "-".join(text for text in (scene or self.settings.scene or self.folder.name, date_text) if text)
            try:
                if "band" in pattern.placeholders:
                    by_band: dict[str | None, list[Path]] = defaultdict(list)
                    for path, parts in files:
                        by_band[parts.band].append(path)
                    assets = {
                        band: Asset(str(_only(by_band[text], f"band {band}")))
                        for band, text in texts.items()
                        if text in by_band
                    }
                else:
                    assets = self._assets_in(_only([path for path, _ in files], "scene"), sensor)
                yield self._scene(name, files[0][1].time, assets, sensor)
            except SceneError as error:
                yield Rejected(f"{self._href(str(self.folder))}: {name}", error.what, error.remedy)

    def _by_kind(self, sensor: Sensor) -> Iterator[Scene | Rejected]:
        """Products and STAC Items; single rasters where there is neither."""
        found = _walk(self.folder)
        readers: list[tuple[Path, Sequence[Path], Callable[[], Scene]]] = [
            *((safe, files, functools.partial(read_safe, safe, sensor)) for safe, files in found.safes.items()),
            *((mtl, files, functools.partial(read_landsat, mtl, sensor)) for mtl, files in found.landsats.items()),
            *(
                (files[0].parent, files, functools.partial(read_hls, files, sensor, self._href, self.settings.access))
                for files in found.hls
            ),
        ]
        for path, files, read in readers:
            if not self._is_new(files):
                continue
            try:
                yield read()
            except SceneError as error:
                yield Rejected(str(path), error.what, error.remedy)
        for path, named in found.items.items():
            if self._is_new((path, *named)):
                yield read_item(path, sensor)
        if readers or found.items:
            return
        if not found.rasters:
            raise self._nothing_found("is imagery: no product, no STAC Item, no raster")
        for path in found.rasters:
            if not self._is_new((path,)):
                continue
            name = "-".join(text for text in (self.settings.scene, path.stem) if text)
            try:
                yield self._scene(name, _date_in(path), self._assets_in(path, sensor), sensor)
            except SceneError as error:
                yield Rejected(str(path), error.what, error.remedy)

    def _scene(self, name: str, time: datetime | None, assets: Mapping[str, Asset], sensor: Sensor) -> Scene:
        """Put a scene together; its place is that of its first band."""
        if missing := [band for band in sensor.band_names if band not in assets]:
            there = ", ".join(assets) or "none"
            raise SceneError(f"scene {name} has no band {', '.join(missing)} (there are: {there})", "add the files")
        time = time or self.settings.date
        if time is None:
            raise SceneError(f"nothing says when scene {name} was taken", "put {date} in `pattern`, or give `date:`")
        first = assets[sensor.band_names[0]]
        what = f"scene {name}, band {sensor.band_names[0]}"
        with open_raster(self._href(first.href), what, self.settings.access) as dataset:
            box, crs = geobox(dataset, what), (dataset.crs or dataset.gcps[1]).to_string()
        return Scene(
            id=name,
            sensor=sensor.name,
            time=time if time.tzinfo else time.replace(tzinfo=UTC),
            footprint=footprint(box, what),
            crs=crs,
            bands={band: assets[band] for band in sensor.band_names},
            masks={kind: assets[kind] for kind in MASKS if kind in assets},
            source_nodata=self.settings.nodata,
            properties={OWN + "physical": True} if self.settings.physical else {},
        )

    def _band_texts(self, sensor: Sensor) -> dict[str, str]:
        """Band or mask → its text in file names."""
        stated = self.settings.bands
        if stated is None:
            return {name: name for name in (*sensor.band_names, *MASKS)}
        if isinstance(stated, dict):
            return {_name_in(sensor, name): str(text) for name, text in stated.items()}
        return {_name_in(sensor, name): name for name in stated}

    def _assets_in(self, path: Path, sensor: Sensor) -> dict[str, Asset]:
        """Band or mask → its place in one file of several bands.

        1. as the settings say, by number or by the file's own band description;
        2. by the file's descriptions, where they name all bands of the sensor;
        3. in the sensor's order, where the file has as many bands.
        """
        with open_raster(self._href(str(path)), f"file {path.name}", self.settings.access) as dataset:
            count, described = dataset.count, dataset.descriptions
        by_description = {text.lower(): index for index, text in enumerate(described, start=1) if text}
        stated = self.settings.bands
        if isinstance(stated, dict):
            places = {
                _name_in(sensor, name): int(place) if str(place).isdigit() else by_description.get(str(place).lower())
                for name, place in stated.items()
            }
            return {name: Asset(str(path), place) for name, place in places.items() if place is not None}
        if stated is not None:
            names = [_name_in(sensor, name) for name in stated]
        elif all(name.lower() in by_description for name in sensor.band_names):
            return {name: Asset(str(path), by_description[name.lower()]) for name in sensor.band_names}
        elif count == len(sensor.bands):
            names = list(sensor.band_names)
        else:
            raise SceneError(
                f"{path.name} has {count} band(s), sensor {sensor.name} has {len(sensor.bands)}",
                "say which is which: `bands: [in file order]` or `bands: {band: number}`; or, where each band has a file of "
                'its own, `pattern: "{scene}_{band}.tif"`; or `sensor` is another',
            )
        return {name: Asset(str(path), index) for index, name in enumerate(names, start=1)}

    def _nothing_found(self, lack: str) -> NothingFoundError:
        examples = sorted(path.name for path in self.folder.iterdir())[:3]
        there = f"there is, for example, {', '.join(examples)}" if examples else "the folder is empty"
        return NothingFoundError(f"nothing in {self._href(str(self.folder))} {lack}", there)


def _name_in(sensor: Sensor, name: str) -> str:
    """A band's own name for its own or its common name; anything else (a mask, an unused band) as it is."""
    return next((band.name for band in sensor.bands if name in (band.name, band.common_name)), name)


def _only(paths: list[Path], what: str) -> Path:
    if len(paths) > 1:
        raise SceneError(
            f"{len(paths)} files are one {what} by their names: {', '.join(path.name for path in paths)}",
            "put what differs into the pattern: {scene}, {band} or {date:%Y%m%d}",
        )
    return paths[0]


@dataclass(slots=True)
class _Found:
    """What lies at or below a folder."""

    safes: dict[Path, list[Path]] = field(default_factory=dict)
    """The files of each product that are read, by its folder."""
    landsats: dict[Path, list[Path]] = field(default_factory=dict)
    """The files of each product, by its metadata file."""
    hls: list[list[Path]] = field(default_factory=list)
    """The files of each granule."""
    items: dict[Path, list[str]] = field(default_factory=dict)
    """The files of this machine that each Item names."""
    rasters: list[Path] = field(default_factory=list)


def _walk(folder: Path) -> _Found:
    """Nothing within a SAFE product, and no Items beside a Landsat product or an HLS granule: they come with
    it, and name its files where the provider has them."""
    found = _Found()
    granules: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for root, folders, files in folder.walk():
        folders.sort()
        if root.suffix == ".SAFE":
            found.safes[root] = _files_of_safe(root)
            folders.clear()
            continue
        files.sort()
        products = [root / name for name in metadata_files(files)]
        found.landsats |= {mtl: [root / name for name in _alike(mtl.name, files)] for mtl in products}
        for name in files:
            if match := HLS_NAME.fullmatch(name):
                granules[root, match["granule"]].append(root / name)
                products.append(root / name)
        found.rasters += [root / name for name in files if _is_raster(name)]
        if not products:
            items = {root / name: _read_item(root / name) for name in files if name.endswith(".json")}
            found.items |= {path: named_files(item, str(path)) for path, item in items.items() if item is not None}
    found.hls = list(granules.values())
    return found


def _files_of_safe(folder: Path) -> list[Path]:
    """Metadata and images; a product has five times as many files."""
    found = []
    for root, folders, files in folder.walk():
        folders[:] = [name for name in folders if name not in _UNREAD]
        found += [root / name for name in files]
    return found


def _alike(mtl: str, files: list[str]) -> list[str]:
    """Of sorted names, those of the product that a Landsat metadata file describes."""
    product = mtl.rpartition("_")[0]
    start = bisect.bisect_left(files, product)
    return list(itertools.takewhile(lambda name: name.startswith(product), files[start:]))


def _is_raster(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _is_raster_or_metadata(name: str) -> bool:
    return _is_raster(name) or name.lower().endswith(METADATA)


def _in_bucket(entry: Scene | Rejected, bucket: Skeleton) -> Scene | Rejected:
    """What was found in a bucket's skeleton, with the bucket's addresses."""
    if isinstance(entry, Rejected):
        return Rejected(*(bucket.href(text) for text in (entry.source, entry.reason, entry.remedy)))

    def there(asset: Asset) -> Asset:
        href = bucket.href(asset.href)
        return replace(asset, href=href, version=bucket.version(href))

    bands = {name: there(asset) for name, asset in entry.bands.items()}
    return replace(entry, bands=bands, masks={kind: there(asset) for kind, asset in entry.masks.items()})


def _read_item(path: Path) -> dict[str, Any] | None:
    """The JSON of a STAC Item; None where a file is something else."""
    try:
        said: Any = json.loads(path.read_bytes())
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("type") == "Feature" and "stac_version" in said else None


def _date_in(path: Path) -> datetime | None:
    """The one date that a file name holds."""
    found = {"".join(match.groups()) for match in _DATE_IN_NAME.finditer(path.stem)}
    try:
        return datetime.strptime(found.pop(), "%Y%m%d").replace(tzinfo=UTC) if len(found) == 1 else None
    except ValueError:  # such as 30 February
        return None
