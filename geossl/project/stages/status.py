"""`geossl status`: what exists and since when, how much room is left, and what needs a person."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from rich.table import Table

from geossl.cube.repository import LogEntry
from geossl.cube.scenes import quarantined
from geossl.cube.space import human
from geossl.project import observed
from geossl.project.attention import conditions, days_to_full, free_bytes, held, hours
from geossl.project.notify import open_conditions
from geossl.project.project import Project
from geossl.project.trainings import Trainings

UNATTENDED = dt.timedelta(days=3)
"""How long after the last `geossl maintain` nobody seems to run it any more."""


@dataclass(frozen=True)
class Status:
    """A project at a glance. Times are ISO 8601, UTC."""

    project: str
    snapshot: str | None
    scenes: int
    last_scene: str | None
    """Acquisition of the newest scene."""
    arrived: str | None
    """When a new scene came into the cube last."""
    set_aside: int
    held: int
    """Scenes in the cube that nobody sees, since they look like a fault."""
    maps: dict[str, dict[str, Any]]
    """Task → release, when it was published, since when it is known to be behind (null: it is not), and how many
    scenes came since."""
    champions: dict[str, dict[str, Any]]
    """Task → the version that makes its map, its encoder, and since when it is champion."""
    last_training: dict[str, Any] | None
    hours: float
    """Device-hours of training in this calendar month."""
    budget: float | None
    """The most that there may be in a month; null: no limit is set."""
    stages: list[dict[str, Any]]
    """Stage, when it finished (UTC) and how long it took, in order of time."""
    bytes: dict[str, int]
    """What lies in the store, by kind."""
    growth: dict[str, float]
    """Bytes a day over the last weeks, by kind; empty before `geossl maintain` has run on two days."""
    free: int
    """Bytes free on the store's disk."""
    days_to_full: float | None
    """At that growth; null where it does not grow or is not known."""
    maintained: str | None
    """When `geossl maintain` ran last."""
    attention: list[dict[str, Any]] = field(default_factory=list)
    """What needs a person: kind, what, title, body."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Table:
        table = Table("what", "value", title=f"project {self.project}")
        table.add_row("scenes", f"{self.scenes}, newest {self.last_scene or '–'}, arrived {_minute(self.arrived)}")
        table.add_row("set aside", f"{self.set_aside}" + (" (geossl scenes --quarantined)" if self.set_aside else ""))
        if self.held:
            table.add_row("held back", f"{self.held} (geossl scenes)")
        table.add_row("cube snapshot", self.snapshot or "none yet: geossl ingest")
        for name, found in self.maps.items():
            waiting = f" by {found['waiting']} scenes" if found["waiting"] else ""
            behind = f", behind{waiting} since {_minute(found['behind'])}" if found["behind"] else ""
            table.add_row(f"map {name}", f"{found['release']}, {_minute(found['published'])}{behind}")
        for name, found in self.champions.items():
            table.add_row(f"champion {name}", f"version {found['version']} since {_minute(found['since'])}")
        if self.last_training is not None:
            state = "finished" if self.last_training["finished"] else "not finished"
            table.add_row("last training", f"{_minute(self.last_training['started'])}, {state}")
        if self.hours or self.budget:
            of = f" of {self.budget:g}" if self.budget is not None else ""
            table.add_row("device-hours this month", f"{self.hours:.1f}{of}")
        for kind, size in self.bytes.items():
            rate = self.growth.get(kind, 0)
            grows = f", {'+' if rate > 0 else '−'}{human(abs(rate))} a day" if round(rate) else ""
            table.add_row(f"{kind} on disk", f"{human(size)}{grows}")
        full = f", full in {self.days_to_full:.0f} days" if self.days_to_full is not None else ""
        table.add_row("free on disk", f"{human(self.free)}{full}")
        for stage in self.stages:
            table.add_row(stage["stage"], f"finished {stage['finished'][:19]} UTC in {stage['seconds']:.0f} s")
        for found in self.attention:
            table.add_row("[bold red]needs you[/bold red]", f"{found['title']}\n{found['body']}")
        return table

    def prometheus(self) -> str:
        """The same in Prometheus' text format, for its node exporter's textfile collector or a scrape."""
        registry = CollectorRegistry()
        gauges: dict[str, Gauge] = {}
        for name, about, labels, value in self._metrics():
            if name not in gauges:
                gauges[name] = Gauge(f"geossl_{name}", about, ["project", *labels], registry=registry)
            gauges[name].labels(self.project, *labels.values()).set(value)
        return generate_latest(registry).decode()

    def _metrics(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        """Name, meaning, labels and value; what is not known is left out."""
        yield "scenes", "Scenes in the cube", {}, self.scenes
        yield "scenes_held", "Scenes that are held back", {}, self.held
        yield "scenes_set_aside", "Inputs that could not be ingested", {}, self.set_aside
        times: list[tuple[str, str, dict[str, str], str | None]] = [
            ("last_scene", "Acquisition of the newest scene", {}, self.last_scene),
            ("last_arrival", "When a new scene came into the cube last", {}, self.arrived),
            ("last_maintained", "When geossl maintain ran last", {}, self.maintained),
            ("last_training", "Start of the last training", {}, (self.last_training or {}).get("started")),
            *(
                ("map_published", "When a map was published last", {"map": name}, found["published"])
                for name, found in self.maps.items()
            ),
            *(
                ("champion_since", "Since when a task has its champion", {"task": name}, found["since"])
                for name, found in self.champions.items()
            ),
        ]
        for name, about, labels, time in times:
            if time is not None:
                yield f"{name}_timestamp_seconds", f"{about}, in seconds since 1970", labels, _seconds(time)
        for name, found in self.maps.items():
            yield (
                "map_behind",
                "Whether a map is not of the newest imagery or model",
                {"map": name},
                bool(found["behind"]),
            )
            yield "map_waiting_scenes", "Scenes that came since a map was made", {"map": name}, found["waiting"]
        for name, found in self.champions.items():
            yield "champion_version", "Version that makes a task's map", {"task": name}, found["version"]
        yield "training_device_hours", "Device-hours of training in this month", {}, self.hours
        if self.budget is not None:
            yield "training_device_hours_limit", "Most device-hours of training in a month", {}, self.budget
        for kind, size in self.bytes.items():
            yield "store_bytes", "Bytes in the store", {"kind": kind}, size
        for kind, rate in self.growth.items():
            yield "store_growth_bytes_per_day", "Growth over the last weeks", {"kind": kind}, rate
        yield "disk_free_bytes", "Bytes free on the store's disk", {}, self.free
        if self.days_to_full is not None:
            yield "disk_full_days", "Days until the store's disk is full at that growth", {}, self.days_to_full
        yield "attention", "How many things need a person", {}, len(self.attention)
        for found in self.attention:
            labels = {"kind": found["kind"], "what": found["what"]}
            yield "needs_attention", "Something that needs a person", labels, 1


def status(project: Project, *, now: dt.datetime | None = None) -> Status:
    """Look at the store; nothing is computed and nothing is written."""
    now = now or dt.datetime.now(dt.UTC)
    records = [{"stage": r.stage, "finished": r.finished, "seconds": r.seconds} for r in project.state.records()]
    before = observed.read(project)
    snapshot, scenes, last, set_aside = None, 0, None, 0
    log: list[LogEntry] = []
    if (project.store / "cube").exists():
        cube = project.cube()
        view, log = cube.view(), cube.log()
        snapshot, set_aside = view.snapshot, len(quarantined(view, project.sensor.name))
        if project.sensor.name in view.collections():
            collection = view.collection(project.sensor.name)
            collection.load("scene_id", "time")
            found = {
                scene: time
                for tile_id in collection.tile_ids
                for scene, time in zip(collection.scene_ids(tile_id), collection.times(tile_id), strict=True)
            }
            scenes = len(found)
            last = str(max(found.values()).astype("datetime64[s]")) if found else None
        before.see(log, project.sensor.name)
    trainings = Trainings(project.store).all()
    used, budget = hours(project, now)
    return Status(
        project=project.settings.name,
        snapshot=snapshot,
        scenes=scenes,
        last_scene=last,
        arrived=before.arrived,
        set_aside=set_aside,
        held=len(held(project)),
        maps=dict(_maps(project, before, log)),
        champions=dict(_champions(project)),
        last_training=asdict(trainings[-1]) if trainings else None,
        hours=used,
        budget=budget,
        stages=records,
        bytes=observed.store_bytes(project.store) if project.store.is_dir() else {},
        growth=before.growth(now),
        free=free_bytes(project)[0],
        days_to_full=days_to_full(project, now, before),
        maintained=max(before.sizes, default=None),
        attention=_attention(project, now, before),
    )


def _maps(project: Project, before: observed.Observed, log: Sequence[LogEntry]) -> Iterator[tuple[str, dict[str, Any]]]:
    behind = observed.maps_behind(project)
    counts = [entry.scenes.get(project.sensor.name, 0) for entry in log]
    tagged = {tag: count for entry, count in zip(log, counts, strict=True) for tag in entry.tags}
    for record in project.state.records():
        kind, _, name = record.stage.partition(".")
        if kind == "map":
            since = before.behind[name].since if name in before.behind else record.finished
            release = str(record.result["release"]).rpartition("/")[2]
            yield (
                name,
                {
                    "release": release,
                    "published": record.finished,
                    "behind": since if name in behind else None,
                    "waiting": counts[0] - tagged.get(f"map-{name}-{release}", 0) if name in behind and counts else 0,
                },
            )


def _champions(project: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    for task in project.registry.tasks():
        champion = project.registry.find(task, "champion")
        if champion is None:
            continue
        since = champion.created
        for change in reversed(project.registry.history(task)):
            if change["aliases"].get("champion") != champion.number:
                break
            since = change["time"]
        yield task, {"version": champion.number, "since": since, "encoder": champion.card.get("encoder") or None}


def _attention(project: Project, now: dt.datetime, before: observed.Observed) -> list[dict[str, Any]]:
    """What needs a person: what is seen now, and what failed and did not succeed since."""
    found = [
        {"kind": each.kind, "what": each.what, "title": each.title, "body": each.body}
        for each in conditions(project, now, before)
    ]
    found += [
        {key: noted[key] for key in ("kind", "what", "title", "body")}
        for noted in open_conditions(project)
        if noted["kind"] == "failed"
    ]
    last = max(before.sizes, default=None)
    if last is not None and now - dt.datetime.fromisoformat(last) > UNATTENDED:
        found.append(
            {
                "kind": "stuck",
                "what": "maintain",
                "title": "geossl maintain does not run any more",
                "body": f"It ran last on {last[:10]}. Is the Prefect server up, and a worker? `geossl maintain` from "
                "cron does as well.",
            }
        )
    return found


def _seconds(time: str) -> float:
    found = dt.datetime.fromisoformat(time)
    return (found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)).timestamp()


def _minute(time: str | None) -> str:
    return "–" if time is None else f"{time[:16].replace('T', ' ')} UTC"
