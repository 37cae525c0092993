"""The chips of a pretraining: of the project's own scenes, and of the other collections of its pool."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geossl.bands import differences, require_same_radiometry
from geossl.chips.beside import Beside, days_beside
from geossl.chips.cache import ChunkCache, default_folder
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.reader import ChipReader
from geossl.chips.sampling import weigh
from geossl.chips.settings import BesideSettings, PoolSettings
from geossl.chips.split import TRAIN
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import SettingsError, StoreError
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
    for _, other in _others(project.settings.pretrain):
        if other.cube is not None:
            with contextlib.suppress(StoreError):
                cube = Cube.open(_address(project, other.cube))
                found[cube.uri] = cube
    return [cube for uri, cube in found.items() if uri != project.cube_uri]


def _others(settings: PretrainSettings) -> list[tuple[str, PoolSettings | BesideSettings]]:
    """The pool's collections in order, those beside right after their own, and where the project file names them."""
    found: list[tuple[str, PoolSettings | BesideSettings]] = []
    for number, other in enumerate(settings.pool):
        found.append((f"pretrain.pool[{number}]", other))
        if other.beside is not None:
            found.append((f"pretrain.pool[{number}].beside", other.beside))
    return found


def _address(project: Project, cube: str) -> str:
    return cube if "://" in cube else str(project.root / cube)


def members(project: Project, snapshot: str | None = None) -> list[Member]:
    """The project's scenes, then the pool's other collections, each followed by that beside it; those of one cube
    in one snapshot.

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
    SettingsError
        The two collections of a pair lie on different grids.
    """
    cube = project.cube()
    views = {cube.uri: cube.view(snapshot)}
    found = [Member(cube, views[cube.uri].collection(project.sensor.name))]
    sensor = found[0].scenes.sensor
    for where, other in _others(project.settings.pretrain):
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
        if isinstance(other, BesideSettings):
            _require_same_grid(where, found[-1].scenes, member.scenes)
        found.append(member)
    return found


def _require_same_grid(where: str, ours: Collection, theirs: Collection) -> None:
    if ours.grid.plain != theirs.grid.plain:
        both = " and ".join(
            f"{each.name} ({each.grid.crs}, {each.grid.resolution:g} m, tiles of {each.grid.tile_size} px from "
            f"{each.grid.origin[0]:g}, {each.grid.origin[1]:g})"
            for each in (ours, theirs)
        )
        raise SettingsError(
            f"{where}: the collections {both} lie on different grids, so that their windows are not the same ground",
            "ingest both with the same grid: {crs, resolution, tile} in their project files",
        )


def kinds(settings: PretrainSettings, scenes: list[Collection]) -> list[Kind]:
    """The kind of imagery of each member of the pool, from the collections of :func:`members`; none where all are of
    one.

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
    found = [_kind(own, None if beside is None else _kind(beside)) for own, beside in _pairs(settings, first)]
    require_mixable(settings, found)
    return found


def _kind(scenes: Collection, beside: Kind | None = None) -> Kind:
    if scenes.statistics is None:
        raise StoreError(
            f"collection {scenes.name!r} of the pool has no statistics, by which its numbers are normalised",
            "run `geossl stats` in its own project first",
        )
    return Kind(scenes.sensor, scenes.statistics, beside)


def _pairs(settings: PretrainSettings, scenes: list[Collection]) -> list[tuple[Collection, Collection | None]]:
    """The collections of :func:`members` by member of the pool, each with that beside it where there is one."""
    rest = iter(scenes[1:])
    others = [(next(rest), None if other.beside is None else next(rest)) for other in settings.pool]
    return [(scenes[0], None), *others]


def loader(project: Project, settings: PretrainSettings, scenes: list[Collection]) -> ChipLoader | PoolLoader:
    """Batches of the chips of the collections of :func:`members`; of several ranks, each has its own share.

    Raises
    ------
    SettingsError
        There are too few chips for a batch, or no chip of a pair's first collection has one of the other near in time.
    """
    if len(scenes) == 1:
        return _loader(project, settings, scenes[0])
    loaders = [_loader(project, settings, scenes[0])]
    for number, (other, (own, beside)) in enumerate(zip(settings.pool, _pairs(settings, scenes)[1:], strict=True)):
        if beside is None or other.beside is None:
            loaders.append(_loader(project, settings, own))
        else:
            where = f"pretrain.pool[{number}].beside"
            loaders.append(_pair_loader(project, settings, own, beside, other.beside.days, where))
    weights = [1.0, *(other.weight for other in settings.pool)]
    return PoolLoader(loaders, weights, seed=settings.seed)


def count(loader: ChipLoader | PoolLoader) -> int:
    """How many chips there are, or pairs of collections."""
    members = loader.members if isinstance(loader, PoolLoader) else [loader]
    return sum(len(member.index) for member in members)


def _loader(project: Project, settings: PretrainSettings, scenes: Collection) -> ChipLoader:
    reader, index, share = _usable(project, settings, scenes)
    return ChipLoader(
        reader,
        index,
        settings.batch_size,
        paired=settings.method.wants_pairs,
        weights=_weights(project, settings, reader, index, share),
        seed=settings.seed,
        rank=rank(),
        world=world_size(),
    )


def _pair_loader(
    project: Project, settings: PretrainSettings, ours: Collection, theirs: Collection, days: float, where: str
) -> ChipLoader:
    reader, index, share = _usable(project, settings, ours)
    other, others, share_beside = _usable(project, settings, theirs)
    apart = days_beside(index, others)
    if not (apart <= days).any():
        nearest = apart.min(initial=math.inf)
        both = f"{where}: no chip of {ours.name} has one of {theirs.name}"
        if math.isinf(nearest):
            raise SettingsError(
                f"{both} of the same ground",
                "look at where both have scenes, and accept cloudier chips (min_clear) or smaller ones",
            )
        raise SettingsError(
            f"{both} within {days:g} days; the nearest are {math.ceil(10 * nearest) / 10:g} days apart",
            "allow more days, or ingest scenes of nearer dates",
        )
    index, share = index.select(apart <= days), share[apart <= days]
    return ChipLoader(
        reader,
        index,
        settings.batch_size,
        beside=Beside(other, others, days, _weights(project, settings, other, others, share_beside)),
        weights=_weights(project, settings, reader, index, share),
        seed=settings.seed,
        rank=rank(),
        world=world_size(),
    )


def _usable(
    project: Project, settings: PretrainSettings, scenes: Collection
) -> tuple[ChipReader, ChipIndex, NDArray[np.float32]]:
    """The chips of a collection that are clear enough, and how clear they are (N,)."""
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
    return reader, index.select(usable), share[usable]


def _weights(
    project: Project,
    settings: PretrainSettings,
    reader: ChipReader,
    index: ChipIndex,
    share: NDArray[np.float32],
) -> NDArray[np.float64] | None:
    sampling = settings.sampling
    return weigh(
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
