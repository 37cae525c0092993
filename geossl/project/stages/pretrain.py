"""`geossl pretrain`: an encoder from the imagery in the cube, labelled or not."""

from __future__ import annotations

import shutil

from geossl.bands import Statistics
from geossl.downstream.data import TaskData
from geossl.downstream.online import OnlineKnn
from geossl.errors import LabelError, StoreError
from geossl.nets.card import Card
from geossl.nets.weights import load_card
from geossl.progress import Progress
from geossl.project import pool
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint
from geossl.train.history import Watch
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings


def run(project: Project, progress: Progress) -> StageResult:
    """Train an encoder on the single scenes, unless there is one of these scenes and settings.

    Raises
    ------
    StoreError
        Scenes or their statistics are missing.
    """
    settings = located(project, project.settings.pretrain)
    members = pool.members(project)
    scenes, *others = (member.scenes for member in members)
    if scenes.statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    key = fingerprint(
        scenes=content(scenes),
        pool=[content(other) for other in others],
        # what changes nothing of the encoder is no reason to begin anew
        settings=project.settings.pretrain.model_dump(mode="json", exclude={"threads", "bad_chunks"}),
        split=project.settings.split,
        start=_content_of_start(project.settings.pretrain, settings),
    )
    done = project.state.fresh("pretrain", key)
    if done is not None and (project.encoders / done.result["encoder"]).exists():
        return StageResult("pretrain", skipped=True)
    # Pinned before the first step: the snapshot outlives an expiry, and a run that goes on sees the same pixels.
    kept = [member.pinned(f"pretrain-{key}") for member in members]
    scenes = kept[0]
    assert scenes.statistics is not None
    loader = pool.loader(project, settings, kept)
    folder = project.encoders / f"unfinished-{key}"
    with project.state.recording("pretrain", key) as result:
        card = pretrain(
            settings,
            loader,
            sensor=scenes.sensor,
            statistics=scenes.statistics,
            snapshot=scenes.snapshot,
            folder=folder,
            watch=watch(project, scenes.statistics, size=settings.chip),
            progress=progress,
        )
        home = project.encoders / card.id
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        folder.rename(home)
        result.update(encoder=card.id, snapshot=card.snapshot, chips=pool.count(loader))
    return StageResult("pretrain", [f"encoder {card.id} from {result['chips']:,} chips", _health(card)])


def watch(project: Project, statistics: Statistics, *, size: int) -> dict[str, Watch]:
    """k-NN accuracy on each task's labels, as columns of the history; nothing where no labels can be used."""
    watched: dict[str, Watch] = {}
    for name in project.settings.tasks:
        try:
            data = project.task_data(name)
            if isinstance(data, TaskData):
                watched[f"knn_{name}"] = OnlineKnn(data, statistics, size=size)
        except (LabelError, StoreError):  # its own stage says what is missing
            continue
    return watched


def located(project: Project, settings: PretrainSettings) -> PretrainSettings:
    """Settings whose ``init`` names the encoder's very folder: relative to the project file, or the champion's.

    Raises
    ------
    StoreError
        The task has no champion yet.
    """
    init = settings.init
    if init is None or init.weights is not None:
        return settings
    if init.champion is None:
        assert init.encoder is not None, "one of the three is given"
        folder = project.root / init.encoder
    else:
        champion = project.registry.find(init.champion, "champion")
        if champion is None:
            known = ", ".join(project.registry.tasks()) or "none"
            raise StoreError(
                f"pretrain.init: the task {init.champion!r} has no champion (tasks that have one: {known})",
                "leave init out until there is one, or name an encoder's folder in init.encoder",
            )
        folder = project.encoders / str(champion.card["encoder"])
    return settings.model_copy(update={"init": init.model_copy(update={"encoder": folder, "champion": None})})


def _content_of_start(written: PretrainSettings, settings: PretrainSettings) -> str | None:
    """The id of the encoder to start from, where another one makes the training another.

    Not so the champion: each training may bring a new one, and would then be due again at once.
    """
    if written.init is None or written.init.encoder is None or settings.init is None or settings.init.encoder is None:
        return None
    return load_card(settings.init.encoder).id


def _health(card: Card) -> str:
    figures = ", ".join(f"{name} {value:.3g}" for name, value in card.health.items() if isinstance(value, float | int))
    return f"health: {figures}" if figures else "health: not observed"
