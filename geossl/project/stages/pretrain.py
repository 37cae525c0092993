"""`geossl pretrain`: an encoder from the imagery in the cube, labelled or not."""

from __future__ import annotations

import shutil

from geossl.chips.cache import ChunkCache, default_folder
from geossl.chips.index import build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.chips.split import TRAIN
from geossl.errors import StoreError
from geossl.nets.card import Card
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint
from geossl.train.pretrain import pretrain


def run(project: Project, progress: Progress) -> StageResult:
    """Train an encoder on the single scenes, unless there is one of these scenes and settings.

    Raises
    ------
    StoreError
        Scenes or their statistics are missing.
    """
    settings = project.settings.pretrain
    scenes = project.scenes()
    if scenes.statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    key = fingerprint(scenes=content(scenes), settings=settings, split=project.settings.split)
    done = project.state.fresh("pretrain", key)
    if done is not None and (project.encoders / done.result["encoder"]).exists():
        return StageResult("pretrain", skipped=True)
    cube = project.cube()
    # Pinned before the first step: the snapshot outlives an expiry, and a run that goes on sees the same pixels.
    tag = f"pretrain-{key}"
    if tag not in cube.tags():
        cube.tag(tag, scenes.snapshot)
    scenes = cube.view(tag).collection(scenes.name)
    assert scenes.statistics is not None
    index = build_index(
        scenes,
        settings.chip,
        min_clear=settings.min_clear,
        split=project.split if settings.blocks == "train" else None,
        subsets=(TRAIN,),
    )
    reader = ChipReader(scenes, ChunkCache(default_folder()))
    # the index knows how clear a stored chunk is; a chip of it can still be all cloud
    index = index.select(reader.clear(index) >= settings.min_clear)
    loader = ChipLoader(
        reader,
        index,
        settings.batch_size,
        paired=settings.method.wants_pairs,
        seed=settings.seed,
    )
    folder = project.encoders / f"unfinished-{key}"
    with project.state.recording("pretrain", key) as result:
        card = pretrain(
            settings,
            loader,
            sensor=scenes.sensor,
            statistics=scenes.statistics,
            snapshot=scenes.snapshot,
            folder=folder,
            progress=progress,
        )
        home = project.encoders / card.id
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        folder.rename(home)
        result.update(encoder=card.id, snapshot=card.snapshot, chips=len(index))
    return StageResult("pretrain", [f"encoder {card.id} from {len(index):,} chips", _health(card)])


def _health(card: Card) -> str:
    figures = ", ".join(f"{name} {value:.3g}" for name, value in card.health.items() if isinstance(value, float | int))
    return f"health: {figures}" if figures else "health: not observed"
