"""A disk that fills while a map is written: said in words, whichever library it was that noticed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geossl.errors import GeosslError, StoreError

_FULL = 1 << 20
"""Fewer free bytes than that when something failed: GDAL often only says that a file is not readable."""


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turns any error that a full disk is behind into one that says so; innermost, before anything is cleaned up.

    Raises
    ------
    StoreError
        The disk of the folder is full.
    """
    try:
        yield
    except GeosslError:
        raise
    except Exception as error:
        if not _is_full(error, folder):
            raise
        raise StoreError(
            f"the disk of {folder} is full",
            "free disk, then run the same command again: the last good map is still in its place",
        ) from error


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    while not folder.exists():
        folder = folder.parent
    return "disk is full" in str(error) or shutil.disk_usage(folder).free < _FULL
