"""`geossl promote | rollback | anchor | history | registry`: which model of a task makes the maps, and why."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Group, Parameter

from geossl.cli.options import HERE, ProjectFile
from geossl.cli.say import console, open_project, print_json

_group = Group("Which model makes the maps", sort_key=5)

Why = Annotated[str, Parameter(help="Kept in the history, for whoever asks later.")]


registry = App(name="registry", help="The registry of models itself.", group=_group)


def add_to(app: App) -> None:
    """Add the verbs to the command line."""
    for verb in (promote, rollback, anchor, history):
        app.command(verb, group=_group)
    app.command(registry)


@registry.command
def rebuild(*, project: ProjectFile = HERE) -> int:
    """Make what MLflow shows of the models anew from the store, after its database was lost or damaged.

    The store's own files are the truth: versions, aliases, decisions and history. MLflow's pages (a database in the
    store, or the server that MLFLOW_TRACKING_URI names) only show them, and are dropped and made again.
    """
    tasks = open_project(project).registry.rebuild()
    print(f"MLflow shows again: {', '.join(tasks)}" if tasks else "no task has a model yet: there is nothing to show")
    return 0


def promote(task: str, version: int, *, why: Why, project: ProjectFile = HERE) -> int:
    """Make a version of a task's model the champion, whatever the gate said. The next `geossl map` uses it.

    Parameters
    ----------
    task
        Name of the task in the project file.
    version
        Its number in `geossl history`.
    """
    opened = open_project(project)
    opened.require_model(task, version)
    opened.registry.promote(task, version, why=why)
    print(f"{task}: version {version} is the champion. `geossl map` maps with it.")
    return 0


def rollback(task: str, *, why: Why, project: ProjectFile = HERE) -> int:
    """Make the champion before the present one the champion again.

    Parameters
    ----------
    task
        Name of the task in the project file.
    """
    version = open_project(project).registry.rollback(task, why=why)
    print(f"{task}: version {version.number} is the champion again. `geossl map` maps with it.")
    return 0


def anchor(task: str, version: int, *, why: Why, project: ProjectFile = HERE) -> int:
    """Move the anchor: the version that no champion may ever be worse than by more than the margin.

    It stops many small losses from adding up. No flow moves it.

    Parameters
    ----------
    task
        Name of the task in the project file.
    version
        Its number in `geossl history`.
    """
    opened = open_project(project)
    opened.require_model(task, version)
    opened.registry.pin_anchor(task, version, why=why)
    print(f"{task}: version {version} is the anchor.")
    return 0


def history(
    task: str | None = None,
    *,
    project: ProjectFile = HERE,
    json: Annotated[bool, Parameter(negative="", help="Print it for machines.")] = False,
) -> int:
    """List the versions of every task's model, what the gate said of them, and which one makes the maps.

    Parameters
    ----------
    task
        Only this one.
    """
    from geossl.project.stages.history import history_dict, history_tables

    opened = open_project(project)
    if json:
        print_json(history_dict(opened, task))
        return 0
    for table in history_tables(opened, task):
        console().print(table)
    return 0
