"""`geossl sample`, `area`, `release`: figures that one can publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import console, open_project

CHANGED = 4
"""Exit code where a release is not as it was released."""


def sample(
    map: str,
    /,
    *,
    error: float = 0.01,
    size: int | None = None,
    minimum: int = 50,
    allocation: Literal["proportional", "neyman"] = "proportional",
    around: Annotated[tuple[str, ...] | None, Parameter(negative="")] = None,
    buffer: str = "2px",
    users: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    seed: int = 0,
    dates: int = 4,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Draw points of a published map for people to interpret: the way to an area that one can publish.

    Counting a map's pixels gives its errors' area as well. So points are drawn at random within strata (the map's
    classes, and a buffer around change, where most of what a map misses lies), people say what is there, and
    `geossl area` makes areas and accuracies of that, with 95 % intervals (Olofsson et al. 2014).

    Give the folder `interpret` to the interpreters: points with a form for QGIS, a CSV for Collect Earth Online, and
    pictures of every place by date. It does not say what the map has there, since who knows that agrees too often;
    `sample.json` beside it does. The map stays on disk, and its snapshot in the cube, as long as the sample is there.

    Parameters
    ----------
    map
        A map's name (its newest release), NAME/RELEASE, or a release's folder.
    error
        Wanted standard error of overall accuracy, which says how many points are needed (equation 13). With fewer
        points than 0.01 asks for, intervals of rare classes hold the truth less often than they say.
    size
        Number of points instead.
    minimum
        Points of every stratum at least; rare classes get that many.
    allocation
        How the rest is shared out: proportional to area, or neyman (area times anticipated spread).
    around
        Class that is change; may be repeated. By default, of a map of change every class but the first.
    buffer
        Width of the stratum around change, such as 2px or 60m; 0px: none.
    users
        Anticipated user's accuracy of a class or stratum, as `--users.clearing 0.8`; otherwise 0.9, and 0.7 for
        change and around it.
    seed
        Another seed draws other points.
    dates
        How many dates the pictures show, where there are as many.
    """
    from geossl.cli.progress import bars
    from geossl.project.stages.sample import Design, draw

    out = console()
    design = Design(error, size, minimum, allocation, around, buffer, users or {}, seed, dates)
    with bars(out) as progress:
        done = draw(open_project(project, overrides), map, design, progress)
    from rich.table import Table

    table = Table("stratum", "area, ha", "pixels", "points", "probability", title=done.sample.id, title_justify="left")
    for row in done.sample.strata:
        table.add_row(row.name, f"{row.area_ha:,.1f}", f"{row.units:,}", str(row.points), f"{row.inclusion:.2e}")
    out.print(table)
    said = done.sample.design["expected_error"]
    for line in (
        f"{len(done.sample.points)} points; expected standard error of overall accuracy {said:.4f}",
        f"areas are on the ground; pixels differ from their mean by up to {done.sample.distortion:.2%} there",
        f"{'drawn' if done.fresh else 'drawn before, left as it is'}: {done.folder}",
        f"interpret {done.folder / 'interpret' / 'points.gpkg'}, then run: geossl area {done.sample.id}",
    ):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def area(
    sample: str,
    /,
    *,
    reference: Path | None = None,
    column: str = "reference",
    map: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Say what a sample's interpreted points tell: areas, user's, producer's and overall accuracy, 95 % intervals.

    Writes `area.json` and `area.csv` into the sample's folder. Points without an answer are counted and said, and
    how much they could change. Training labels, held-out blocks and counted pixels are refused as reference.

    Parameters
    ----------
    sample
        The sample's id or folder, or its map's name where that has one sample only.
    reference
        Interpreted points: GeoPackage, GeoJSON, shapefile, or CSV with a column of plot numbers, such as Collect
        Earth Online's; by default the GeoPackage in the sample's folder.
    column
        Where the class is; of Collect Earth Online, the text of the question.
    map
        A newer map to assess with points that were drawn from an older one (Stehman 2014).
    json
        Print it for machines.
    """
    import json as encoder

    from geossl.project.stages.area import lines, run, table_rows

    done = run(open_project(project, overrides), sample, reference=reference, column=column, assessed=map)
    if json:
        print(encoder.dumps(done.figures, indent=1, ensure_ascii=False))
        return 0
    from rich.table import Table

    out = console()
    heads = ("class", "pixels say, ha", "area", "user's accuracy", "producer's accuracy")
    table = Table(*heads, title=f"{done.figures['map']}: 95 % intervals", title_justify="left")
    for row in table_rows(done.figures):
        table.add_row(*row)
    out.print(table)
    for line in lines(done.figures):
        out.print(line, highlight=False, markup=False)
    return 0


def release(
    year: int | None = None,
    /,
    *,
    task: str | None = None,
    revise: str | None = None,
    verify: Annotated[bool, Parameter(negative="")] = False,
    compare: Annotated[bool, Parameter(negative="")] = False,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Freeze a reporting year: map, model, masks, legend and snapshot in one folder that nothing alters later.

    Takes the newest map of a change task. Ground that an earlier release cleared is not cleared again, and patches
    under `release.minimum_ha` do not count; `release.start_month` says when a year begins. Releasing the same again
    does nothing; another map of a released year is refused, unless it is a revision with a reason, which is kept
    beside the earlier one. Without a year, lists what was released.

    Parameters
    ----------
    year
        The reporting year, named after the calendar year it ends in.
    task
        Which change task, where there are several.
    revise
        Why a released year is released anew.
    verify
        Compare every file with its checksum instead (of the year, or of all); ends with exit code 4 where one differs.
    compare
        Map the released years again by today's champion instead, and print how much of each year's difference is
        the model's and how much the imagery's.
    """
    from rich.table import Table

    from geossl.project.stages import release as stage

    opened, out = open_project(project, overrides), console()
    if verify:
        found = stage.verify(opened, year, task=task)
        for name, problems in found.items():
            print(f"{name}: {'; '.join(problems) if problems else 'as released'}")
        return CHANGED if any(found.values()) else 0
    if compare:
        from geossl.cli.progress import bars
        from geossl.project.stages.remap import compare as remap

        with bars(out) as progress:
            model, rows = remap(opened, progress, task=task)
        table = Table("year", "released, ha", "new model, ha", "now, ha", "by the model", "by the imagery")
        for row in rows:
            numbers = (row.released, row.new_model, row.now)
            shown = (*(f"{n:,.1f}" for n in numbers), f"{row.model:+,.1f}", f"{row.imagery:+,.1f}")
            table.add_row(str(row.year), *shown)
        out.print(table)
        print(f"new model: {model}; releases stay as they are")
        return 0
    if year is not None:
        done = stage.freeze(opened, year, task=task, why=revise)
        print(f"{'released' if done.fresh else 'released before, nothing to do'}: {done.release.folder}")
        print(*done.notes, sep="\n", end="\n" if done.notes else "")
    table = Table("year", "revision", "mapped, ha", "cleared before, ha", "too small, ha", "cleared, ha")
    for entry in stage.table(opened, task=task):
        hectares = (entry[f"{key}_ha"] for key in ("mapped", "before", "small", "cleared"))
        table.add_row(str(entry["year"]), str(entry["revision"]), *(f"{value:,.1f}" for value in hectares))
    out.print(table)
    return 0
