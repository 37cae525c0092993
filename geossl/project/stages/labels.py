"""Labels of the tasks: put onto the grid by `geossl ingest`, listed by `geossl labels`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geossl.chips.split import GATE, TEST, TRAIN, VAL, Split
from geossl.cube.collection import Collection, Labels
from geossl.cube.labels import add_labels, label_inputs
from geossl.cube.periods import day
from geossl.downstream.images import DatedImages
from geossl.errors import LabelError
from geossl.files import write_bytes
from geossl.imagery.clouds import Quality
from geossl.legend import NO_LABEL
from geossl.progress import Progress
from geossl.project.overview import overview
from geossl.project.project import Project
from geossl.project.settings import ChangeTask, TaskSettings
from geossl.project.state import fingerprint
from geossl.report.labels import label_picture, png, thin_labels
from geossl.report.pictures import stretched
from geossl.report.records import Picture

SUBSETS = {TRAIN: "training", VAL: "validation", TEST: "test"}

_AROUND = 3
"""Tiles around the one with the most labels that their picture shows."""

_SIDE = 768


def update(project: Project, progress: Progress) -> tuple[list[str], int]:
    """Bring each task's label layer up to date.

    Returns
    -------
    What there is to say of each layer that changed, and how many features are set aside in all layers.
    """
    lines: list[str] = []
    stale = outdated(project)
    fresh = [project.state.get(f"labels.{name}") for name in project.settings.tasks if name not in stale]
    set_aside = sum(int(record.result.get("set_aside", 0)) for record in fresh if record is not None)
    for number, (name, key) in enumerate(stale.items()):
        task = project.settings.tasks[name]
        assert task.labels is not None, "it has a key"
        progress("labels", number, len(stale))
        with project.state.recording(f"labels.{name}", key) as result:
            before, after, date = _dates(task)
            result["snapshot"] = add_labels(
                project.cube(),
                name,
                task.labels,
                project.sensor.name,
                project.root,
                before=before,
                after=after,
                date=date,
            )
            labels = project.cube().view().labels(name)
            assert labels.report is not None, "it was put in just now"
            result["set_aside"] = labels.report.set_aside
            picture = picture_file(project, name)
            write_bytes(picture, png(draw(project, name, labels)))
        set_aside += labels.report.set_aside
        lines += [f"labels of task {name}, version {labels.version}, put onto the grid"]
        lines += [f"  {line}" for line in (*labels.report.lines(), *held_out(labels, project.split))]
        lines += [f"  beside the imagery: {picture.relative_to(project.root)}"]
        progress("labels", number + 1, len(stale))
    return lines, set_aside


def outdated(project: Project) -> dict[str, str]:
    """The tasks whose label layer is not what their file, dates and the cube's tiles ask for, and the key of what is."""
    found: dict[str, str] = {}
    view = project.cube().view()
    if project.sensor.name not in view.collections():  # all scenes were set aside: there is nothing to put labels onto
        return found
    scenes = view.collection(project.sensor.name)
    for name, task in project.settings.tasks.items():
        if task.labels is None:
            continue
        key = fingerprint(
            labels=task.labels,
            dates=[str(date) for date in _dates(task)],
            changed=[
                path.stat().st_mtime_ns if path.exists() else None for path in label_inputs(task.labels, project.root)
            ],
            grid=scenes.grid.to_dict(),
            tiles=scenes.tile_ids,
        )
        if project.state.fresh(f"labels.{name}", key) is None:
            found[name] = key
    return found


def _dates(task: TaskSettings) -> tuple[dt.date | None, dt.date | None, dt.date | None]:
    """The days that a task's labels are of: before and after of change, else the one of land cover."""
    if isinstance(task, ChangeTask):
        return day(task.before), day(task.after), None
    # it matters to dated labels only
    return None, None, task.date if task.labels is not None and task.labels.date_column else None


def held_out(labels: Labels, split: Split) -> Iterator[str]:
    """Which classes cannot be learnt or judged, since none of their labels lies in blocks of a subset."""
    counts = subset_counts(labels, split)
    for subset, what in (
        ("training", "they are never predicted"),
        ("validation", "nothing tells when to stop learning them"),
        ("test", "they are not scored"),
    ):
        missing = [name for name, of in counts.items() if sum(of.values()) and not of[subset]]
        if missing:
            yield (
                f"the {subset} blocks hold no label of {', '.join(missing)}: {what}; label some there, or choose "
                "another `split.seed` or a smaller `split.block`"
            )


def subset_counts(labels: Labels, split: Split) -> dict[str, dict[str, int]]:
    """Class name → labelled pixels in training, validation and test blocks, without their buffers."""
    table = np.zeros((GATE + 1, NO_LABEL + 1), np.int64)
    for tile_id in labels.tile_ids:
        codes, subset = labels.read(tile_id), split.subset_mask(labels.tile(tile_id))
        found = np.bincount(subset.astype(np.int64).ravel() * (NO_LABEL + 1) + codes.ravel(), minlength=table.size)
        table += found.reshape(table.shape)
    return {land.name: {what: int(table[n, land.code]) for n, what in SUBSETS.items()} for land in labels.legend}


