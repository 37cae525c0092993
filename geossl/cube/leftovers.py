"""What Icechunk 2.3 leaves in a local cube's folder and never deletes itself.

Every commit and tag leaves the ``repo`` file that it replaced in ``overwritten``: with a thousand changes behind it
that is 40 kB each time. Nothing but the list of operations reads them; the newest few stay, since one of them
can stand in for a ``repo`` that a disk has damaged. And the transaction logs of expired snapshots stay in
``transactions``, which nobody can ask for any more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from pathlib import Path

_SPARE = 20
"""Replaced ``repo`` files that stay, however old they are."""


def find(folder: Path, snapshots: Collection[str], oldest: dt.datetime) -> tuple[list[Path], list[Path]]:
    """Replaced files and logs that were left before ``oldest``; Icechunk's own cleaning may take some of the logs.

    Parameters
    ----------
    snapshots:
        Those that did not expire.
    """
    replaced = sorted((folder / "overwritten").glob("repo.*"), key=lambda path: path.stat().st_mtime_ns)[:-_SPARE]
    logs = [path for path in (folder / "transactions").glob("*") if path.name not in snapshots]
    old = [[path for path in paths if path.stat().st_mtime < oldest.timestamp()] for paths in (replaced, logs)]
    return old[0], old[1]
