"""The chips of a pretraining: of the project's own scenes, and of the other collections of its pool."""

from __future__ import annotations

from geossl.bands import require_same_radiometry
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
from geossl.train.settings import PretrainSettings


def collections(project: Project, tag: str | None = None) -> list[Collection]:
    """The project's scenes, then the pool's other collections.

    Parameters
    ----------
    tag:
        Pin every cube's snapshot by this tag, unless it is already, and read that; None: the newest.

    Raises
    ------
    StoreError
        A cube or collection is not there.
    RadiometryError
        A collection has other bands or units than the project's scenes.
    """
    own = project.scenes()
    members = [_at(project.cube(), own.name, tag)]
    for number, other in enumerate(project.settings.pretrain.pool):
        where = f"pretrain.pool[{number}]"
        if other.cube is None:
            cube = project.cube()
        else:
            cube = Cube.open(other.cube if "://" in other.cube else str(project.root / other.cube))
        known = cube.view().collections()
        if other.collection not in known:
            raise StoreError(
                f"{where}: the cube {cube.uri} has no collection {other.collection!r} (it has: {', '.join(known)})"
            )
        member = _at(cube, other.collection, tag)
        require_same_radiometry(own.sensor, member.sensor, us="the project's scenes", them=f"the collection of {where}")
        members.append(member)
    return members


def loader(project: Project, settings: PretrainSettings, members: list[Collection]) -> ChipLoader | PoolLoader:
    """Batches of the chips of :func:`collections`."""
    if len(members) == 1:
        return _loader(project, settings, members[0])
    weights = [1.0, *(other.weight for other in settings.pool)]
    return PoolLoader([_loader(project, settings, member) for member in members], weights, seed=settings.seed)


def count(loader: ChipLoader | PoolLoader) -> int:
    """How many chips there are."""
    members = loader.members if isinstance(loader, PoolLoader) else [loader]
    return sum(len(member.index) for member in members)


def _at(cube: Cube, name: str, tag: str | None) -> Collection:
    if tag is None:
        return cube.view().collection(name)
    if tag not in cube.tags():
        cube.tag(tag, cube.view().collection(name).snapshot)
    return cube.view(tag).collection(name)


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
        regions=[(project.geometry(region.area), region.weight) for region in sampling.regions],
        seed=settings.seed,
    )
    return ChipLoader(
        reader,
        index,
        settings.batch_size,
        paired=settings.method.wants_pairs,
        weights=weights,
        seed=settings.seed,
    )
