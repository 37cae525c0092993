"""Opening one raster file safely, and saying plainly why it cannot be used.

Only GeoTIFF (COG) and JPEG 2000 are opened, each by its own GDAL driver and without side-car files:
a VRT, a zipped path or an odd driver would make GDAL read files and addresses that nobody named.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError  # what GDAL says while warping; rasterio does not always wrap it
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform_geom

from geossl.errors import SceneError

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
    # The block cache is per process and workers add up.
    "GDAL_CACHEMAX": 128 * 1024 * 1024,
    "GDAL_HTTP_MAX_RETRY": "3",
}

MAX_PIXELS = 10**10
"""Width × height beyond which a file is refused: one Sentinel-2 band has 1.2 · 10⁸."""

MAX_BLOCK_PIXELS = 2**28
"""Pixels of one block (tile, strip) beyond which a file is refused: GDAL allocates whole blocks."""

_SCHEMES = {"http", "https", "s3", "gs", "az"}


@contextmanager
def open_raster(href: str, what: str) -> Iterator[DatasetReader]:
    """Open one file for reading, under :data:`GDAL_OPTIONS`; read its pixels under :func:`reading`.

    Parameters
    ----------
    what:
        Whose file it is, to begin the message of an error ("scene S2A_…, band B04").

    Raises
    ------
    SceneError
        The file is missing, not a raster of an allowed kind, or declares absurd sizes.
    """
    driver = _driver(href, what)
    with rasterio.Env(**GDAL_OPTIONS):
        try:
            with warnings.catch_warnings():
                # said better by geobox()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(href, driver=driver)
        except RasterioError as error:
            raise SceneError(f"{what}: {href} {_why_unreadable(href, error)}", "fetch the file again") from error
        with dataset:
            _check_size(dataset, what)
            yield dataset


@contextmanager
def reading(href: str, what: str) -> Iterator[None]:
    """Turn what GDAL raises while pixels are read, such as data that end too early, into a SceneError."""
    try:
        yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise SceneError(
            f"{what}: {href} cannot be read to its end: {error}{cause}", "the file is damaged; fetch it again"
        ) from error


def geobox(dataset: DatasetReader, what: str) -> GeoBox:
    """CRS, transform and shape of an open file.

    Raises
    ------
    SceneError
        It does not say where on Earth its pixels are.
    """
    if dataset.crs is None or dataset.transform.is_identity:
        if dataset.gcps[0] or dataset.rpcs:
            lack = "is located by ground control points only" if dataset.gcps[0] else "is located by RPCs only"
            raise SceneError(f"{what}: {dataset.name} {lack}", "warp it to a map projection first (gdalwarp)")
        lack = "coordinate system" if dataset.crs is None else "geotransform"
        raise SceneError(f"{what}: {dataset.name} has no {lack}", "write one into the file (gdal_edit)")
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


def _driver(href: str, what: str) -> str:
    scheme, separator, _ = href.partition("://")
    if href.startswith("/vsi") or (separator and (scheme not in _SCHEMES or "!" in href)):
        raise SceneError(f"{what}: {href} is not a kind of address that is read", "name a file, or unpack the archive")
    if not separator and not Path(href).is_file():
        raise SceneError(f"{what}: {href} does not exist")
    suffix = Path(href.partition("?")[0]).suffix.lower()
    if suffix not in SUFFIXES:
        raise SceneError(
            f"{what}: {href} is not a kind of file that is read ({', '.join(SUFFIXES)})", "convert it to a GeoTIFF"
        )
    return SUFFIXES[suffix]


def _why_unreadable(href: str, error: RasterioError) -> str:
    if "://" in href:
        return f"cannot be opened: {error}"
    with Path(href).open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        return "is empty"
    if head.startswith(b"<"):
        return "is a web page or XML, not a raster"
    return f"is not a readable {SUFFIXES[Path(href).suffix.lower()]} file: {error}"


def _check_size(dataset: DatasetReader, what: str) -> None:
    if dataset.width * dataset.height > MAX_PIXELS:
        raise SceneError(f"{what}: {dataset.name} declares {dataset.width} × {dataset.height} pixels, too many to read")
    rows, columns = dataset.block_shapes[0]
    if rows * columns > MAX_BLOCK_PIXELS:
        raise SceneError(f"{what}: {dataset.name} is stored in blocks of {columns} × {rows} pixels, too large to read")
