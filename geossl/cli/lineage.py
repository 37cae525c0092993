"""`geossl lineage`: where a pixel of a map comes from."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from geossl.cli.options import HERE, ProjectFile


def lineage(
    map: str,
    *,
    at: Annotated[str, Parameter(allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(negative="")] = False,
    project: ProjectFile = HERE,
) -> int:
    """Say which model, encoder, snapshot and scenes a pixel of a published map comes from.

    Scenes are those of the pixel's own tile, and those of neighbouring tiles that the windows it was
    predicted in reach into; of a composite, also the scenes of its period.

    Parameters
    ----------
    map
        A map's name, or NAME/RELEASE for an older one.
    at
        LON,LAT in degrees.
    json
        Print it for machines.
    """
    from geossl.maps.lineage import lineage_lines
    from geossl.project.project import Project
    from geossl.project.stages.lineage import lineage as stage

    found, scenes = stage(Project.load(project), map, at)
    if json:
        import json as encoder

        print(encoder.dumps(found.to_dict() | {"scenes": scenes}, indent=1))
    else:
        print("\n".join(lineage_lines(found, scenes)))
    return 0
