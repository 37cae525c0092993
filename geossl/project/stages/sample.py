"""`geossl sample`: points of a published map for people to interpret."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.areas.design import Allocation, allocate, expected_error, sample_size
from geossl.areas.sample import INTERPRET, Sample, number_points, stratum_rows, write_points
from geossl.areas.strata import Counts, StrataMap, Stratum, strata_of
from geossl.errors import SettingsError, StoreError
from geossl.files import aside
from geossl.legend import Legend
from geossl.maps.published import Published, find_map
from geossl.progress import Progress
from geossl.project.project import Project
from geossl.project.sample_pictures import dates_to_show, write_pictures

ANTICIPATED, ANTICIPATED_NEAR_CHANGE = 0.9, 0.7
"""User's accuracies to expect where nothing is said; lower for change and its surroundings, as in the paper."""


@dataclass(frozen=True)
class Design:
    """What a sample is to be like."""

    error: float = 0.01
    """Wanted standard error of overall accuracy."""
    size: int | None = None
    """Number of points instead."""
    minimum: int = 50
    rule: Allocation = "proportional"
    around: tuple[str, ...] | None = None
    """Names of the classes that are change; None: of a map of change, all but the first."""
    buffer: str = "2px"
    """Width of the stratum around change: pixels, or metres as ``60m``."""
    users: Mapping[str, float] = field(default_factory=dict)
    """Anticipated user's accuracies by stratum or class name."""
    seed: int = 0
    dates: int = 4
    """Images shown of each place, where there are as many."""


@dataclass(frozen=True)
class Drawn:
    """A sample, and where it lies."""

    sample: Sample
    folder: Path
    fresh: bool
    """Whether it was drawn now."""


def draw(project: Project, wanted: str, design: Design, progress: Progress) -> Drawn:
    """Draw a stratified random sample from a published map; the same map and design give the same sample.

    Raises
    ------
    StoreError
        There is no such map.
    SettingsError
        The design asks for what cannot be.
    """
    published = find_map(project.maps, wanted)
    name = f"{published.name}-{published.id}-{_short(design)}"
    folder = project.samples / name
    if folder.is_dir():
        # answers may be in it by now: it is never written again
        return Drawn(Sample.load(folder), folder, fresh=False)
    cube = project.cube()
    snapshot = cube.tags().get(published.tag)
    if snapshot is None:
        raise StoreError(f"the cube has no tag {published.tag}", "this map is of another store; map it again")
    legend = published.legend
    around, buffer = _around(published, design), _pixels(published, design.buffer)
    strata = strata_of(legend, around, buffer)
    seen = StrataMap(published.classes, strata, around, buffer)
    counts = seen.count(progress)
    strata, counts = _present(strata, counts)
    users = _anticipated(strata, legend, around, design.users)
    units = counts.units.sum(axis=0)
    points = _points(counts, units, users, design)
    drawn = StrataMap(published.classes, strata, around, buffer).draw(counts, points, design.seed)
    rows = stratum_rows(strata, counts, points)
    with rasterio.open(published.classes) as raster:
        crs, transform = str(raster.crs), raster.transform
    # each pixel of a window against the mean of all
    mean = float(counts.area.sum() / units.sum())
    sample = Sample(
        id=name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        map=published.name,
        release=published.id,
        checksum=_sha256(published.classes),
        snapshot=snapshot,
        collection=published.collection,
        dates=published.dates,
        crs=crs,
        resolution=float(transform.a),
        unmapped=counts.unmapped,
        distortion=float(np.abs(counts.pixel / mean - 1).max()),
        legend=legend,
        design=asdict(design)
        | {
            "buffer_pixels": buffer,
            "around": [land.name for land in legend if land.code in around],
            "users": {stratum.name: share for stratum, share in zip(strata, users, strict=True)},
            "expected_error": expected_error(counts.area, users, points),
        },
        strata=rows,
        points=number_points(drawn, rows, transform, crs, design.seed),
    )
    images = cube.view(snapshot).collection(published.collection)
    statistics = images.statistics or cube.view(snapshot).collection(project.sensor.name).statistics
    if statistics is None:
        raise StoreError(f"collection {images.name!r} has no statistics", "run `geossl stats` and `geossl map` first")
    steps = {}
    for record in published.records:
        scenes = images.scene_ids(record.tile)
        own = [scenes.index(source.scene) for source in record.own]
        steps[record.tile] = dates_to_show(images, record.tile, own, design.dates)
    cube.tag(f"sample-{name}", snapshot)
    with aside(folder) as partial:
        inside = partial / INTERPRET
        inside.mkdir(parents=True)
        write_points(inside, sample)
        write_pictures(inside, sample, images, statistics, steps, progress)
        sample.save(partial)
    return Drawn(sample, folder, fresh=True)


