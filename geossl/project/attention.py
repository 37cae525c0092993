"""What needs a person: each is a :class:`~geossl.project.notify.Condition` for as long as it lasts."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator

from geossl.cube.arrays import subgroup
from geossl.cube.hold import held_scenes
from geossl.cube.space import human
from geossl.project.needed import unfinished, written
from geossl.project.notify import Condition
from geossl.project.observed import Observed
from geossl.project.project import Project
from geossl.project.trainings import Trainings

NEARLY = 0.03
"""Share of a disk that is little, whatever the growth."""


def conditions(project: Project, now: dt.datetime, observed: Observed) -> list[Condition]:
    """What needs a person now; what failed is told by who saw it fail."""
    return [
        *_stuck(project, now, observed),
        *_full(project, now, observed),
        *_budget(project, now),
        *_held(project),
        *_silence(project, now, observed),
    ]


def free_bytes(project: Project) -> tuple[int, int]:
    """Free bytes on the store's disk, and how large it is."""
    usage = shutil.disk_usage(project.store if project.store.is_dir() else project.root)
    return usage.free, usage.total


def days_to_full(project: Project, now: dt.datetime, observed: Observed) -> float | None:
    """Days until the store's disk is full at the rate of the last weeks; None where it does not grow or is not known."""
    rate = sum(observed.growth(now).values())
    free = free_bytes(project)[0] - project.settings.ingest.reserve
    return max(0.0, free / rate) if rate > 0 else None


def hours(project: Project, now: dt.datetime) -> tuple[float, float | None]:
    """Device-hours of training in this month, and the most that there may be."""
    policy = project.settings.retrain
    return Trainings(project.store).hours(now.date()), None if policy is None else policy.hours


def held(project: Project) -> dict[str, str]:
    """Scenes that are held back → why."""
    name = project.sensor.name
    if not (project.store / "cube").exists():
        return {}
    view = project.cube().view()
    return held_scenes(subgroup(view.root, name)) if name in view.collections() else {}


def _stuck(project: Project, now: dt.datetime, observed: Observed) -> Iterator[Condition]:
    limit = dt.timedelta(hours=project.settings.notify.stuck)
    training = Trainings(project.store).cut_off(project.state.get("pretrain"))
    used, budget = hours(project, now)
    if training is not None and (budget is None or used < budget):
        folders = [*unfinished(project)[-1:], *sorted(Trainings(project.store).folder.glob("[!.]*.json"))[-1:]]
        last = dt.datetime.fromtimestamp(max(map(written, folders), default=0), dt.UTC)
        if now - last > limit:
            yield Condition(
                "stuck",
                "training",
                "a training makes no progress",
                f"It began {training.started[:16]} UTC ({training.why}), and wrote nothing since {last:%Y-%m-%d %H:%M} "
                "UTC. If nothing runs, `geossl retrain` goes on from its last checkpoint; see the log of the flow "
                "geossl-retrain or of the cluster's job.",
                frozenset({training.started}),
            )
    for name, behind in observed.behind.items():
        if now - dt.datetime.fromisoformat(behind.since) > limit:
            yield Condition(
                "stuck",
                f"map {name}",
                f"the map {name} is behind",
                f"Its imagery or model changed before {behind.since[:16]} UTC, and it was not published since "
                f"{behind.published[:16]} UTC. `geossl map` brings it up to date; see the log of the flow "
                "geossl-publish.",
            )


def _full(project: Project, now: dt.datetime, observed: Observed) -> Iterator[Condition]:
    free, total = free_bytes(project)
    days = days_to_full(project, now, observed)
    soon = days is not None and days < project.settings.notify.full
    if soon or free < max(NEARLY * total, project.settings.ingest.reserve):
        rate = sum(observed.growth(now).values())
        when = f"; it grows by {human(rate)} a day, so that ingest stops in {days:.0f} days" if soon else ""
        yield Condition(
            "full",
            "",
            "the disk of the store is nearly full",
            f"{human(free)} of {human(total)} are free at {project.store}{when}. `geossl status` says what takes room, "
            "`geossl maintain --dry-run` what could go; lower `keep:` in the project file, or move to a larger disk.",
        )


def _budget(project: Project, now: dt.datetime) -> Iterator[Condition]:
    used, budget = hours(project, now)
    if budget is not None and used >= budget:
        yield Condition(
            "budget",
            f"{now:%Y-%m}",
            f"the device-hours of {now:%B} are used up",
            f"{used:.1f} of {budget:g} hours. What is to be learnt waits for next month, or raise retrain.hours.",
        )


def _held(project: Project) -> Iterator[Condition]:
    found = held(project)
    if found:
        listed = [f"{scene}: {why}" for scene, why in list(found.items())[:10]]
        more = [f"and {len(found) - 10} more"] if len(found) > 10 else []
        yield Condition(
            "held",
            "",
            "1 scene is held back" if len(found) == 1 else f"{len(found)} scenes are held back",
            "\n".join(
                [
                    "They look like a fault, and neither training nor maps see them:",
                    *listed,
                    *more,
                    "Look at them (`geossl drift`, `geossl scenes`). `geossl drift --release SCENE` lets them be seen.",
                ]
            ),
            frozenset(found),
        )


def _silence(project: Project, now: dt.datetime, observed: Observed) -> Iterator[Condition]:
    days = project.settings.notify.silence
    if days is None or observed.arrived is None:
        return
    arrived = dt.datetime.fromisoformat(observed.arrived)
    if now - arrived > dt.timedelta(days=days):
        yield Condition(
            "silence",
            "",
            f"no new scene since {arrived:%Y-%m-%d}",
            f"Nothing came into the cube for more than {days:g} days. `geossl watch` says what the sources hold; a "
            "dead server or a worker that is not running looks the same. `notify.silence` sets the number of days.",
        )
