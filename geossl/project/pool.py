"""The chips of a pretraining: of the project's own scenes, and of the other collections of its pool."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from geossl.bands import differences, require_same_radiometry
from geossl.chips.cache import ChunkCache, default_folder
from geossl.chips.index import build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.reader import ChipReader
from geossl.chips.sampling import weigh
from geossl.chips.split import TRAIN
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import StoreError
from geossl.project.project import Project
from geossl.train.kinds import Kind, require_mixable
from geossl.train.launch import rank, world_size
from geossl.train.settings import PretrainSettings


@dataclass(frozen=True)
class Member:
    """A collection to train on, as it is now."""

    cube: Cube
    scenes: Collection
    guest: str | None = None
    """Name of the project that trains, where the cube is another's."""

    def pinned(self, tag: str) -> Collection:
        """The same, kept by a tag from now on; or what an earlier run kept by it."""
        tag = tag if self.guest is None else f"{guest_prefix(self.guest)}{tag}"
        if tag not in self.cube.tags():
            try:
                self.cube.tag(tag, self.scenes.snapshot)
            except StoreError:
                if tag not in self.cube.tags():  # by another machine, just now
                    raise
        return self.cube.view(tag).collection(self.scenes.name)


def guest_prefix(project: str) -> str:
    """How a project's tags begin in the cubes of others."""
    return f"pool-{project}-"


def other_cubes(project: Project) -> list[Cube]:
    """The cubes of the pool that are not the project's own, as far as they can be opened."""
    found = {}
    for other in project.settings.pretrain.pool:
        if other.cube is not None:
            with contextlib.suppress(StoreError):
                cube = Cube.open(_address(project, other.cube))
                found[cube.uri] = cube
    return [cube for uri, cube in found.items() if uri != project.cube_uri]


def _address(project: Project, cube: str) -> str:
    return cube if "://" in cube else str(project.root / cube)


def members(project: Project, snapshot: str | None = None) -> list[Member]:
    """The project's scenes, then the pool's other collections; those of one cube in one snapshot.

    Parameters
    ----------
    snapshot:
        Of the project's cube; None: the newest.

    Raises
    ------
    StoreError
        A cube or collection is not there.
    RadiometryError
        A collection has other bands or units than the project's scenes, and the encoder takes one sensor alone.
    """
    cube = project.cube()
    views = {cube.uri: cube.view(snapshot)}
    found = [Member(cube, views[cube.uri].collection(project.sensor.name))]
    sensor = found[0].scenes.sensor
    for number, other in enumerate(project.settings.pretrain.pool):
        where = f"pretrain.pool[{number}]"
        cube = found[0].cube if other.cube is None else Cube.open(_address(project, other.cube))
        if cube.uri not in views:
            views[cube.uri] = cube.view()
        view = views[cube.uri]
        if other.collection not in (known := view.collections()):
            raise StoreError(
                f"{where}: the cube {cube.uri} has no collection {other.collection!r} (it has: {', '.join(known)})"
            )
        guest = project.settings.name if cube.uri != found[0].cube.uri else None
        member = Member(cube, view.collection(other.collection), guest)
        if project.settings.pretrain.encoder.embedding == "bands":
            require_same_radiometry(
                sensor,
                member.scenes.sensor,
                us="the project's scenes",
                them=f"the collection of {where}",
                remedy="pool imagery with the same bands and units, or set encoder: {name: vit-small, embedding: "
                "wavelengths}, which takes several sensors",
            )
        found.append(member)
    return found


def kinds(settings: PretrainSettings, scenes: list[Collection]) -> list[Kind]:
    """The kind of imagery of each of the collections of :func:`members`; none where all are of one.

    Imagery of the same bands and units is of one kind, and normalised by the statistics of its first collection.

    Raises
    ------
    StoreError
        Such statistics are missing.
    SettingsError
        What learns does not learn from several sensors.
    """
    first = [
        next(one for one in scenes[: number + 1] if not differences(one.sensor, each.sensor))
        for number, each in enumerate(scenes)
    ]
    if all(each is scenes[0] for each in first):
        return []
    found = []
    for each in first:
        if each.statistics is None:
            raise StoreError(
                f"collection {each.name!r} of the pool has no statistics, by which its numbers are normalised",
                "run `geossl stats` in its own project first",
            )
        found.append(Kind(each.sensor, each.statistics))
    require_mixable(settings, found)
    return found


def loader(project: Project, settings: PretrainSettings, scenes: list[Collection]) -> ChipLoader | PoolLoader:
    """Batches of the chips of the collections of :func:`members`; of several ranks, each has its own share."""
    if len(scenes) == 1:
        return _loader(project, settings, scenes[0])
    weights = [1.0, *(other.weight for other in settings.pool)]
    return PoolLoader([_loader(project, settings, each) for each in scenes], weights, seed=settings.seed)


def count(loader: ChipLoader | PoolLoader) -> int:
    """How many chips there are."""
    members = loader.members if isinstance(loader, PoolLoader) else [loader]
    return sum(len(member.index) for member in members)


def _loader(project: Project, settings: PretrainSettings, scenes: Collection) -> ChipLoader:
    index = build_index(
        scenes,
        settings.chip,
        min_clear=settings.min_clear,
        split=project.split if settings.blocks == "train" else None,
        subsets=(TRAIN,),
    )
    reader = ChipReader(scenes, ChunkCache(default_folder()), bad_chunks=settings.bad_chunks)
    # the index knows how clear a stored chunk is; a chip of it can still be all cloud
    share = reader.clear(index)
    usable = share >= settings.min_clear
    index, share = index.select(usable), share[usable]
    sampling = settings.sampling
    weights = weigh(
        reader,
        index,
        share=share,
        clear=sampling.clear,
        diversity=sampling.diversity,
        regions=[
            (project.geometry(region.area, f"pretrain.sampling.regions[{number}].area"), region.weight)
            for number, region in enumerate(sampling.regions)
        ],
        seed=settings.seed,
    )
    return ChipLoader(
        reader,
        index,
        settings.batch_size,
        paired=settings.method.wants_pairs,
        weights=weights,
        seed=settings.seed,
        rank=rank(),
        world=world_size(),
    )
