"""`geossl history`: the versions of every task's model, and how each came to make the maps or not."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from geossl.errors import StoreError
from geossl.project.project import Project
from geossl.registry import Registry


def history_dict(project: Project, task: str | None = None) -> dict[str, Any]:
    """Task → versions, aliases, changes of the aliases, and gate decisions; JSON-ready."""
    registry = project.registry
    return {
        name: {
            "aliases": registry.aliases(name),
            "versions": [version.to_dict() for version in registry.versions(name)],
            "changes": registry.history(name),
            "decisions": registry.decisions(name),
        }
        for name in _tasks(registry, task)
    }


def history_tables(project: Project, task: str | None = None) -> list[Table]:
    """For each task, a table of versions and one of changes."""
    tables = []
    for name in _tasks(project.registry, task):
        aliases: dict[int, list[str]] = {}
        for alias, number in project.registry.aliases(name).items():
            aliases.setdefault(number, []).append(alias)
        decisions = {entry["challenger"]: entry["decision"] for entry in project.registry.decisions(name)}
        versions = Table("version", "is", "learnt", "encoder", "model", "gate", title=name)
        for version in project.registry.versions(name):
            versions.add_row(
                str(version.number),
                ", ".join(aliases.get(version.number, ())),
                version.created[:16].replace("T", " "),
                str(version.card.get("encoder") or "–"),
                str(version.card.get("id", version.folder)),
                _decision(decisions.get(version.number)),
            )
        changes = Table("time (UTC)", "champion", "anchor", "why", title=f"{name}: what changed")
        for entry in project.registry.history(name):
            now = entry["aliases"]
            changes.add_row(
                entry["time"][:16].replace("T", " "),
                str(now.get("champion", "–")),
                str(now.get("anchor", "–")),
                entry["why"],
            )
        tables += [versions, changes]
    return tables


def _tasks(registry: Registry, task: str | None) -> list[str]:
    known = registry.tasks()
    if task is not None and task not in known:
        raise StoreError(
            f"no task {task!r} has a model (tasks that have one: {', '.join(known) or 'none'})", "geossl finetune"
        )
    return known if task is None else [task]


def _decision(decision: dict[str, Any] | None) -> str:
    if decision is None:
        return "–"
    if not decision["passed"]:
        return "refused: " + "; ".join(decision["reasons"])
    found = decision["champion"]
    return f"passed: {decision['metric']} {found['mean']:+.3f} ({found['low']:+.3f} … {found['high']:+.3f})"
