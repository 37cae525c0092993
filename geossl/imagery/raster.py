"""Opening one raster file safely, and saying plainly why it cannot be used.

Only GeoTIFF (COG) and JPEG 2000 are opened, each by its own GDAL driver and without side-car files:
a VRT, a zipped path or an odd driver would make GDAL read files and addresses that nobody named.

Files are local paths (or ``file://``) or http(s), s3, gs and az addresses. What can fail on the way is
bounded: a server that stalls is given up, one that stumbles is asked again, and nothing that was fetched
before a failure is used after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import rasterio
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError  # what GDAL says while warping; rasterio does not always wrap it
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import Session
from rasterio.warp import transform_geom

from geossl.errors import SceneError
from geossl.imagery.access import OPEN, Access
from geossl.imagery.gcps import by_points, rough_box
from geossl.imagery.listing import keeps_to_ranges, probe, refusal

SUFFIXES = {".tif": "GTiff", ".tiff": "GTiff", ".gtif": "GTiff", ".jp2": "JP2OpenJPEG", ".j2k": "JP2OpenJPEG"}
"""What is taken for a raster in a folder, and the one driver that may open it."""

GDAL_OPTIONS: dict[str, Any] = {
    # no .aux.xml, .ovr, .msk or world file beside the named one
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    # With more threads, GDAL 3.12 decodes a truncated JPEG 2000 into garbage without an error. Tiles are
    # read in parallel by Dask anyway.
    "GDAL_NUM_THREADS": "1",
    # The block cache is per process and workers add up; where blocks are worth keeping, blocks.py says so.
    "GDAL_CACHEMAX": 16 * 2**20,
    # Seconds; a server that sends less than a kilobyte a second counts as stalled.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_TIMEOUT": "300",
    # 429 and 5xx are asked again, each time after about twice the delay.
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    # What was fetched before a failure, or of an object that was replaced since, is not used again.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
    # A redirect, such as Earthdata's to a signed address, must not carry a token to another host.
    "CPL_VSIL_CURL_AUTHORIZATION_HEADER_ALLOWED_IF_REDIRECT": "IF_SAME_HOST",
}

MAX_PIXELS = 10**10
"""Width × height beyond which a file is refused: one Sentinel-2 band has 1.2 · 10⁸."""

MAX_BLOCK_PIXELS = 2**28
"""Pixels of one block (tile, strip) beyond which a file is refused: GDAL allocates whole blocks."""

_SCHEMES = {"http", "https", "s3", "gs", "az"}
_JP2 = (b"\0\0\0\x0cjP  ", b"\xffO\xffQ")
_RETRY = "try again; if it stays so, the file is damaged or its server out of order"


class RemoteError(SceneError):
    """A file that is not on this machine cannot be read, perhaps only now; :mod:`geossl.imagery.retry` tries again.

    Parameters
    ----------
    name:
        GDAL's name for the file.
    """

    def __init__(self, what: str, remedy: str, name: str = "") -> None:
        super().__init__(what, remedy)
        self.name = name


@contextmanager
def open_raster(href: str, what: str, access: Access | None = None) -> Iterator[DatasetReader]:
    """Open one file for reading, under :data:`GDAL_OPTIONS`; read its pixels under :func:`reading`.

    Parameters
    ----------
    what:
        Whose file it is, to begin the message of an error ("scene S2A_…, band B04").
    access:
        How to sign in, for a file that is not open to everybody.

    Raises
    ------
    SceneError
        The file is missing, not a raster of an allowed kind, or declares absurd sizes.
    SettingsError
        Credentials are missing or refused.
    """
    href = local_path(href)
    driver = _driver(href, what, access)
    remote = "://" in href
    name, options = (access or OPEN).opening(href) if remote else (href, {})
    with rasterio.Env(**GDAL_OPTIONS):
        try:
            # GDAL keeps these with the open file; the next one, perhaps of another host, must not see them
            with rasterio.Env(session=_Credentials(options)), warnings.catch_warnings():
                # said better by geobox()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(name, driver=driver)
        except RasterioError as error:
            if remote:
                met = RemoteError(f"{what}: {href} cannot be opened: {_told(error)}", _RETRY, name)
                raise remote_error(href, what, access, met) from error
            raise SceneError(f"{what}: {href} {_why_unreadable(href, error)}", "fetch the file again") from error
        with dataset:
            _check_size(dataset, what)
            if name.startswith("/vsicurl/"):
                _check_ranges(href, what, access)
            yield dataset


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Turn what GDAL raises while pixels are read, such as data that end too early, into a SceneError.

    Parameters
    ----------
    name:
        Of the open dataset.
    """
    try:
        yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        told = f"{what}: {href_of(name)} cannot be read to its end: {_told(error)}"
        if name.startswith("/vsi"):
            raise RemoteError(told, _RETRY, name) from error
        raise SceneError(told, "the file is damaged; fetch it again") from error


def href_of(name: str) -> str:
    """The address of an open dataset's name: ``s3://…`` for ``/vsis3/…``."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://"), ("/vsiaz/", "az://")):
        if name.startswith(prefix):
            return scheme + name.removeprefix(prefix)
    return name


def local_path(href: str) -> str:
    """The path of a ``file://`` address on this machine; anything else as it is."""
    parts = urlsplit(href)
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else href


