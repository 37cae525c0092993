"""The newest imagery as the background of the maps' QGIS project."""

from __future__ import annotations

from geossl.cube.collection import Collection
from geossl.downstream.images import DatedImages
from geossl.imagery.clouds import is_clear
from geossl.maps.picture import BACKGROUND, write_picture
from geossl.project.overview import overview
from geossl.project.project import Project
from geossl.report.pictures import quicklook

_SIDE = 2048
"""Pixels of the picture at most, along its longer side."""


def write_background(project: Project, images: Collection) -> None:
    """Write a picture of each tile's newest image below the maps' root; none where there are no statistics yet."""
    statistics = images.statistics or project.scenes().statistics
    found = {tile_id: DatedImages(images, (None,)).steps(tile_id) for tile_id in images.tile_ids}
    steps = {tile_id: chosen[0] for tile_id, chosen in found.items() if chosen is not None}
    if statistics is None or not steps:
        return
    view = overview(images, steps, side=_SIDE)
    picture = quicklook(view.image, images.sensor, statistics)
    newest = max(images.times(tile_id)[step] for tile_id, step in steps.items()).astype("datetime64[D]")
    what = "Composite of the period around" if images.kind == "composite" else "Imagery up to"
    text = f"{what} {newest}"
    write_picture(
        project.maps / BACKGROUND, picture, is_clear(view.quality), images.grid, view.origin, view.every, text
    )
