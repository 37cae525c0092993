"""Putting a project's flows on a Prefect server, and taking them off again.

A server is a guest house: whatever is put there carries the project's name, and nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.deploy_changes import Change, Found, changes
from flows.deploy_server import Server, connected
from flows.deploy_wanted import Thing, pools, wanted
from geossl.errors import SettingsError
from geossl.project.load import FILE_NAME
from geossl.project.project import Project


def deploy(
    project_file: Path, overrides: Sequence[str] = (), *, dry_run: bool = False, moved: bool = False
) -> Iterator[str]:
    """Make the server hold what ``infra/prefect.yaml`` and the project file say; doing it again changes nothing.

    Parameters
    ----------
    project_file:
        The project file or its folder, as workers will see it.
    overrides:
        ``key.path=value`` settings that win over the file, here and in every run.
    dry_run:
        Only say what would change.
    moved:
        Take over what was deployed from another path.

    Yields
    ------
    What was done, or would be, a line each.

    Raises
    ------
    SettingsError
        No suitable server answers, or a project of the same name lies there that is not this one.
    """
    path = _absolute(project_file)
    settings = Project.load(path, overrides).settings
    with connected(settings.name) as server:
        things = wanted(settings, path, list(overrides))
        found = server.found(_queues(things))
        if not moved:
            _require_this(path, found, settings.name)
        foreign = {thing.name for thing in things if thing.kind == "work pool" and server.foreign_pool(thing.name)}
        things = [thing for thing in things if thing.kind != "work pool" or thing.name not in foreign]
        yield from _do(server, _without_shared_pools(changes(things, found), server), dry_run=dry_run)
        if not dry_run:
            for pool in dict.fromkeys(pools(settings)):
                if not server.online(pool):
                    yield f"no worker is at work: prefect worker start --pool {pool}"


def undeploy(
    project_file: Path, overrides: Sequence[str] = (), *, dry_run: bool = False, moved: bool = False
) -> Iterator[str]:
    """Remove from the server what was put there for a project; its store, and the history of its runs, are kept.

    Parameters and errors are those of :func:`deploy`.
    """
    path = _absolute(project_file)
    settings = Project.load(path, overrides).settings
    with connected(settings.name) as server:
        found = server.found(_queues(wanted(settings, path)))
        if not moved:
            _require_this(path, found, settings.name)
        yield from _do(server, _without_shared_pools(changes([], found), server), dry_run=dry_run)
        if not dry_run:
            names = {one.thing.name.split("/")[0] for one in found if one.thing.kind == "deployment"}
            for flow in server.remove_idle_flows(names):
                yield f"removed flow {flow}, which nothing uses any more"


def _do(server: Server, plan: list[Change], *, dry_run: bool) -> Iterator[str]:
    for change in plan:
        if not dry_run:
            server.do(change)
        yield from change.lines(done=not dry_run)
    if not plan:
        yield "nothing to change"


def _absolute(project_file: Path) -> Path:
    path = project_file.resolve()
    return path / FILE_NAME if path.is_dir() else path


def _queues(things: list[Thing]) -> set[str]:
    return {thing.name for thing in things if thing.kind == "work queue"}


def _require_this(path: Path, found: list[Found], project: str) -> None:
    for one in found:
        there = one.thing.fields.get("parameters", {}).get("project_file")
        if there is not None and there != str(path):
            raise SettingsError(
                f"a project {project} is already on this server, from {there}; this one is {path}",
                "give one of them another `name:`; or, if the project was moved, say --moved",
            )


def _without_shared_pools(plan: list[Change], server: Server) -> list[Change]:
    """Leave a pool that was made for this project where others have moved into it."""

    def shared(change: Change) -> bool:
        return change.verb == "remove" and change.thing.kind == "work pool" and server.others_in(change.thing.name) > 0

    return [change for change in plan if not shared(change)]
