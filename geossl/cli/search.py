"""`geossl search`: places like one that you know."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from geossl.cli.options import HERE, Overrides, ProjectFile


def search(
    *,
    at: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    like: Path | None = None,
    since: Annotated[str | None, Parameter("--from")] = None,
    until: Annotated[str | None, Parameter("--to")] = None,
    clear: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.0,
    most: Annotated[int, Parameter(validator=Number(gte=1))] = 12,
    out: Path | None = None,
    sheet: Path | None = None,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Find the places that are most like a point or a polygon, by the embeddings of `geossl embed`.

    Writes GeoJSON, the most similar place first, and a contact sheet: a picture of each with its similarity
    (1: the same; 0: as unlike as any two places) and date. A place is one answer, at the date that fits best: chips
    that overlap or touch a better answer, or what was asked for, are passed over.

    Parameters
    ----------
    at
        LON,LAT in degrees.
    like
        Vector file of polygons, in any coordinate system that it names; several chips are asked for by their mean.
    since
        First day to look at, such as 2024-03-31, both of what is asked for and of what is found.
    until
        Last day.
    clear
        Smallest share of clear pixels in a chip, 0 to 1.
    most
        How many places at most.
    out
        Where the GeoJSON goes; by default it is printed.
    sheet
        Where the contact sheet (PNG) goes; by default beside `--out`, or else into the store.
    """
    import json as encoder

    from geossl.files import write_text
    from geossl.project.project import Project
    from geossl.project.stages.search import parse_day, parse_point
    from geossl.project.stages.search import search as stage
    from geossl.search.table import Where

    found = stage(
        Project.load(project, overrides or []),
        at=None if at is None else parse_point(at),
        like=like,
        where=Where(parse_day("--from", since), parse_day("--to", until), clear),
        most=most,
        sheet=sheet or (out.with_suffix(".png") if out else None),
    )
    text = encoder.dumps(found.geojson, indent=1, ensure_ascii=False)
    if out is None:
        print(text)
    else:
        write_text(out, text + "\n")
    for line in [*found.notes, f"contact sheet: {found.sheet}"]:
        print(line, file=sys.stderr)  # what is printed above may go into a file
    return 0
