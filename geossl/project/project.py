"""One region's project, opened: settings, folders, and the cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry, box

from geossl.bands import Sensor
from geossl.chips.split import Split
from geossl.cube.collection import Collection
from geossl.cube.composite import composite_name
from geossl.cube.repository import Cube
from geossl.cube.settings import CompositeSettings
from geossl.downstream.data import TaskData
from geossl.downstream.images import DatedImages
from geossl.errors import SceneError, SettingsError, StoreError
from geossl.files import read_json
from geossl.grid import Grid
from geossl.imagery.scene import Scene
from geossl.imagery.warp import scene_geobox
from geossl.project.grid import choose_grid
from geossl.project.load import load_settings
from geossl.project.outline import read_outline
from geossl.project.settings import ChangeTask, ProjectSettings
from geossl.project.state import State, content, fingerprint
from geossl.registry import Registry


@dataclass(frozen=True)
class StageResult:
    """What a stage tells the person who ran it."""

    stage: str
    lines: list[str] = field(default_factory=list)
    """What came out, in plain words."""
    skipped: bool = False
    """Whether there was nothing to do."""
    set_aside: int = 0
    """How many inputs were set aside with a reason."""


@dataclass(frozen=True)
class Project:
    """A project file and the store beside it."""

    root: Path
    """Folder that relative paths of the project file start from."""
    settings: ProjectSettings

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Project:
        """Open a project by its file or folder; see :func:`geossl.project.load.load_settings`."""
        settings = load_settings(path, overrides)
        return cls((path if path.is_dir() else path.parent).resolve(), settings)

    @cached_property
    def store(self) -> Path:
        return self.root / self.settings.store

    @cached_property
    def state(self) -> State:
        return State(self.store)

    @cached_property
    def sensor(self) -> Sensor:
        return self.settings.sensor.resolve()

    @cached_property
    def split(self) -> Split:
        return Split(self.settings.split)

    @property
    def cube_uri(self) -> str:
        return str(self.store / "cube")

    @property
    def snapshot(self) -> str | None:
        """The cube's newest snapshot; None where nothing was ingested yet."""
        return self.cube().snapshot() if (self.store / "cube").exists() else None

    @property
    def encoders(self) -> Path:
        """Folder of all encoders, by id."""
        return self.store / "encoders"

    def encoder_folder(self) -> Path:
        """The newest pretrained encoder.

        Raises
        ------
        StoreError
            There is none yet.
        """
        record = self.state.get("pretrain")
        if record is None:
            raise StoreError(
                f"project {self.settings.name!r} has no encoder yet",
                "run `geossl ingest`, `stats` and `pretrain` first",
            )
        return self.encoders / str(record.result["encoder"])

    @property
    def tasks(self) -> Path:
        """Folder of all trained tasks, by task name and model id."""
        return self.store / "tasks"

    @cached_property
    def registry(self) -> Registry:
        """The versions of every task's model; the champion makes the maps."""
        return Registry(self.store, self.settings.name)

    def champions(self) -> dict[str, int]:
        """The number of the version that makes each task's map; without tasks that have none yet."""
        found = {name: self.registry.aliases(name).get("champion") for name in self.settings.tasks}
        return {name: number for name, number in found.items() if number is not None}

    def unmapped(self) -> dict[str, int]:
        """The tasks whose map is not of their champion yet, with the champion's number."""
        found = {}
        for name, number in self.champions().items():
            done = self.state.get(f"map.{name}")
            if done is None or done.result.get("model") != self.registry.version(name, number).folder:
                found[name] = number
        return found

    def require_model(self, task: str, number: int) -> None:
        """Raise :class:`StoreError` where a version of a task's model is no longer on disk."""
        version = self.registry.version(task, number)
        if not (self.store / version.folder).is_dir():
            there = [str(v.number) for v in self.registry.versions(task) if (self.store / v.folder).is_dir()]
            raise StoreError(
                f"the model of version {number} of {task!r} was removed, since nothing needed it",
                f"still there: {', '.join(there)}; `keep.models` says how many stay",
            )

    @property
    def maps(self) -> Path:
        """Folder of all published maps; the root of their STAC catalogue."""
        return self.store / "maps"

    def task_data(self, name: str) -> TaskData | DatedImages:
        """The images of one task, with its labels and split where it has labels."""
        task = self.settings.tasks[name]
        images = self.task_images(name)
        dates = (task.before, task.after) if isinstance(task, ChangeTask) else (task.date,)
        forest = None
        if isinstance(task, ChangeTask) and task.forest is not None:
            from geossl.project.forest import forest_of  # it may need torch

            forest = forest_of(self, task.forest, DatedImages(images, (task.before,)))
        if task.labels is None:
            return DatedImages(images, dates, forest)
        return TaskData(images, self.cube().view(images.snapshot).labels(name), self.split, dates, forest)

    def task_key(self, name: str, *, images: bool = True) -> str:
        """Names everything that a task's model and scores follow from, but for the encoder; or but for images too."""
        labels = self.state.get(f"labels.{name}")
        return fingerprint(
            images=content(self.task_images(name)) if images else None,
            labels=labels.key if labels else None,
            # what a river took is told apart on the map, and teaches nothing
            task=self.settings.tasks[name].model_dump(mode="json", exclude={"river"}),
            split=self.settings.split,
            forest=self.forest_key(name),
        )

    def forest_key(self, name: str) -> str | None:
        """Names everything that a change task's forest follows from, but for the images; None where it asks for none."""
        task = self.settings.tasks[name]
        if not isinstance(task, ChangeTask) or task.forest is None:
            return None
        from geossl.project.forest import key_of

        return key_of(self, task.forest)

    def map_key(self, name: str, model: str) -> str:
        """Names everything that a task's map by a model (its id) follows from."""
        forest = self.forest_key(name)
        return fingerprint(
            model=model,
            images=content(self.task_images(name)),
            settings=self.settings.map,
            forest=(self.settings.tasks[name], forest) if forest is not None else None,
            river=getattr(self.settings.tasks[name], "river", None),
        )

    @property
    def embeddings(self) -> Path:
        """Folder of all embeddings of chips, by encoder, and of what searches them."""
        return self.store / "embeddings"

    @property
    def quicklooks(self) -> Path:
        """Folder of a small picture of each scene."""
        return self.store / "quicklooks"

    @property
    def samples(self) -> Path:
        """Folder of all samples that were drawn from maps, by id."""
        return self.store / "samples"

    @property
    def releases(self) -> Path:
        """Folder of all reporting years that were released, by task."""
        return self.store / "releases"

    def pinned_releases(self, name: str) -> set[str]:
        """Releases of a map that a sample was drawn from, and that stay for as long as the sample is there."""
        drawn = [read_json(path) for path in self.samples.glob("*/sample.json")]
        return {entry["release"] for entry in drawn if entry is not None and entry["map"] == name}

    @property
    def report_file(self) -> Path:
        return self.store / "report" / "report.html"

    def scores(self) -> list[dict[str, Any]]:
        """All score rows so far: {task, split, labels, model, metric, mean, low, high}."""
        names = ["evaluate", *(f"finetune.{task}" for task in self.settings.tasks)]
        records = [self.state.get(name) for name in names]
        return [row for record in records if record is not None for row in record.result.get("scores", [])]

    def cube(self) -> Cube:
        """The project's cube.

        Raises
        ------
        StoreError
            Nothing was ingested yet.
        """
        if not (self.store / "cube").exists():
            raise StoreError(f"project {self.settings.name!r} has no cube yet", "run `geossl ingest` first")
        return Cube.open(self.cube_uri)

    def scenes(self) -> Collection:
        """The collection of single scenes, at the cube's newest snapshot."""
        return self.cube().view().collection(self.sensor.name)

    @property
    def composite_name(self) -> str | None:
        """Name of the collection of composites; None where the project wants none."""
        composite = self.settings.composite
        return None if composite is None else composite_name(self.sensor.name, composite)

    @property
    def periods_name(self) -> str:
        """Name of the collection of composites of the periods that tasks name."""
        return composite_name(self.sensor.name, self.settings.composite or CompositeSettings(), named=True)

    @property
    def named_periods(self) -> list[str]:
        """The periods that change tasks name, such as ``2020-06-01/P4M``."""
        tasks = [task for task in self.settings.tasks.values() if isinstance(task, ChangeTask)]
        return sorted({when for task in tasks for when in (task.before, task.after) if isinstance(when, str)})

    def task_images(self, task: str | None = None) -> Collection:
        """What a task looks at: the composites (of the periods that it names), or single scenes where there are none."""
        view = self.cube().view()
        settings = self.settings.tasks[task] if task else None
        named = isinstance(settings, ChangeTask) and isinstance(settings.before, str)
        name = self.periods_name if named else self.composite_name
        if name is None:
            return view.collection(self.sensor.name)
        if name not in view.collections():
            if named and isinstance(settings, ChangeTask) and self.state.get("stats") is not None:
                raise StoreError(
                    f"task {task!r}: no scene has a clear pixel in {settings.before} or {settings.after}",
                    "choose other periods, or ingest more scenes; then run `geossl stats` again",
                )
            raise StoreError(f"the cube has no composites {name!r} yet", "run `geossl stats` first")
        return view.collection(name)

    def area(self) -> Geometry | None:
        """The area of interest in longitude and latitude; None: wherever there is imagery."""
        return None if self.settings.area is None else self.geometry(self.settings.area, "area")

    def geometry(self, area: tuple[float, float, float, float] | Path, what: str) -> Geometry:
        """West, south, east, north, or what a vector file holds, in longitude and latitude; ``what`` setting says so."""
        if isinstance(area, tuple):
            west, south, east, north = area
            if not (west < east and south < north):
                raise SettingsError(
                    f"{what} {list(area)} is not west, south, east, north", "west < east, south < north"
                )
            return box(west, south, east, north, "EPSG:4326")
        return Geometry(read_outline(self.root / area, what, "EPSG:4326"), "EPSG:4326")

    def grid(self, scenes: Sequence[Scene] = ()) -> Grid:
        """The project's grid: the cube's once there is one, else from the settings and the first readable scene."""
        wanted = self.settings.grid
        if (self.store / "cube").exists():
            view = self.cube().view()
            if self.sensor.name in view.collections():
                grid = view.collection(self.sensor.name).grid
                for what, ours, kept in (
                    ("crs", wanted.crs, grid.crs),
                    ("resolution", wanted.resolution, grid.resolution),
                    ("tile", wanted.tile, grid.tile_size),
                    ("bands", wanted.bands, grid.bands),
                ):
                    if ours not in ("auto", kept):
                        raise SettingsError(
                            f"grid.{what} is {ours} in the project file but {kept} in the cube {self.cube_uri}",
                            "a cube keeps its grid: change the setting back, or name another store",
                        )
                return grid
        for scene in scenes:
            try:
                return choose_grid(wanted, scene_geobox(scene))
            except SceneError:
                continue  # ingest sets it aside with this reason
        raise SceneError(
            "the first readable scene decides the grid, and there is none",
            "look at the reasons with `geossl scenes --quarantined`, or ask `gdalinfo` about a file",
        )
