"""`geossl backup` and `geossl restore`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import console, open_project, run_stages


def backup(
    place: str,
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    keep: Annotated[int, Parameter(validator=Number(gte=1))] = 7,
    verify: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Copy the store (cube, encoders, models, registry, maps, samples) elsewhere, while other work goes on.

    The first time everything is copied, later only what is new; each time is a backup of its own, to which
    `geossl restore` can go back. Killed at any moment, it leaves the backups that were there. The project file goes
    with it; imagery and label files do not.

    Parameters
    ----------
    place
        A folder on another disk, which may be copied on by rsync at any time, or s3://bucket/prefix, gs://, az://.
    keep
        So many backups stay, the newest.
    verify
        Copy nothing; read the newest backup again and compare every checksum.
    """
    from geossl.project.stages import backup as stage

    if verify:
        return run_stages(lambda progress: [stage.verify(place, progress)])
    return run_stages(lambda progress: [stage.backup(open_project(project, overrides), place, progress, keep=keep)])


def restore(
    place: str,
    *,
    project: ProjectFile = HERE,
    at: str | None = None,
    show: Annotated[bool, Parameter(["--list"], negative="")] = False,
) -> int:
    """Bring a lost store back from a backup, every checksum compared.

    It overwrites nothing: move a store that is there away first. Interrupted, the same command goes on. A project
    file that is lost as well is written as it was. Afterwards `geossl run` does what was not done at that time.

    Parameters
    ----------
    place
        What `geossl backup` was given.
    at
        An older backup, by its name in `--list`; by default the newest.
    show
        Only list the backups that there are.
    """
    from geossl.project.stages import backup as stage

    if show:
        console().print(stage.table(place))
        return 0
    return run_stages(lambda progress: [stage.restore(project, place, progress, at=at)])
