"""`geossl ingest`: scenes into the cube, labels onto its grid."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from geossl.cluster import dask_client
from geossl.cube.ingest import ingest
from geossl.cube.plan import IngestPlan
from geossl.cube.plan import plan as plan_ingest
from geossl.cube.report import IngestReport
from geossl.cube.repository import Cube
from geossl.cube.space import plain_errors
from geossl.errors import GeosslError, NothingFoundError, SceneError
from geossl.imagery.scene import Rejected, Scene, in_order
from geossl.imagery.seen import Seen
from geossl.imagery.sources import open_source
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.quicklooks import write_quicklook
from geossl.project.stages import labels, watch
from geossl.project.state import fingerprint

_LISTED = 10
"""Set-aside inputs that are listed one by one; more are told by their reasons."""

_HASHED = 16
"""Scenes whose files are looked at together: what takes the time, at an address far away, is waiting."""


def run(project: Project, progress: Progress) -> StageResult:
    """Tile what is new into the cube; what cannot be read is set aside with its reason.

    Raises
    ------
    SceneError, NothingFoundError
        The sources hold no scene at all, and neither does the cube.
    """
    seen = Seen()
    found = _find(project, progress, seen)
    key = fingerprint(
        scenes=found.identities,
        sensor=project.sensor.to_dict(),
        grid=project.settings.grid,
        area=project.settings.dump()["area"],
        ingest=project.settings.ingest,
    )
    done = project.state.fresh("ingest", key)
    if done is not None and (project.store / "cube").exists():
        lines, set_aside = [], int(done.result["set_aside"])
    else:
        with project.state.recording("ingest", key) as result:
            report = _ingest(project, found, progress)
            lines, set_aside = list(_lines(report)), len(report.set_aside)
            result.update(set_aside=set_aside, ingested=report.ingested, snapshot=report.snapshot)
    watch.note(project, seen)
    try:
        about_labels, features = labels.update(project, progress)
    except GeosslError as error:  # what became of the scenes is not lost with it
        remedy = "; ".join(filter(None, (error.remedy, *lines)))
        raise type(error)(error.what, remedy) from error
    lines += about_labels
    return StageResult("ingest", lines, skipped=not lines, set_aside=set_aside + features)


def plan(project: Project, progress: Progress) -> IngestPlan:
    """What :func:`run` would do to the cube, and how long that would take; see :mod:`geossl.cube.plan`."""
    found = _find(project, progress, Seen())
    grid = project.grid(found.scenes())
    with dask_client(project.settings.cluster) as client:
        return plan_ingest(
            project.cube_uri,
            found.items,
            project.sensor,
            grid,
            project.sensor.name,
            project.settings.ingest,
            client,
            area=project.area(),
            progress=progress,
            checksums=found.checksums,
        )


@dataclass
class _Found:
    """What the sources hold."""

    items: list[Scene | Rejected]
    identities: list[tuple[str, str]] = field(default_factory=list)
    """What names each input and changes with it."""
    checksums: dict[str, str] = field(default_factory=dict)
    """Scene id → checksum; without ids that several scenes have, and what cannot be read."""

    begun: bool = False
    """Whether the cube holds scenes already."""

    def scenes(self) -> list[Scene]:
        """The usable ones.

        Raises
        ------
        SceneError
            There is none, nor is there any in the cube.
        """
        good = [item for item in self.items if isinstance(item, Scene)]
        if not good and not self.begun:
            reasons = "; ".join(f"{item.source}: {item.reason}" for item in self.items if isinstance(item, Rejected))
            remedy = next((item.remedy for item in self.items if isinstance(item, Rejected) and item.remedy), "")
            raise SceneError(f"none of the {len(self.items)} inputs is a usable scene: {reasons}", remedy)
        return good


def _find(project: Project, progress: Progress, seen: Seen) -> _Found:
    items: list[Scene | Rejected] = []
    begun = (project.store / "cube").exists() and project.sensor.name in project.cube().view().collections()
    for settings in project.settings.sources:
        try:
            for item in open_source(settings, project.root).scenes(project.sensor, seen):
                items.append(item)
                progress("looking for scenes", len(items), None)
        except NothingFoundError:
            if not begun:  # else it is a landing folder that was emptied
                raise
    items = in_order(items)
    if not items and not begun:
        raise SceneError(
            "no scene was found in " + ", ".join(str(source) for source in project.settings.sources),
            "put GeoTIFF, COG, JP2 or SAFE scenes there, or name another folder under `sources`",
        )
    found = _Found(items, begun=begun)
    twice = set()
    with ThreadPoolExecutor(_HASHED) as pool:
        for item, (identity, checksum) in zip(items, pool.map(_identity, items), strict=True):
            found.identities.append(identity)
            if isinstance(item, Scene) and checksum is not None:
                twice |= {item.id} & found.checksums.keys()
                found.checksums[item.id] = checksum
    for scene_id in twice:
        del found.checksums[scene_id]
    return found


def _identity(item: Scene | Rejected) -> tuple[tuple[str, str], str | None]:
    """What names an input and changes with it, and a scene's checksum; ingest sets aside what cannot be read."""
    if isinstance(item, Rejected):
        return (item.source, item.reason), None
    try:
        checksum = item.checksum()
    except SceneError as error:
        return (item.id, error.what), None
    return (item.id, checksum), checksum


def _ingest(project: Project, found: _Found, progress: Progress) -> IngestReport:
    grid = project.grid(found.scenes())
    with plain_errors(project.cube_uri):
        project.store.mkdir(parents=True, exist_ok=True)
        cube = Cube.open_or_create(project.cube_uri)
    with dask_client(project.settings.cluster) as client:
        return ingest(
            cube,
            found.items,
            project.sensor,
            grid,
            project.sensor.name,
            project.settings.ingest,
            client,
            area=project.area(),
            progress=progress,
            checksums=found.checksums,
            look=functools.partial(write_quicklook, project.quicklooks),
        )


def _lines(report: IngestReport) -> Iterator[str]:
    yield f"{len(report.ingested)} scenes ingested ({report.bytes / 1e6:.0f} MB), {len(report.already)} there already"
    if report.saturated:
        yield f"{report.saturated} numbers did not fit the sensor's type: clipped, and flagged as saturated"
    yield from set_aside_lines(report.set_aside)


def set_aside_lines(items: Sequence[Rejected]) -> Iterator[str]:
    """One line an input; where there are many, one line a kind of reason."""
    if len(items) <= _LISTED:
        yield from (f"set aside: {item.source}: {item.reason}" for item in items)
    else:
        yield f"{len(items)} set aside; `geossl scenes --quarantined` lists each with its reason once it was tried"
        yield from _by_reason(items)


def _by_reason(items: Iterable[Rejected]) -> Iterator[str]:
    """One line a kind of reason, the most frequent first, with the first input that it befell."""
    kinds: dict[str, list[Rejected]] = {}
    for item in items:
        # what differs from input to input: its name, addresses, numbers
        kind = re.sub(r"\S*/\S*|\d+", "…", item.reason.replace(item.source, "…"))
        kinds.setdefault(kind, []).append(item)
    for alike in sorted(kinds.values(), key=len, reverse=True):
        yield f"set aside: {len(alike)} × like {alike[0].source}: {alike[0].reason}"
