"""`geossl ingest`: scenes into the cube, labels onto its grid."""

from __future__ import annotations

from geossl.cluster import dask_client
from geossl.cube.ingest import IngestReport, ingest
from geossl.cube.labels import add_labels
from geossl.cube.repository import Cube
from geossl.errors import SceneError
from geossl.imagery.scene import Rejected, Scene
from geossl.imagery.sources import open_source
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import ChangeTask
from geossl.project.state import fingerprint


def run(project: Project, progress: Progress) -> StageResult:
    """Tile what is new into the cube; what cannot be read is set aside with its reason.

    Raises
    ------
    SceneError
        The sources hold no scene at all.
    """
    found = _find(project, progress)
    key = fingerprint(
        scenes=[_identity(item) for item in found],
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
            lines, set_aside = _lines(report), len(report.set_aside)
            result.update(set_aside=set_aside, ingested=report.ingested, snapshot=report.snapshot)
    lines += _labels(project, progress)
    return StageResult("ingest", lines, skipped=not lines, set_aside=set_aside)


def _find(project: Project, progress: Progress) -> list[Scene | Rejected]:
    found: list[Scene | Rejected] = []
    for settings in project.settings.sources:
        for item in open_source(settings, project.root).scenes(project.sensor):
            found.append(item)
            progress("looking for scenes", len(found), None)
    if not found:
        raise SceneError(
            "no scene was found in " + ", ".join(str(source) for source in project.settings.sources),
            "put GeoTIFF, COG, JP2 or SAFE scenes there, or name another folder under `sources`",
        )
    return found


def _identity(item: Scene | Rejected) -> tuple[str, str]:
    """What names an input and changes with it; ingest itself sets aside what cannot be read."""
    if isinstance(item, Rejected):
        return item.source, item.reason
    try:
        return item.id, item.checksum()
    except SceneError as error:
        return item.id, error.what


def _ingest(project: Project, found: list[Scene | Rejected], progress: Progress) -> IngestReport:
    good = [item for item in found if isinstance(item, Scene)]
    if not good:
        reasons = "; ".join(f"{item.source}: {item.reason}" for item in found if isinstance(item, Rejected))
        raise SceneError(f"none of the {len(found)} inputs is a usable scene: {reasons}")
    grid = project.grid(good)
    project.store.mkdir(parents=True, exist_ok=True)
    with dask_client(project.settings.cluster) as client:
        return ingest(
            Cube.open_or_create(project.cube_uri),
            found,
            project.sensor,
            grid,
            project.sensor.name,
            project.settings.ingest,
            client,
            area=project.area(),
            progress=progress,
        )


def _lines(report: IngestReport) -> list[str]:
    lines = [
        f"{len(report.ingested)} scenes ingested ({report.bytes / 1e6:.0f} MB), {len(report.already)} there already"
    ]
    lines += [f"set aside: {item.source}: {item.reason}" for item in report.set_aside]
    return lines


def _labels(project: Project, progress: Progress) -> list[str]:
    """Bring each task's label layer up to date; one line per layer that changed."""
    lines = []
    for number, (name, task) in enumerate(project.settings.tasks.items(), 1):
        if task.labels is None:
            continue
        path = project.root / task.labels.path
        changed = path.stat().st_mtime_ns if path.exists() else None
        scenes = project.scenes()
        dates = (task.before, task.after) if isinstance(task, ChangeTask) else (None, None)
        key = fingerprint(
            labels=task.labels,
            dates=[str(date) for date in dates],
            changed=changed,
            grid=scenes.grid.to_dict(),
            tiles=scenes.tile_ids,
        )
        if project.state.fresh(f"labels.{name}", key) is not None:
            continue
        progress("labels", number - 1, len(project.settings.tasks))
        with project.state.recording(f"labels.{name}", key) as result:
            before, after = dates
            result["snapshot"] = add_labels(
                project.cube(), name, task.labels, scenes.name, project.root, before=before, after=after
            )
        lines.append(f"labels of task {name} put onto the grid")
        progress("labels", number, len(project.settings.tasks))
    return lines
