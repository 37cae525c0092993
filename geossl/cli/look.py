"""Verbs that look: `geossl status`, `scenes`, `doctor`, `embed`, `drift`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import SET_ASIDE, console, open_project, print_json, run_stage


def embed(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Let the encoder describe every chip of every scene, as GeoParquet and for `geossl search`. Only new scenes are added."""
    return run_stage("embed", project, overrides)


def drift(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    release: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say whether the scenes since the last training look different, and whether that is the land or a fault.

    Scenes that look like a fault (offset, gain, haze, stripes, misplaced) are held back: they stay in the
    cube, and neither training nor maps see them until they are released. A picture and all figures are
    written below store/drift.

    Parameters
    ----------
    release
        Let held scenes (ids) be seen again; they are not held a second time.
    json
        Print the figures for machines; null where there is nothing to compare with yet.
    """
    from geossl.project.stages import drift as stage

    opened = open_project(project, overrides)
    if release:
        done = stage.let_go(opened, release)
        print(f"released {', '.join(done) or 'none: they were not held'}")
        return 0
    if json:
        from geossl.progress import silent

        code = SET_ASIDE if stage.run(opened, silent).set_aside else 0
        print_json(stage.figures(opened))
        return code
    code = run_stage("drift", project, overrides)
    if (found := stage.figures(opened)) is not None:
        console().print(stage.table(found))
    return code


def status(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say what exists, when it was made, and how much disk it takes.

    Parameters
    ----------
    json
        Print it for machines.
    """
    from geossl.project.stages.status import status as stage

    found = stage(open_project(project, overrides))
    if json:
        print_json(found.to_dict())
    else:
        console().print(found.table())
    return 0


def scenes(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    quarantined: Annotated[bool, Parameter(negative="")] = False,
    snapshot: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List the scenes in the cube with their clear fraction, the newest last.

    Parameters
    ----------
    quarantined
        List what was set aside instead, with the reasons.
    snapshot
        As an older snapshot shows them: an id or tag of `geossl cube log`.
    json
        Print it for machines.
    """
    from geossl.project.stages import scenes as stage

    opened = open_project(project, overrides)
    if json:
        rows = stage.quarantine_rows(opened, snapshot) if quarantined else stage.scene_rows(opened, snapshot)
        print_json([row.to_dict() for row in rows])
    else:
        table = stage.quarantine_table if quarantined else stage.scene_table
        console().print(table(opened, snapshot))
    return 0


def doctor(*, project: ProjectFile | None = None) -> int:
    """Check versions, GDAL drivers, GPU, disk and stores, and say what to do."""
    from geossl.project.stages.doctor import doctor as stage

    table, healthy = stage(project)
    console().print(table)
    return 0 if healthy else 1
