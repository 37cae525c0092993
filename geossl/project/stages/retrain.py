"""`geossl retrain`: learn again when it is worth it, and let a new model make maps only if it is provably not worse.

States are compared, nothing is counted: the imagery in the cube with what the last training has seen, and each
task's last model with the newest encoder. So it does not matter how often, how late or after which crash it runs.
A training that was cut off goes on with the snapshot it began with, whatever has come in since.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
from scipy.stats import binomtest

from geossl.cube.collection import Collection
from geossl.downstream.compare import gate_counts, gate_metric
from geossl.downstream.data import TaskData
from geossl.downstream.task import load_task
from geossl.errors import LabelError, RadiometryError, SettingsError, StoreError
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.settings import RetrainSettings
from geossl.project.stages import drift, evaluate, finetune, pretrain
from geossl.project.trainings import Training, Trainings
from geossl.registry import Decision, Version, gate

DRIFT_BY_CHANCE = 0.01
"""Training is due by drift where so many unusual scenes would come about by chance no more often than this."""


def run(project: Project, progress: Progress) -> StageResult:
    """Train a challenger of the encoder and of every task, where the policy says so, and gate them.

    Raises
    ------
    SettingsError
        The project file has no policy.
    """
    policy = project.settings.retrain
    if policy is None:
        raise SettingsError(
            "the project file has no `retrain`, which says when to learn again and at what cost at most",
            "add `retrain: {hours: 20}` and `split: {gate: 0.1}`; or learn by hand: geossl pretrain, geossl finetune",
        )
    trained, lines = _encoder(project, policy, progress)
    if project.state.get("pretrain") is not None:
        lines += _score(project, progress)
        for name in project.settings.tasks:
            done = _task(project, name, policy, progress)
            lines += done
            trained = trained or bool(done)
    return StageResult("retrain", lines, skipped=not trained)


def due(project: Project, policy: RetrainSettings) -> tuple[str | None, str]:
    """Why the encoder is to be trained again, or None; and how things stand, for people."""
    record = project.state.get("pretrain")
    if record is None:
        return "there is no encoder yet", "no encoder yet"
    now = project.scenes()
    try:
        then = project.cube().view(str(record.result["snapshot"])).collection(now.name)
    except StoreError:
        return f"the snapshot of {record.result['encoder']} is gone", "what the encoder was trained on is gone"
    new, seen = _clear_pixels(now, without=then), _clear_pixels(then)
    share = new / seen if seen else float(new > 0)
    age = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(record.finished)).total_seconds() / 86400
    state = f"{share:.1%} new clear imagery since the last training, {age:.1f} days ago"
    if new and share >= policy.new_pixels:
        return f"{share:.1%} new clear imagery, at least {policy.new_pixels:.1%}", state
    if new and policy.days is not None and age >= policy.days:
        return f"{age:.1f} days since the last training, at least {policy.days:g}, and new imagery", state
    moved = project.state.get("drift")
    if new and moved is not None and moved.result["encoder"] == record.result["encoder"]:
        unusual, judged, rate = (moved.result[name] for name in ("unusual", "judged", "promised"))
        if unusual and binomtest(unusual, judged, rate, alternative="greater").pvalue < DRIFT_BY_CHANCE:
            return f"{unusual} of {judged} new scenes look different, where {rate:.0%} would by chance", state
    return None, state


def _encoder(project: Project, policy: RetrainSettings, progress: Progress) -> tuple[bool, list[str]]:
    """Train the encoder where it is due and paid for; whether it was, and lines for people."""
    log = Trainings(project.store)
    unfinished = _cut_off(project, log)
    why, state = (unfinished.why, "") if unfinished is not None else due(project, policy)
    if why is None:
        return False, [f"not due: {state}"]
    today = dt.datetime.now(dt.UTC).date()
    if (used := log.hours(today)) >= policy.hours:
        return False, [
            f"due ({why}), but {used:.1f} of {policy.hours:g} device-hours of {today:%B} are used up: it waits for "
            "next month, or raise retrain.hours"
        ]
    lines: list[str] = []
    if unfinished is not None:
        snapshot = unfinished.snapshot
    elif project.state.get("pretrain") is None:
        snapshot = project.cube().snapshot()
    else:
        snapshot, lines = drift.judged(project, progress)
    devices = project.settings.pretrain.launch.devices
    with log.running(why, snapshot, devices, progress) as watched:
        result = pretrain.run(project, watched, snapshot)
    if result.skipped:
        return False, [*lines, f"trained already on what there is ({why})"]
    return True, [*lines, f"trained: {why}", *result.lines]


def _score(project: Project, progress: Progress) -> list[str]:
    """Score the newest encoder, unless that was done; new imagery alone is no reason."""
    done = project.state.get("evaluate")
    if done is not None and done.result["encoder"] == project.encoder_folder().name:
        return []
    return evaluate.run(project, progress).lines


def _cut_off(project: Project, log: Trainings) -> Training | None:
    """The last training, if it did not come to its end and can still go on."""
    last = log.cut_off(project.state.get("pretrain"))
    if last is None:
        return None
    try:
        project.cube().view(last.snapshot)
    except StoreError:  # expired: nothing to go on with
        return None
    return last


def _clear_pixels(scenes: Collection, without: Collection | None = None) -> float:
    """Clear pixels of all steps, but for those of scenes that another collection holds in the same revision."""
    total = 0.0
    known = set(without.tile_ids) if without is not None else set()
    for tile_id in scenes.tile_ids:
        height, width = scenes.tile(tile_id).shape
        clear = scenes.clear_fraction(tile_id) * (height * width)
        if without is not None and tile_id in known:
            old = set(zip(without.scene_ids(tile_id), without.checksums(tile_id), strict=True))
            here = zip(scenes.scene_ids(tile_id), scenes.checksums(tile_id), strict=True)
            clear = clear[np.array([pair not in old for pair in here], bool)]
        total += float(clear.sum())
    return total


def _task(project: Project, name: str, policy: RetrainSettings, progress: Progress) -> list[str]:
    """Learn a task from the newest encoder, unless that was done, and decide what becomes of it."""
    project.registry.abide(name)
    lines = finetune.challenge(project, name, progress)
    challenger = project.registry.find(name, "challenger")
    if challenger is not None and not project.registry.decided(name, challenger.number):
        decision = compare(project, name, challenger, policy, progress)
        if decision is None:
            project.registry.promote(name, challenger.number, why="there are no labels to compare by")
            lines.append(f"{name}: version {challenger.number} makes the maps (there are no labels to compare by)")
        else:
            project.registry.decide(name, challenger.number, decision)
            lines += [f"{name}: version {challenger.number} {line}" for line in verdict(decision)]
    finetune.settle(project, name)
    return lines


def compare(
    project: Project, name: str, challenger: Version, policy: RetrainSettings, progress: Progress
) -> Decision | None:
    """The gate's decision on a version; None where the task has no labels."""
    data = project.task_data(name)
    if not isinstance(data, TaskData):
        return None
    versions = {"challenger": challenger}
    for alias in ("champion", "anchor"):
        found = project.registry.find(name, alias)
        assert found is not None, "the first version of a task is champion and anchor"
        versions[alias] = found
    models = {alias: load_task(project.store / version.folder) for alias, version in versions.items()}
    try:
        counts = gate_counts(data, models, every=project.settings.evaluate.every, progress=progress)
    except (LabelError, RadiometryError) as error:
        metric = gate_metric(models["challenger"])
        return Decision.refused(f"{error.what}; {error.remedy}", metric=metric, margin=policy.margin)
    return gate(
        counts["challenger"],
        counts["champion"],
        counts["anchor"],
        healthy=True,  # a training that collapses leaves no encoder
        metric=gate_metric(models["challenger"]),
        margin=policy.margin,
    )


def verdict(decision: Decision) -> list[str]:
    """A decision for people."""
    if not decision.passed:
        return [f"does not replace the champion: {reason}" for reason in decision.reasons]
    low, mean = decision.champion.low, decision.champion.mean
    return [
        f"is the champion now: {decision.metric} {mean:+.4f} against the one before, at least {low:+.4f} by the 95 % "
        f"interval over {decision.blocks} gate blocks"
    ]