def remote_error(href: str, what: str, access: Access | None, met: RemoteError) -> RemoteError:
    """Why a remote file cannot be read: what its server answers to a plain request, else what GDAL met."""
    try:
        said = probe(href, access)
    except OSError as error:
        return RemoteError(f"{met.what}; now its server does not answer ({error})", met.remedy, met.name)
    if objection := refusal(said.status, access):
        reason, remedy = objection
    elif no_raster := _no_raster(said.head) if said.status in (200, 206, 416) else "":
        reason, remedy = no_raster, "fetch the address by hand and see what it says"
    elif said.status == 200:
        reason = "comes from a server that sends whole files only, never the part that is asked for"
        remedy = "download the files and name their folder"
    else:
        return met
    return RemoteError(f"{what}: {href} {reason}", remedy, met.name)


def geobox(dataset: DatasetReader, what: str) -> GeoBox:
    """CRS, transform and shape of an open file; about those where ground control points say where it is.

    Raises
    ------
    SceneError
        It does not say where on Earth its pixels are.
    """
    if by_points(dataset):
        return rough_box(dataset, f"{what}: {href_of(dataset.name)}")
    if dataset.crs is None or dataset.transform.is_identity:
        if dataset.rpcs:
            lack = "is located by RPCs only"
            raise SceneError(f"{what}: {href_of(dataset.name)} {lack}", "warp it to a map projection first (gdalwarp)")
        lack = "coordinate system" if dataset.crs is None else "geotransform"
        raise SceneError(f"{what}: {href_of(dataset.name)} has no {lack}", "write one into the file (gdal_edit)")
    return GeoBox.from_rio(dataset)


def footprint(box: GeoBox, what: str) -> dict[str, Any]:
    """GeoJSON geometry in longitude and latitude; cut in two where it crosses the antimeridian.

    Raises
    ------
    SceneError
        The raster's coordinate system is not one of the Earth.
    """
    side = max(abs(box.resolution.x), abs(box.resolution.y)) * max(box.shape)
    outline = box.extent.segmented(side / 16).json
    try:
        with rasterio.Env():
            geometry: dict[str, Any] = transform_geom(str(box.crs), "EPSG:4326", outline)
    except (CRSError, CPLE_BaseError) as error:
        raise SceneError(
            f"{what}: its coordinate system cannot be placed on Earth", "write the right one into the file (gdal_edit)"
        ) from error
    return geometry


class _Credentials(Session):
    """Options that GDAL takes for one file; rasterio lets only a session set keys."""

    def __init__(self, options: dict[str, str]) -> None:
        self._options = options

    def get_credential_options(self) -> dict[str, str]:
        return self._options


def _driver(href: str, what: str, access: Access | None) -> str:
    """The one driver that may open a file: by its suffix, or for an address without one by its first bytes."""
    scheme, separator, _ = href.partition("://")
    if href.startswith("/vsi") or (separator and (scheme not in _SCHEMES or "!" in href)):
        raise SceneError(f"{what}: {href} is not a kind of address that is read", "name a file, or unpack the archive")
    if not separator and not Path(href).is_file():
        raise SceneError(f"{what}: {href} does not exist")
    suffix = PurePosixPath(urlsplit(href).path if separator else href).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if separator and not suffix:
        try:
            is_jp2 = probe(href, access).head.startswith(_JP2)
        except OSError as error:
            raise RemoteError(f"{what}: {href} is not to be had: {error}", _RETRY) from error
        return "JP2OpenJPEG" if is_jp2 else "GTiff"
    raise SceneError(
        f"{what}: {href} is not a kind of file that is read ({', '.join(SUFFIXES)})", "convert it to a GeoTIFF"
    )


def _told(error: BaseException) -> str:
    return f"{error} ({error.__cause__})" if error.__cause__ and str(error.__cause__) != str(error) else str(error)


def _why_unreadable(path: str, error: RasterioError) -> str:
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
    except OSError as denied:
        return f"cannot be read: {denied.strerror}"
    return _no_raster(head) or f"is not a readable {SUFFIXES[Path(path).suffix.lower()]} file: {error}"


def _no_raster(head: bytes) -> str:
    if not head:
        return "is empty"
    return "is a web page or XML, not a raster" if head.lstrip().startswith(b"<") else ""


def _check_ranges(href: str, what: str, access: Access | None) -> None:
    if not keeps_to_ranges(href, access):
        raise SceneError(
            f"{what}: {href} comes from a server that answers with another part of the file than was asked for",
            "download the files and name their folder",
        )


def _check_size(dataset: DatasetReader, what: str) -> None:
    if dataset.width * dataset.height > MAX_PIXELS:
        raise SceneError(
            f"{what}: {href_of(dataset.name)} declares {dataset.width} × {dataset.height} pixels, too many to read"
        )
    rows, columns = dataset.block_shapes[0]
    if rows * columns > MAX_BLOCK_PIXELS:
        raise SceneError(
            f"{what}: {href_of(dataset.name)} is stored in blocks of {columns} × {rows} pixels, too large to read"
        )
