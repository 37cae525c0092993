"""Room on the disk for a map: what it would have needed is said where it is not there.

GDAL closes a raster that did not fit without an error, and the rows that are missing read as no-data. So tiles are
made in memory and written by the system, which does complain, and published rasters are counted over.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ByteSize
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geossl.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REMEDY = "free disk, then run the same command again: tiles that are done are kept, and so is the last map"


@contextlib.contextmanager
def room(folder: Path, what: str, need: Callable[[], int]) -> Iterator[None]:
    """Say plainly that the disk of a folder has no room for ``what``, where it is that which stops the block.

    Parameters
    ----------
    need:
        Bytes that the rest takes, asked for when the block has failed.

    Raises
    ------
    StoreError
        The disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, CPLE_BaseError, RasterioError) as error:  # pyogrio's are RuntimeErrors
        free, needed = shutil.disk_usage(folder).free, need()
        # GDAL seldom says why it could not write; half a file is gone by now, so that some room is there again
        said = getattr(error, "errno", None) in _FULL or "disk is full" in str(error)
        if not said and free >= needed:
            raise
        wanted = f"about {_human(needed)} more" if needed > free else f"more than {_human(free)}"
        raise StoreError(
            f"the disk of {folder} is full: {what} needs {wanted}, and {_human(free)} are free",
            _REMEDY,
        ) from error


def _human(size: float) -> str:
    return ByteSize(int(size)).human_readable(decimal=True)
