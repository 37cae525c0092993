"""Cloud-free composites: per pixel, one value from all clear observations of a period.

A composite is a collection like any other, with one step a period, so that whatever reads scenes reads
composites. Where nothing was seen in a period, the pixel is no-data. How many observations went in
stands beside, in ``clear_count``.

Composites are at the grid's resolution in all bands, even where scenes keep theirs native: which observations
are clear, and so what is made of them, may differ from one pixel to the next within a coarser one.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import pickle
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.cube import layout
from geossl.cube import periods as spans
from geossl.cube.arrays import column, subgroup
from geossl.cube.collection import Collection
from geossl.cube.reduce import RULES, score
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings
from geossl.cube.work import run
from geossl.errors import StoreError
from geossl.grid import CHUNK
from geossl.imagery.clouds import Quality, is_clear
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

_TILES_A_COMMIT = 64
_DAYS_A_MONTH = 30.44


@dataclass(frozen=True, slots=True)
class _Job:
    """Make one composite on one tile."""

    tile_id: str
    period: str
    """ISO 8601: first day and duration."""
    middle: np.datetime64
    sources: tuple[int, ...]
    """Steps of the source collection, by time and scene: whatever the order of arrival, the result is the same."""
    checksum: str
    step: int
    revision: int


def composite_name(collection: str, settings: CompositeSettings, *, named: bool = False) -> str:
    """Name of the collection that holds the composites of equal periods, or of periods that somebody named."""
    rule = "" if settings.rule == "median" else f"-{settings.rule}"
    return f"{collection}-{'periods' if named else f'P{settings.months}M'}{rule}"


def composite(
    cube: Cube,
    collection: str,
    settings: CompositeSettings,
    client: Client | None = None,
    progress: Progress = silent,
    *,
    named: Sequence[str] | None = None,
) -> str:
    """Bring the composites of a collection up to date; returns the name of their collection.

    A composite is made again, with the next revision, where other scenes (or other revisions of them)
    belong to it now; any other is left alone.

    Parameters
    ----------
    named:
        Make these periods, such as ``2020-06-01/P4M``, in a collection of their own, where they may overlap;
        None: equal periods of ``settings.months`` wherever there are scenes.

    Raises
    ------
    StoreError
        There is no such collection, or it holds composites itself.
    """
    name = composite_name(collection, settings, named=named is not None)
    source = cube.view().collection(collection)
    if source.kind != "scenes":
        raise StoreError(f"collection {collection!r} holds composites itself", "name a collection of scenes")
    done = 0
    for tile_ids in itertools.batched(source.tile_ids, _TILES_A_COMMIT):
        cube.transact(
            functools.partial(
                _update,
                cube=cube,
                collection=collection,
                tile_ids=tile_ids,
                settings=settings,
                client=client,
                named=named,
            )
        )
        done += len(tile_ids)
        progress("tiles", done, len(source.tile_ids))
    return name


def _update(
    session: icechunk.Session,
    cube: Cube,
    collection: str,
    tile_ids: tuple[str, ...],
    settings: CompositeSettings,
    client: Client | None,
    named: Sequence[str] | None,
) -> str | None:
    # the scenes as this session shows them: what is committed fits to what it was made from
    source = cube.view(session.snapshot_id).collection(collection)
    name = composite_name(collection, settings, named=named is not None)
    root = zarr.open_group(session.store, mode="r+")
    jobs = [job for tile_id in tile_ids for job in _plan(source, root, name, tile_id, settings, named)]
    if not jobs:
        return None
    grid = source.grid.plain
    if name not in root:
        layout.create_collection(root, name, source.sensor, grid, "composite")
    group = subgroup(root, name)
    by_tile: dict[str, list[_Job]] = defaultdict(list)
    for job in jobs:
        by_tile[job.tile_id].append(job)
    for tile_id, of_tile in by_tile.items():
        if tile_id not in group:
            layout.create_tile(group, grid.tile(tile_id), source.sensor, composite=True)
        length = max(layout.step_count(group, tile_id), max(job.step for job in of_tile) + 1)
        layout.resize_pixels(subgroup(group, tile_id), length)
    fork = pickle.dumps(session.fork())
    make = functools.partial(_make, fork=fork, source=source, name=name, settings=settings)
    steps: dict[str, dict[int, layout.Step]] = defaultdict(dict)
    for position, (fork, chunk_clear) in run(make, jobs, client):
        session.merge(pickle.loads(fork))
        job = jobs[position]
        steps[job.tile_id][job.step] = layout.Step(job.period, job.middle, job.checksum, chunk_clear, job.revision)
    layout.write_records(group, steps)
    return f"{len(jobs)} composite(s) of {source.name}"


def _plan(
    source: Collection,
    root: zarr.Group,
    name: str,
    tile_id: str,
    settings: CompositeSettings,
    named: Sequence[str] | None,
) -> list[_Job]:
    """The composites of one tile that are missing or made from other steps than there are now."""
    made: dict[str, tuple[int, str, int]] = {}
    if f"{name}/{tile_id}" in root:
        columns = (
            column(root, f"{name}/{tile_id}/{key}").tolist() for key in ("scene_id", "source_checksum", "revision")
        )
        made = {
            period: (step, checksum, revision)
            for step, (period, checksum, revision) in enumerate(zip(*columns, strict=True))
        }
    times, clear = source.times(tile_id), source.clear_fraction(tile_id)
    members: dict[str, list[int]] = {period: [] for period in made if named is None or period in named}
    if named is None:
        for step, start in enumerate(periods(times, settings.months)):
            if clear[step] > 0:
                members.setdefault(f"{start}-01/P{settings.months}M", []).append(step)
    else:
        months = times.astype("datetime64[M]")
        for period in dict.fromkeys(named):
            first, end = spans.bounds(period)
            if steps := np.flatnonzero((months >= first) & (months < end) & (clear > 0)).tolist():
                members[period] = steps
    ids, sums, revisions = source.scene_ids(tile_id), source.checksums(tile_id), source.revisions(tile_id)
    jobs = []
    following = len(made)
    for period, steps in sorted(members.items()):
        steps.sort(key=lambda step: (times[step], ids[step]))
        record = repr([(ids[step], sums[step], int(revisions[step])) for step in steps])
        checksum = hashlib.blake2b(record.encode(), digest_size=16).hexdigest()
        step, old, revision = made.get(period, (following, None, -1))
        if checksum == old:
            continue
        jobs.append(_Job(tile_id, period, spans.middle(period), tuple(steps), checksum, step, revision + 1))
        following += period not in made
    return jobs


def periods(times: NDArray[np.datetime64], months: int) -> NDArray[np.datetime64]:
    """First month (datetime64[M]) of the period that each time lies in, counted from January of year 0."""
    epoch = np.datetime64("0000-01", "M")
    since = (times.astype("datetime64[M]") - epoch).astype(np.int64)
    return epoch + since // months * months


def _make(
    job: _Job, fork: bytes, source: Collection, name: str, settings: CompositeSettings
) -> tuple[bytes, NDArray[np.float32]]:
    """Runs on workers, window by window: memory grows with the steps of a period, not with the tile."""
    tile = source.tile(job.tile_id)
    radiometry = source.sensor.radiometry
    nodata = radiometry.nodata or 0
    images, qualities = source.image(job.tile_id), source.quality(job.tile_id)
    image = np.full((len(source.sensor.bands), *tile.shape), nodata, radiometry.dtype)
    count = np.zeros(tile.shape, np.uint16)
    seen = source.chunk_clear(job.tile_id)
    best = _best(job, source) if settings.rule == "best-pixel" else None
    for row, col in np.ndindex(seen.shape[1:]):
        window = np.s_[row * CHUNK : (row + 1) * CHUNK, col * CHUNK : (col + 1) * CHUNK]
        steps = np.array([step for step in job.sources if seen[step, row, col] > 0])
        if not steps.size:
            continue
        clear = np.stack([is_clear(np.asarray(qualities[step, *window])) for step in steps])
        count[window] = clear.sum(axis=0)
        if best is not None:
            clear &= best[window] == steps[:, None, None]
        used = clear.any(axis=(1, 2))
        stack = np.stack([np.asarray(images[step, :, *window]) for step in steps[used]])
        image[:, *window] = RULES[settings.rule](stack, clear[used], nodata)
    session = pickle.loads(fork)
    group = zarr.open_group(session.store, path=f"{name}/{job.tile_id}", mode="r+")
    quality = np.where(count > 0, 0, Quality.NODATA).astype(np.uint8)
    layout.write_pixels(group, job.step, {"image": image, "quality": quality, "clear_count": count})
    return pickle.dumps(session), layout.chunk_fractions(count > 0)


def _best(job: _Job, source: Collection) -> NDArray[np.int32]:
    """(H, W) step with the best score, of equals the earliest; one plane at a time, for the whole tile, since
    clouds beyond a window's border count too."""
    times, qualities = source.times(job.tile_id), source.quality(job.tile_id)
    first, end = spans.bounds(job.period)
    spread = float((end - first).astype(int)) * _DAYS_A_MONTH / 4
    best = np.full(source.tile(job.tile_id).shape, -1, np.int32)
    highest = np.full(best.shape, -np.inf, np.float32)
    for step in job.sources:
        days = float((times[step] - job.middle) / np.timedelta64(1, "D"))
        here = score(is_clear(np.asarray(qualities[step])), days, spread)
        better = here > highest
        best[better], highest[better] = step, here[better]
    return best