def _short(design: Design) -> str:
    content = json.dumps(asdict(design), sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=4).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _around(published: Published, design: Design) -> list[int]:
    """Codes of change."""
    legend = published.legend
    if design.around is None:
        return list(legend.codes[1:]) if len(published.dates) == 2 else []
    codes = dict(zip(legend.names, legend.codes, strict=True))
    if unknown := [name for name in design.around if name not in codes]:
        raise SettingsError(
            f"--around: the map {published.name!r} has no class {', '.join(map(repr, unknown))}",
            f"its classes are {', '.join(legend.names)}",
        )
    if len(design.around) == len(legend):
        raise SettingsError("--around names every class, so that nothing is left to lie around them", "name fewer")
    return [codes[name] for name in design.around]


def _pixels(published: Published, width: str) -> int:
    """A width as whole pixels, rounded up."""
    number, unit = (width[:-2], "px") if width.endswith("px") else (width[:-1], width[-1:])
    try:
        value = float(number)
        if unit not in ("px", "m") or not 0 <= value < 1e6:
            raise ValueError
    except ValueError:
        raise SettingsError(f"--buffer {width!r} is no width", "write it as 2px or 60m; 0px: none") from None
    if unit == "px":
        return int(np.ceil(value))
    with rasterio.open(published.classes) as raster:
        return int(np.ceil(value / raster.transform.a))


def _present(strata: list[Stratum], counts: Counts) -> tuple[list[Stratum], Counts]:
    """Without the strata that the map has no pixel of."""
    there = counts.units.sum(axis=0) > 0
    if not there.any():
        raise StoreError("the map has no pixel with a class", "map it again")
    kept = [stratum for stratum, has in zip(strata, there, strict=True) if has]
    return kept, Counts(counts.units[:, there], counts.pixel, counts.unmapped)


def _anticipated(
    strata: Sequence[Stratum], legend: Legend, around: Sequence[int], said: Mapping[str, float]
) -> list[float]:
    """(H,) user's accuracies to expect."""
    classes = dict(zip(legend.codes, legend.names, strict=True))
    known = {*classes.values(), *(stratum.name for stratum in strata)}
    if unknown := [name for name in said if name not in known]:
        raise SettingsError(
            f"--users: there is no stratum {', '.join(map(repr, unknown))}", f"there are {', '.join(sorted(known))}"
        )
    if wrong := [f"{name}={share:g}" for name, share in said.items() if not 0 < share < 1]:
        raise SettingsError(f"--users {', '.join(wrong)} is no accuracy", "write it as clearing=0.8")

    def of(stratum: Stratum) -> float:
        usual = ANTICIPATED_NEAR_CHANGE if stratum.buffer or stratum.code in around else ANTICIPATED
        return said.get(stratum.name, usual if stratum.buffer else said.get(classes[stratum.code], usual))

    return [of(stratum) for stratum in strata]


def _points(counts: Counts, units: NDArray[np.int64], users: Sequence[float], design: Design) -> NDArray[np.int64]:
    """(H,) points of every stratum."""
    if design.minimum < 2:
        raise SettingsError(f"--minimum {design.minimum}: a stratum needs at least two points", "two give its spread")
    if design.size is not None:
        return allocate(counts.area, units, users, design.size, minimum=design.minimum, rule=design.rule)
    if not 0 < design.error < 0.5:
        raise SettingsError(f"--error {design.error:g} is no standard error", "a share of the area, such as 0.01")
    least = int(np.minimum(units, design.minimum).sum())
    wanted = max(sample_size(counts.area, users, design.error, units=units), least)
    return allocate(counts.area, units, users, wanted, minimum=design.minimum, rule=design.rule)