def picture_file(project: Project, name: str) -> Path:
    """Where the picture of a task's labels lies."""
    return project.store / "labels" / f"{name}.png"


def draw(project: Project, name: str, labels: Labels) -> Picture:
    """A task's labels beside the scene that is nearest to its date, around where most of them are."""
    task = project.settings.tasks[name]
    scenes = project.scenes()
    images = DatedImages(scenes, (day(task.after) if isinstance(task, ChangeTask) else task.date,))
    steps = {tile_id: found[0] for tile_id in _shown(labels) if (found := images.steps(tile_id)) is not None}
    if not steps:
        return np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    return label_picture(*_beside(scenes, steps, labels), labels.legend)


def _shown(labels: Labels) -> list[str]:
    """Tiles with labels around the one with the most."""
    counts = {tile_id: int((labels.read(tile_id) != NO_LABEL).sum()) for tile_id in labels.tile_ids}
    middle = labels.tile(max(counts, key=lambda tile_id: counts[tile_id]))
    tiles = {tile_id: labels.tile(tile_id) for tile_id in counts}
    return [i for i, t in tiles.items() if max(abs(t.ix - middle.ix), abs(t.iy - middle.iy)) <= _AROUND]


def _beside(scenes: Collection, steps: dict[str, int], labels: Labels) -> tuple[Picture, np.ndarray]:
    view = overview(scenes, steps, side=_SIDE)
    seen = (view.quality & Quality.NODATA) == 0
    stored = view.image[list(scenes.sensor.rgb())]
    values = stored[:, seen].astype(np.float32)
    low, high = np.nanpercentile(values, (2, 98), axis=1) if values.size else np.zeros((2, 3))
    codes = np.full(view.quality.shape, NO_LABEL, np.uint8)
    for tile_id in steps:
        tile = scenes.tile(tile_id)
        part = thin_labels(labels.read(tile_id), view.every)
        top, left = ((at - start) // view.every for at, start in zip(tile.pixel_origin, view.origin, strict=True))
        y, x = max(top, 0), max(left, 0)
        part = part[y - top : codes.shape[0] - top, x - left : codes.shape[1] - left]
        codes[y : y + part.shape[0], x : x + part.shape[1]] = part
    return stretched(stored, ~seen, low, high), codes


def listing(project: Project, task: str | None = None, snapshot: str | None = None) -> list[dict[str, Any]]:
    """Every label layer of the cube, or one task's: what it is, where it is from, and what became of the file.

    Raises
    ------
    LabelError
        There are none yet.
    """
    view = project.cube().view(snapshot)
    names = view.label_names() if task is None else [task]
    if not names:
        raise LabelError(
            f"the cube of project {project.settings.name!r} holds no labels",
            "name a file under a task's `labels` in the project file, then run `geossl ingest`",
        )
    return [_row(project, view.labels(name)) for name in names]


def _row(project: Project, labels: Labels) -> dict[str, Any]:
    picture = picture_file(project, labels.name)
    return {
        "name": labels.name,
        "task": labels.task,
        "version": labels.version,
        "source": labels.source,
        "checksum": labels.checksum,
        "snapshot": labels.snapshot,
        "dates": [str(date) for date in (labels.before, labels.after, labels.date) if date is not None],
        "tiles": len(labels.tile_ids),
        "classes": [
            {"code": land.code, "color": land.color, "name": land.name, **of}
            for land, of in zip(labels.legend, subset_counts(labels, project.split).values(), strict=True)
        ],
        "report": list(labels.report.lines()) if labels.report is not None else [],
        "held_out": list(held_out(labels, project.split)),
        "picture": str(picture) if picture.exists() else None,
    }


def lines(row: dict[str, Any]) -> Iterator[str]:
    """One layer of :func:`listing`, in plain words."""
    version = f", version {row['version']}" if row["version"] else ""
    dates = f", {' to '.join(row['dates'])}" if row["dates"] else ""
    yield f"{row['name']} ({row['task']}{dates}){version}, from {row['source']} ({row['checksum'][:8]})"
    width = max(len(land["name"]) for land in row["classes"])
    yield f"  {'class':{width}}  {'training':>10}  {'validation':>10}  {'test':>10}   pixels in blocks"
    for land in row["classes"]:
        counts = "  ".join(f"{land[what]:>10,}" for what in SUBSETS.values())
        yield f"  {land['name']:{width}}  {counts}"
    yield from (f"  {line}" for line in (*row["report"], *row["held_out"]))
    if row["picture"]:
        yield f"  beside the imagery: {row['picture']}"
