"""`geossl labels` and `geossl suggest`: what is labelled, and what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import console, print_json


def labels(
    task: str | None = None,
    *,
    snapshot: str | None = None,
    project: ProjectFile = HERE,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say what is labelled: classes and pixels by training, validation and test blocks, source and version.

    And what became of the file: shapes that overlap, that are too small to hold a pixel's centre, that lie
    outside the imagery, that were repaired or set aside. Labels are put in by `geossl ingest`; each time a file
    changes, the layer gets the next version, and older ones stay readable at their snapshots.

    Parameters
    ----------
    task
        Only this task's.
    snapshot
        As an older snapshot shows them: an id or tag of `geossl cube log`.
    json
        Print it for machines.
    """
    from geossl.project.project import Project
    from geossl.project.stages.labels import lines, listing

    rows = listing(Project.load(project), task, snapshot)
    if json:
        print_json(rows)
    else:
        for row in rows:
            print(*lines(row), sep="\n")
    return 0


def suggest(
    task: str,
    *,
    count: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    out: Path,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Say where the next labels would help a task's model most, as a layer to be filled in QGIS.

    Places are small squares where the model is unsure and that do not look alike, away from what is labelled.
    Open the GeoPackage in QGIS (its style comes with it), switch editing on, choose a class for each square from
    the list, and leave empty what you cannot tell; a square may be moved or cut to what is of one class. A contact
    sheet beside it shows every place. Then name the file as well under the task's `labels.path`:

        labels: { path: [labels.gpkg, next.gpkg], column: class }

    and run `geossl ingest`, `finetune`, and `suggest` again.

    Only ground of training blocks is suggested, never of validation or test blocks: these judge the model, and
    must stay a fair sample of the area. Labels chosen where the model was unsure would make its scores those of
    hard places; and nothing learns from those blocks anyway.

    Parameters
    ----------
    task
        Name of the task in the project file; it needs a model (`geossl finetune`).
    count
        How many places.
    out
        Where the layer goes, such as next.gpkg. A file that exists is never overwritten.
    """
    from geossl.cli.progress import bars
    from geossl.project.project import Project
    from geossl.project.stages.suggest import suggest as stage

    with bars(console(stderr=True)) as progress:
        found = stage(Project.load(project, overrides or []), task, count, out, progress)
    print(*found.lines, sep="\n")
    return 0
