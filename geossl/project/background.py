"""The newest imagery as the background of the maps' QGIS project."""

from __future__ import annotations

from collections.abc import Mapping

from geossl.cube.collection import Collection
from geossl.cube.overview import Thin, assemble, thinning
from geossl.downstream.images import DatedImages
from geossl.files import read_arrays, write_arrays
from geossl.grid import Tile
from geossl.imagery.clouds import is_clear
from geossl.maps.picture import BACKGROUND, write_picture
from geossl.project.overview import thin
from geossl.project.project import Project
from geossl.report.pictures import natural

_SIDE = 2048
"""Pixels of the picture at most, along its longer side."""


def write_background(project: Project, images: Collection) -> None:
    """Write a picture of each tile's newest image below the maps' root; none where there are no statistics yet.

    Thinned-out tiles are kept, so that only those with a new image are read.
    """
    statistics = images.statistics or project.scenes().statistics
    images.load("time", "clear_fraction", "scene_id", "revision", "source_checksum")
    found = {tile_id: DatedImages(images, (None,)).steps(tile_id) for tile_id in images.tile_ids}
    steps = {images.tile(tile_id): chosen[0] for tile_id, chosen in found.items() if chosen is not None}
    if statistics is None or not steps:
        return
    every = thinning(steps, _SIDE)
    view = assemble(_parts(project, images, steps, every), images.sensor, every)
    picture = natural(view.image, images.sensor, statistics)
    newest = max(images.times(tile.id)[step] for tile, step in steps.items()).astype("datetime64[D]")
    what = "Composite of the period around" if images.kind == "composite" else "Imagery up to"
    text = f"{what} {newest}"
    write_picture(
        project.maps / BACKGROUND, picture, is_clear(view.quality), images.grid, view.origin, view.every, text
    )


def _parts(project: Project, images: Collection, steps: Mapping[Tile, int], every: int) -> dict[Tile, Thin]:
    """Each tile's image, thinned out; red, green and blue alone."""
    file = project.store / "background" / f"{images.name}.npz"
    colours = list(images.sensor.rgb())
    known: dict[str, tuple[str, Thin]] = {}
    if (kept := read_arrays(file, "tiles", "keys", "image", "quality")) is not None:
        for tile_id, key, image, quality in zip(*kept.values(), strict=True):
            known[str(tile_id)] = str(key), Thin(image, quality)
    parts, keys = {}, []
    for tile, step in steps.items():
        source = images.scene_ids(tile.id)[step], images.revisions(tile.id)[step], images.checksums(tile.id)[step]
        keys.append(" ".join(map(str, (every, *colours, *source))))
        key, part = known.get(tile.id, ("", None))
        if part is None or key != keys[-1]:
            whole = thin(images, tile, step, every)
            part = Thin(whole.image[colours], whole.quality)
        parts[tile] = part
    if keys != [key for key, _ in known.values()]:
        write_arrays(
            file,
            tiles=[tile.id for tile in parts],
            keys=keys,
            image=[part.image for part in parts.values()],
            quality=[part.quality for part in parts.values()],
        )
    return parts
