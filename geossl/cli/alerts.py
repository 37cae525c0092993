"""`geossl alerts`: alerts of cleared forest from every new scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import console, open_project, run_stage, run_stages

alerts = App(
    name="alerts",
    group="Stages, in order",
    sort_key=8,
    help="""Raise, confirm and withdraw alerts of cleared forest, scene by scene.

Each monitor of the project file (`alerts:`) follows every scene that it has not seen yet; a scene that comes
late finds its place. One clear look *detects*, a second one *confirms*; looks that see forest withdraw. No
label is needed; a land-cover task makes the forest before monitoring better. A typical round:

    geossl alerts               rasters of date and status, polygons
    qgis store/alerts/*/latest/*.gpkg      set `review` and `reason`
    geossl alerts review FILE   into the cube, as versioned labels
    geossl alerts --score       commission, omission, delay by month""",
    help_format="markdown",
)


@alerts.default
def update(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    score: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Bring all alerts up to date with the scenes in the cube; only tiles with new scenes are made again.

    Parameters
    ----------
    score
        Then print commission, omission and delay per month, against each monitor's `reference`.
    """
    code = run_stage("alerts", project, overrides)
    if score:
        from geossl.cli.progress import bars
        from geossl.project.stages.alerts_score import scores, tables

        out = console()
        with bars(out) as progress:
            found = scores(open_project(project, overrides), progress)
        for name, of_monitor in found.items():
            for part in tables(name, of_monitor):
                out.print(part, highlight=False)
    return code


@alerts.command
def review(file: Path, *, project: ProjectFile = HERE) -> int:
    """Read verdicts from polygons that were judged in QGIS.

    They are checked and kept as change labels in the cube's history. Later updates respect them: a confirmed
    patch stays; a rejected one is not raised again but by images newer than those it was judged by, and where
    the reason is `not forest before`, never.

    Parameters
    ----------
    file
        The GeoPackage of alerts with its columns `review` (confirmed, rejected) and `reason`.
    """
    from geossl.project.stages.alerts import review as stage

    return run_stages(lambda progress: [stage(open_project(project), file, progress)])
