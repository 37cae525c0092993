"""Verbs of a project that runs by itself: `geossl maintain`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import open_project, run_stage


def maintain(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Delete what nothing needs any more, and tell whoever is to be told what needs a person. Run it once a day.

    Old snapshots of the cube, models and encoders that were replaced, checkpoints of trainings that were given up,
    embeddings by older encoders, pictures beyond a number, and what killed runs left half written. What a champion,
    previous, anchor or challenger, a published map or alert, a sample or a release rests on is never deleted, and
    nothing that was needed within the last 7 days. `keep:` in the project file says how much more stays.

    Messages go to the addresses in the environment variable GEOSSL_NOTIFY, as Apprise writes them, separated by
    spaces: `json://host:8080/hook` (a webhook), `mailtos://user:password@example.org` (an e-mail). Each thing is told
    once, and once more when it is over.

    Parameters
    ----------
    dry_run
        Only say what would go, and how many bytes that are. Tells nobody.
    """
    if not dry_run:
        return run_stage("maintain", project, overrides)
    from geossl.project.stages.maintain import plan

    for line in plan(open_project(project, overrides)).lines() or ["nothing would go"]:
        print(line)
    return 0
