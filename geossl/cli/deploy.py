"""`geossl deploy | undeploy`: a project's flows on a Prefect server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile

DryRun = Annotated[bool, Parameter(negative="", help="Only say what would be added, changed and removed.")]
Moved = Annotated[
    bool, Parameter(negative="", help="The project file was moved: take over what was deployed from elsewhere.")
]


def deploy(
    *, project: ProjectFile = HERE, overrides: Overrides = None, dry_run: DryRun = False, moved: Moved = False
) -> int:
    """Put this project's flows on the Prefect server that PREFECT_API_URL names, with schedules and triggers.

    New scenes are then looked for every 15 minutes; what comes in is ingested, judged, learnt from where `retrain:`
    says so, and mapped. Other hours, pools and attempts are said by `deploy:` in the project file. Nothing on the
    server is touched but what carries this project's name, and doing it again changes nothing.

    A server that asks for a password gets the one in PREFECT_API_AUTH_STRING (`user:password`).
    """
    from flows.deploy import deploy as register

    return _print(register(project, overrides or [], dry_run=dry_run, moved=moved))


def undeploy(
    *, project: ProjectFile = HERE, overrides: Overrides = None, dry_run: DryRun = False, moved: Moved = False
) -> int:
    """Take this project's flows off the Prefect server again, and nothing else. The store stays as it is."""
    from flows.deploy import undeploy as remove

    return _print(remove(project, overrides or [], dry_run=dry_run, moved=moved))


def _print(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return 0
