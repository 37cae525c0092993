"""Write a generated landscape: scenes as a data provider would hand them over, and the truth.

Everything follows from the seed. A scene depends on the seed, the size and its own day only, so
further days can be added to a folder later, as new imagery arrives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from affine import Affine
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Field, field_validator

from geossl.demo.clearings import FIRST_YEAR, LAST_YEAR
from geossl.demo.products import lonlat_bounds, scene_id, write_scene
from geossl.demo.sensor import observe
from geossl.demo.truth import write_labels
from geossl.demo.world import build_world
from geossl.errors import StoreError
from geossl.progress import Progress, silent

REFERENCE = date(2022, 10, 1)
"""The day on which the land-cover labels hold: after the felling of 2022, before the rains."""

CRS = "EPSG:32722"
ORIGIN = (634_880.0, 9_011_200.0)
"""North-west corner: south-eastern Amazonia, on the corner of a tile of 1024 pixels of 10 m."""

_VERSION = 1
_MANIFEST = "landscape.json"
_DAYS = (
    "2021-06-18", "2021-08-07", "2021-09-26", "2021-12-10", "2022-03-05", "2022-05-27",
    "2022-07-18", "2022-09-01", "2022-10-21", "2023-01-14", "2023-04-04", "2023-06-03",
)  # fmt: skip


class LandscapeSettings(BaseModel):
    """What to generate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=1024, ge=256, le=4096, multiple_of=8, description="Width and height in pixels of 10 m")
    seed: int = Field(default=0, ge=0, description="Another seed gives another landscape")
    dates: tuple[date, ...] = Field(
        default=tuple(map(date.fromisoformat, _DAYS)), min_length=1, description="Days on which the sensor passes"
    )

    @field_validator("dates")
    @classmethod
    def _within_the_history(cls, days: tuple[date, ...]) -> tuple[date, ...]:
        if wrong := [str(day) for day in days if not FIRST_YEAR <= day.year <= LAST_YEAR]:
            raise ValueError(f"{', '.join(wrong)}: the landscape's history runs from {FIRST_YEAR} to {LAST_YEAR}")
        return tuple(sorted(set(days)))


@dataclass(frozen=True)
class LandscapeInfo:
    """Where the generated files lie, and what they cover."""

    folder: Path
    scenes: tuple[Path, ...]
    """STAC Items, one a scene, in order of date; their COGs lie beside them."""
    landcover: Path
    """GeoPackage: polygons with the column ``class``, as on :data:`REFERENCE`."""
    clearings: Path
    """GeoPackage: polygons with the column ``date``."""
    dates: tuple[date, ...]
    crs: str
    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees."""


def landscape_geobox(settings: LandscapeSettings) -> GeoBox:
    """The square at 10 m."""
    x, y = ORIGIN
    return GeoBox((settings.size, settings.size), Affine(10, 0, x, 0, -10, y), CRS)


def write_landscape(folder: Path, settings: LandscapeSettings, progress: Progress = silent) -> LandscapeInfo:
    """Write what is missing of a landscape: ``scenes/<id>/*.tif`` with Items, and ``labels/*.gpkg``.

    A scene counts once its Item is there, and the Item is written last; a second call writes nothing.

    Raises
    ------
    StoreError
        The folder holds a landscape of another seed or size.
    """
    box = landscape_geobox(settings)
    info = LandscapeInfo(
        folder=folder,
        scenes=tuple(folder / "scenes" / scene_id(day) / f"{scene_id(day)}.json" for day in settings.dates),
        landcover=folder / "labels" / "landcover.gpkg",
        clearings=folder / "labels" / "clearings.gpkg",
        dates=settings.dates,
        crs=CRS,
        bbox=lonlat_bounds(box),
    )
    _claim(folder, settings)
    missing = [day for day, item in zip(settings.dates, info.scenes, strict=True) if not item.exists()]
    labelled = info.landcover.exists() and info.clearings.exists()
    if missing or not labelled:
        _generate(info, settings, box, missing, labelled, progress)
    return info


def _claim(folder: Path, settings: LandscapeSettings) -> None:
    """Say in the folder which landscape it holds; refuse a folder that holds another."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {"version": _VERSION, "size": settings.size, "seed": settings.seed}
    manifest = folder / _MANIFEST
    if manifest.exists():
        theirs = json.loads(manifest.read_text(encoding="utf-8"))
        if theirs != ours:
            raise StoreError(
                f"{folder} holds another generated landscape ({theirs}, not {ours})",
                "choose another folder, or delete this one",
            )
        return
    temporary = manifest.with_suffix(".part")
    temporary.write_text(json.dumps(ours), encoding="utf-8")
    os.replace(temporary, manifest)


def _generate(
    info: LandscapeInfo,
    settings: LandscapeSettings,
    box: GeoBox,
    missing: Sequence[date],
    labelled: bool,
    progress: Progress,
) -> None:
    total = len(missing) + 2
    progress("landscape", 0, total)
    world = build_world(settings.size, settings.seed)
    progress("landscape", 1, total)
    latitude = 0.5 * (info.bbox[1] + info.bbox[3])

    def scene(day: date) -> None:
        write_scene(info.folder / "scenes", observe(world, day, latitude), box)

    def labels() -> None:
        if not labelled:
            write_labels(info.landcover.parent, world, REFERENCE, box)

    # NumPy, SciPy and GDAL release the lock; two scenes at a time keep memory under 1 GB.
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(scene, day) for day in missing] + [pool.submit(labels)]
        for done, job in enumerate(as_completed(jobs), start=2):
            job.result()
            progress("landscape", done, total)
