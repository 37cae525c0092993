"""A reporting year as it was published: everything in one folder, with checksums, never changed again.

A release's folder looks so::

    release.json                      what it is, its areas, and the checksum of every file
    map/                              the published map that it rests on
    model/card.json, model.safetensors
    cleared.tif                       1 where ground was cleared in this year
    mask.tif                          the year in which ground was first cleared, this and all earlier releases
    areas.csv                         hectares by year
"""

from __future__ import annotations

import calendar
import csv
import datetime as dt
import hashlib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geossl.errors import StoreError
from geossl.files import read_json, write_json

FILE = "release.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class YearRelease:
    """One release, as its file describes it."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def year(self) -> int:
        return int(self.content["year"])

    @property
    def revision(self) -> int:
        """1: the first of its year."""
        return int(self.content["revision"])

    @property
    def mask(self) -> Path:
        return self.folder / "mask.tif"

    @property
    def id(self) -> str:
        """Such as ``2025``, or ``2025-r2``."""
        return self.folder.name


def release_id(year: int, revision: int) -> str:
    """Name of a release's folder."""
    return str(year) if revision == 1 else f"{year}-r{revision}"


def releases(folder: Path) -> list[YearRelease]:
    """All releases of a task, by year and revision."""
    found = [YearRelease(path.parent, content) for path in folder.glob(f"[!.]*/{FILE}") if (content := read_json(path))]
    return sorted(found, key=lambda release: (release.year, release.revision))


def series(found: Sequence[YearRelease]) -> list[YearRelease]:
    """The newest revision of every year, in order."""
    return list({release.year: release for release in found}.values())


def period(year: int, start_month: int) -> tuple[dt.date, dt.date]:
    """First and last day of a reporting year, which is named after the one it ends in."""
    first = dt.date(year if start_month == 1 else year - 1, start_month, 1)
    month, of = (12, year) if start_month == 1 else (start_month - 1, year)
    return first, dt.date(of, month, calendar.monthrange(of, month)[1])


def seal(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``release.json`` with the checksum of every file beside it, and make all of them read-only."""
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    about = {"format": FORMAT} | dict(content) | {"files": files}
    write_json(folder / FILE, about | {"digest": _digest(about)})
    for path in (*_files(folder), folder / FILE):
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)


def problems(release: YearRelease) -> Iterator[str]:
    """What is not as it was released, in plain words."""
    about = {key: value for key, value in release.content.items() if key != "digest"}
    if _digest(about) != release.content.get("digest"):
        yield f"{FILE} was changed"
    there = {path.relative_to(release.folder).as_posix(): path for path in _files(release.folder)}
    for name, checksum in release.content["files"].items():
        if name not in there:
            yield f"{name} is missing"
        elif _sha256(there[name]) != checksum:
            yield f"{name} was changed"
    yield from (f"{name} was added" for name in sorted(there.keys() - release.content["files"].keys()))


def write_areas(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Hectares by year, as every release holds them of itself and those before it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def area_row(content: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table of years."""
    return {"year": content["year"], "revision": content["revision"], **content["areas"]}


def year_by_name(found: Sequence[YearRelease], year: int) -> list[YearRelease]:
    """All revisions of a year.

    Raises
    ------
    StoreError
        There is none; the message names the years that there are.
    """
    of_year = [release for release in found if release.year == year]
    if not of_year:
        known = ", ".join(release.id for release in found) or "none"
        raise StoreError(f"the year {year} was not released", f"there are: {known}")
    return of_year


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
