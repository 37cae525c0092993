"""`geossl release --compare`: the released years mapped again by today's champion, on then's and on today's imagery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geossl.areas.clearing import clear_year
from geossl.areas.release import YearRelease, releases, series
from geossl.cube.collection import Collection
from geossl.downstream.task import TrainedTask, load_task
from geossl.errors import StoreError
from geossl.maps.cog import write_classes
from geossl.maps.predict import predict_map
from geossl.maps.published import find_map
from geossl.maps.tiles import TileFolder
from geossl.progress import Progress
from geossl.project.project import Project
from geossl.project.refined import refined_as
from geossl.project.stages.release import change_task


@dataclass(frozen=True)
class Difference:
    """One year's area as it was released, and as it would be now; hectares by counted pixels."""

    year: int
    released: float
    new_model: float
    """By today's model on the imagery that was released."""
    now: float
    """By today's model on today's imagery."""

    @property
    def model(self) -> float:
        """What the model changes."""
        return self.new_model - self.released

    @property
    def imagery(self) -> float:
        """What newer revisions of the same images change."""
        return self.now - self.new_model


def compare(project: Project, progress: Progress, *, task: str | None = None) -> tuple[str, list[Difference]]:
    """Map every released year again, by the champion; returns its id and the differences.

    Each series has a cumulative mask of its own, as if it had been released year by year. Predicted tiles are kept,
    so what was interrupted goes on. Releases are only read.

    Raises
    ------
    StoreError
        Nothing was released, or there is no champion.
    """
    name = change_task(project, task)
    released = series(releases(project.releases / name))
    if not released:
        raise StoreError("no year was released yet", "`geossl release YEAR` releases one")
    champion = project.registry.find(name, "champion")
    if champion is None:
        raise StoreError(f"task {name!r} has no model", "run `geossl finetune` first")
    model = load_task(project.store / champion.folder)
    work = project.store / "remapped" / name / model.id
    cube = project.cube()
    areas: list[list[float]] = []
    for kind in ("released imagery", "newest imagery"):
        mask, of_kind = None, []
        for release in released:
            snapshot = release.content["snapshot"] if kind == "released imagery" else None
            images = cube.view(snapshot).collection(release.content["collection"])
            folder = work / kind.replace(" ", "-") / release.id
            classes = _map(project, model, images, release, folder, progress)
            area = clear_year(
                classes,
                release.content["codes"],
                release.year,
                mask,
                cleared=folder / "cleared.tif",
                mask=folder / "mask.tif",
                minimum_ha=release.content["minimum_ha"],
            )
            mask = folder / "mask.tif"
            of_kind.append(area.cleared)
        areas.append(of_kind)
    rows = zip(released, *areas, strict=True)
    return model.id, [Difference(r.year, r.content["areas"]["cleared_ha"], then, now) for r, then, now in rows]


def _map(
    project: Project,
    model: TrainedTask,
    images: Collection,
    release: YearRelease,
    folder: Path,
    progress: Progress,
) -> Path:
    """The class raster of a released year's images by another model."""
    published = find_map(release.folder, release.folder / "map")
    steps: dict[str, Sequence[int]] = {}
    for record in published.records:
        scenes = images.scene_ids(record.tile) if record.tile in images.tile_ids else []
        own = [source.scene for source in record.own]
        if all(scene in scenes for scene in own):
            steps[record.tile] = [scenes.index(scene) for scene in own]
    if not steps:
        raise StoreError(f"the images of {release.id} are no longer in the cube", "ingest them again")
    report = predict_map(model, images, steps, folder / "tiles", settings=project.settings.map, progress=progress)
    out = refined_as(
        published.folder, published.name, project, images, steps, model, report, folder / "tiles", progress
    )
    classes = folder / f"{published.name}.tif"
    write_classes(classes, TileFolder(out.folder), out.report.records, images.grid, out.legend, progress)
    return classes
