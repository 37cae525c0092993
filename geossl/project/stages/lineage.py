"""`geossl lineage`: where a pixel of a map comes from."""

from __future__ import annotations

import numpy as np

from geossl.cube.collection import Collection
from geossl.cube.composite import periods
from geossl.errors import GeosslError, StoreError
from geossl.maps.lineage import PixelLineage, pixel_lineage
from geossl.project.project import Project
from geossl.project.stages.search import parse_point


def lineage(project: Project, name: str, at: str) -> tuple[PixelLineage, list[list[str]]]:
    """Trace a pixel, and list the scenes behind each of its composites.

    Parameters
    ----------
    name:
        A map, or ``map/release``; without a release, its newest.
    at:
        ``lon,lat`` in degrees.

    Raises
    ------
    StoreError
        There is no such map or release.
    GeosslError
        The point is not on it.
    """
    name, _, release = name.partition("/")
    home = project.maps / name
    folder = home / "releases" / release if release else home / "latest"
    if not folder.is_dir():
        known = sorted(path.parent.name for path in project.maps.glob("*/collection.json"))
        if name in known:
            known = [f"{name}/{path.name}" for path in sorted((home / "releases").iterdir())]
        raise StoreError(
            f"there is no published map {name + '/' + release if release else name!r} in {project.maps}",
            f"there are: {', '.join(known) or 'none; run `geossl map` first'}",
        )
    found = pixel_lineage(folder, name, *parse_point(at))
    return found, [_members(project, found, number) for number in range(len(found.sources))]


def _members(project: Project, found: PixelLineage, number: int) -> list[str]:
    """The scenes of the composite that a source is, as the map's snapshot has them; none where it is a scene."""
    source = found.sources[number]
    if "/" not in source.scene:
        return []
    try:
        scenes = project.cube().view(found.snapshot).collection(project.sensor.name)
    except GeosslError:  # the snapshot is gone, or the store of a copied map
        return []
    return _of_period(scenes, source.tile, source.scene)


def _of_period(scenes: Collection, tile_id: str, period: str) -> list[str]:
    """Scenes with a clear pixel on a tile in a period like ``2023-01-01/P12M``, in order of time."""
    start, _, duration = period.partition("/")
    times = scenes.times(tile_id)
    months = int(duration.removeprefix("P").removesuffix("M"))
    inside = periods(times, months) == np.datetime64(start, "M")
    steps = np.flatnonzero(inside & (scenes.clear_fraction(tile_id) > 0))
    ids = scenes.scene_ids(tile_id)
    return [ids[step] for step in sorted(steps, key=lambda step: (times[step], ids[step]))]
