"""What has to be added, changed and removed, so that a server holds what it should, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from flows.deploy_wanted import KINDS, Thing

Verb = Literal["add", "change", "remove"]
_DONE: dict[Verb, str] = {"add": "added", "change": "changed", "remove": "removed"}
_NAMES = {
    "parameter_openapi_schema": "form",
    "work_pool_name": "work pool",
    "work_queue_name": "work queue",
    "concurrency_limit": "runs at a time",
    "job_variables": "job",
}
_SHORT = 100
"""Characters of a value that are still shown whole."""


@dataclass(frozen=True)
class Found:
    """One object of a project that lies on the server."""

    thing: Thing
    id: UUID


@dataclass(frozen=True)
class Change:
    """One thing to do on a server."""

    verb: Verb
    thing: Thing
    """What there will be; of a removal, what there is."""
    found: Found | None = None
    """What there is."""

    @property
    def fields(self) -> list[str]:
        """Which fields a change touches."""
        if self.found is None or self.verb != "change":
            return []
        old, new = self.found.thing.fields, self.thing.fields
        return [name for name in new if old.get(name) != new[name]]

    def lines(self, *, done: bool) -> Iterator[str]:
        """In plain words: what would be done, or was."""
        verb = _DONE[self.verb] if done else f"would {self.verb}"
        yield f"{verb} {self.thing.kind} {self.thing.name}"
        for name in self.fields:
            old = dict(_leaves(name, self.found.thing.fields.get(name) if self.found else None))
            new = dict(_leaves(name, self.thing.fields[name]))
            for leaf in dict.fromkeys([*old, *new]):
                if old.get(leaf) != new.get(leaf):
                    yield f"    {_title(leaf)}: {_said(old.get(leaf))} → {_said(new.get(leaf))}"


def changes(wanted: Sequence[Thing], found: Sequence[Found]) -> list[Change]:
    """What leads from what was found to what is wanted, in an order in which it can be done."""
    there: dict[tuple[str, str], Found] = {}
    doubled = []
    for one in found:
        key = (one.thing.kind, one.thing.name)
        if key in there:
            doubled.append(one)
        else:
            there[key] = one
    plan = []
    for thing in wanted:
        if (old := there.pop((thing.kind, thing.name), None)) is None:
            plan.append(Change("add", thing))
        elif (change := Change("change", thing, old)).fields:
            plan.append(change)
    removed = [Change("remove", old.thing, old) for old in (*there.values(), *doubled)]
    return plan + sorted(removed, key=lambda change: -KINDS.index(change.thing.kind))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _leaves(f"{name}.{key}", value[key])
    else:
        yield name, value


def _title(leaf: str) -> str:
    first, dot, rest = leaf.partition(".")
    return _NAMES.get(first, first.replace("_", " ")) + dot + rest


def _said(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list) and all(
        isinstance(entry, Mapping) and {"cron", "interval"} & set(entry) for entry in value
    ):
        return ", ".join(schedule(entry) for entry in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def schedule(fields: Mapping[str, Any]) -> str:
    """A schedule in words: ``every 15 min``, ``0 3 * * * (UTC)``."""
    if "cron" in fields:
        return f"{fields['cron']} ({fields.get('timezone', 'UTC')})"
    seconds = int(fields["interval"])
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"every {seconds // size} {unit}"
    return f"every {seconds} s"
