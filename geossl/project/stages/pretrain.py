"""`geossl pretrain`: an encoder from the imagery in the cube, labelled or not."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from geossl.bands import Statistics
from geossl.downstream.data import TaskData
from geossl.downstream.online import OnlineKnn
from geossl.errors import LabelError, StoreError
from geossl.mirror import Mirror
from geossl.nets.card import Card
from geossl.nets.weights import load_card
from geossl.progress import Progress
from geossl.project import pool
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint
from geossl.train.history import Watch, ignored
from geossl.train.launch import rank
from geossl.train.pretrain import pretrain
from geossl.train.remote.job import Job
from geossl.train.remote.launch import launch
from geossl.train.settings import PretrainSettings


def run(project: Project, progress: Progress, snapshot: str | None = None) -> StageResult:
    """Train an encoder on the single scenes, unless there is one of these scenes and settings.

    Parameters
    ----------
    snapshot:
        Of the cube, whose scenes are learnt from; None: the newest.

    Raises
    ------
    StoreError
        Scenes or their statistics are missing.
    SettingsError
        What learns does not learn from the several sensors of a pool.
    """
    settings = located(project, project.settings.pretrain)
    members = pool.members(project, snapshot)
    scenes, *others = (member.scenes for member in members)
    if scenes.statistics is None:
        raise StoreError(f"collection {scenes.name!r} has no statistics yet", "run `geossl stats` first")
    pool.kinds(settings, [scenes, *others])  # what is refused is refused before anything is kept
    key = fingerprint(
        scenes=content(scenes),
        pool=[content(other) for other in others],
        # what changes nothing of the encoder is no reason to begin anew
        settings=project.settings.pretrain.model_dump(
            mode="json", exclude={"threads", "bad_chunks", "launch", "checkpoints"}
        ),
        split=project.settings.split,
        start=_content_of_start(project.settings.pretrain, settings),
    )
    done = project.state.fresh("pretrain", key)
    if done is not None and (home := project.encoders / done.result["encoder"]).exists():
        _clear(home)
        return StageResult("pretrain", skipped=True)
    # Pinned before the first step: the snapshot outlives an expiry, and a run that goes on sees the same pixels.
    for member in members:
        member.pinned(_tag(key))
    folder = project.encoders / f"unfinished-{key}"
    with project.state.recording("pretrain", key) as result:
        if settings.launch.here:
            found = train(project, settings, key, progress)
        else:
            name = f"geossl-{project.settings.name[:30]}-{key}"
            job = Job(name, project.root, folder / "launch", "geossl.project.rank")
            launched = launch(settings.launch, job, _plan(project, settings, key), progress)
            # of several machines, another one may have come first
            found = launched or project.state.get("pretrain").result  # type: ignore[union-attr]
        result.update(found)
    # Whenever this is cut off, the next run finds the finished training in one of the two places.
    home = project.encoders / result["encoder"]
    try:
        folder.rename(home)
    except OSError:  # an equal one is there
        if not home.exists():
            raise
        shutil.rmtree(folder, ignore_errors=True)
    _clear(home)
    card = load_card(home)
    return StageResult("pretrain", [f"encoder {card.id} from {result['chips']:,} chips", _health(card)])


def train(project: Project, settings: PretrainSettings, key: str, progress: Progress) -> dict[str, Any]:
    """Train on what is pinned under ``key``, here or as one of several ranks; what is recorded of it."""
    scenes = [member.pinned(_tag(key)) for member in pool.members(project)]
    own = scenes[0]
    assert own.statistics is not None
    loader = pool.loader(project, settings, scenes)
    # the first rank alone writes what is watched
    first = rank() == 0
    live = Mirror(project.store, project.settings.name).training(key, settings.model_dump(mode="json"))
    with live if first else contextlib.nullcontext(ignored) as log:
        card = pretrain(
            settings,
            loader,
            sensor=own.sensor,
            statistics=own.statistics,
            snapshot=own.snapshot,
            folder=project.encoders / f"unfinished-{key}",
            pool=pool.kinds(settings, scenes),
            watch=watch(project, own.statistics, size=settings.chip) if first else {},
            log=log,
            progress=progress,
        )
    return {"encoder": card.id, "snapshot": card.snapshot, "chips": pool.count(loader)}


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


def _plan(project: Project, settings: PretrainSettings, key: str) -> dict[str, Any]:
    """What a rank needs to know: the settings as they are now, whatever the project file says by then."""
    whole = project.settings.model_copy(update={"pretrain": settings})
    return {"root": str(project.root), "key": key, "settings": whole.model_dump(mode="json", exclude_unset=True)}


def _tag(key: str) -> str:
    return f"pretrain-{key}"


def _clear(home: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in ("checkpoints", "launch"):
        shutil.rmtree(home / name, ignore_errors=True)


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
