"""Verbs that look: `geossl status`, `scenes`, `doctor`, `embed`, `drift`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import SET_ASIDE, console, open_project, print_json, run_stage

ATTENTION = 5
"""Exit code of a check that found something that needs a person."""


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
        from geossl.project.stages import run

        code = SET_ASIDE if run.stage("drift")(opened, silent).set_aside else 0
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
    prometheus: Annotated[bool, Parameter(negative="")] = False,
    check: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say what exists and since when, how much disk it takes and for how long that lasts, and what needs you.

    Nothing is computed, and no server is asked: it answers where Prefect and MLflow are dead.

    Parameters
    ----------
    json
        Print it for machines.
    prometheus
        Print it in Prometheus' text format, such as for the textfile collector of its node exporter.
    check
        Print only what needs a person, and end with exit code 5 if anything does: nothing comes in, a training or map
        does not move, the disk is nearly full, the month's device-hours are used up, scenes are held back, a flow
        failed and did not succeed since, or `geossl maintain` does not run any more. For cron.
    """
    from geossl.project.stages.status import status as stage

    found = stage(open_project(project, overrides))
    if json:
        print_json(found.to_dict())
    elif prometheus:
        print(found.prometheus(), end="")
    elif check:
        for each in found.attention:
            print(f"{each['title']}\n  {each['body']}")
    else:
        console().print(found.table())
    return ATTENTION if check and found.attention else 0


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
