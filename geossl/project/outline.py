"""Ground that a vector file outlines."""

from __future__ import annotations

from pathlib import Path

from shapely.geometry.base import BaseGeometry

from geossl.errors import SettingsError


def read_outline(path: Path, what: str, crs: str) -> BaseGeometry:
    """All that is in a vector file as one geometry in a CRS.

    Parameters
    ----------
    what:
        Who names the file, for messages: a setting, or an option.

    Raises
    ------
    SettingsError
        It cannot be read, or does not say where on Earth it lies.
    """
    import geopandas  # only some projects name a file

    try:
        frame = geopandas.read_file(path)
    except Exception as error:
        raise SettingsError(f"{what}: {path} cannot be read as a vector file: {error}") from None
    if frame.crs is None:
        raise SettingsError(f"{what}: {path} has no CRS", "save it with one, for example as GeoPackage")
    return frame.to_crs(crs).make_valid().union_all()
